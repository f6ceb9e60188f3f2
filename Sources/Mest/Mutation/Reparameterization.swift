// SPDX-License-Identifier: Apache-2.0
// DSR, dynamic sparse reparameterization (Mostafa, Wang 2019): one threshold for the whole network. What lies
// below it leaves; as many come, shared out over the layers in proportion to what each has kept, so that
// connections move between layers. The threshold doubles or halves until about mutation_rate of all leave.

import CMest
import CMestKernels

extension Plan {
    var sharesOut: Bool { config.method == MEST_METHOD_DSR }
}

extension Model {
    /// What every sparse layer from `first` on keeps and has afterwards: in its `dropped` and `grown`, until it mutates.
    func shareOut(from first: Int) {
        var dropped: Int64 = 0, kept: Int64 = 0
        for i in first..<count where nodes[i].sparse {
            let importance = Importance(self, nodes + i)
            let n = int(nodes[i].units)
            var below = 0
            for j in 0..<n where importance[j] < state.pointee.threshold { below &+= 1 }
            let stays = max(1, n &- below)
            nodes[i].dropped = uint32(stays)
            nodes[i].grown = uint32(stays)
            dropped &+= int64(n &- stays)
            kept &+= int64(stays)
        }
        adaptThreshold(dropped: dropped, of: dropped &+ kept)
        var random = SplitMix64(streamKey(config.seed, .share, layer: 0, number: uint64(state.pointee.mutations &+ 1)))
        var left = dropped
        while left > 0 {
            let given = shareOut(left, from: first, &random)
            if given == 0 { break }
            left &-= given
        }
    }

    /// Gives each layer with room its share of `total` more connections, as far as it has room. Shares are cut from one
    /// line at whole numbers, its beginning is random: they are within one of the proportional ones, and on average
    /// those. Returns how many were given.
    private func shareOut(_ total: Int64, from first: Int, _ random: inout SplitMix64) -> Int64 {
        func room(_ i: Int) -> Int64 { nodes[i].weight.capacity &- int64(nodes[i].grown) }
        var kept: Int64 = 0
        for i in first..<count where nodes[i].sparse && room(i) > 0 { kept &+= int64(nodes[i].dropped) }
        if kept == 0 { return 0 }
        var line = int64(random.below(uint64(kept))), given: Int64 = 0
        for i in first..<count where nodes[i].sparse && room(i) > 0 {
            let begin = line / kept
            line &+= total &* int64(nodes[i].dropped)
            let share = min(room(i), line / kept &- begin)
            nodes[i].grown &+= uint32(share)
            given &+= share
        }
        return given
    }

    private func adaptThreshold(dropped: Int64, of all: Int64) {
        let wanted = Ratio(config.mutation_rate).round(of: all)
        if 10 &* dropped > 11 &* wanted {
            state.pointee.threshold *= 0.5
        } else if 10 &* dropped < 9 &* wanted {
            state.pointee.threshold *= 2
        }
    }
}
