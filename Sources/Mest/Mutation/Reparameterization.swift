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
        var left = dropped
        while left > 0 {
            let given = shareOut(left, from: first)
            if given == 0 { break }
            left &-= given
        }
    }

    /// Gives each layer with room its share of `count` more connections, rounded down; where all shares are 0,
    /// the first layer with room one. Returns how many were given.
    private func shareOut(_ total: Int64, from first: Int) -> Int64 {
        func room(_ i: Int) -> Int64 { nodes[i].weight.capacity &- int64(nodes[i].grown) }
        var kept: Int64 = 0
        for i in first..<count where nodes[i].sparse && room(i) > 0 { kept &+= int64(nodes[i].dropped) }
        if kept == 0 { return 0 }
        var given: Int64 = 0
        for i in first..<count where nodes[i].sparse {
            let share = min(room(i), total &* int64(nodes[i].dropped) / kept)
            nodes[i].grown &+= uint32(share)
            given &+= share
        }
        if given > 0 { return given }
        for i in first..<count where nodes[i].sparse && room(i) > 0 {
            nodes[i].grown &+= 1
            return 1
        }
        return 0
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
