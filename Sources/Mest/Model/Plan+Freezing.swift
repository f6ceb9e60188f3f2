// SPDX-License-Identifier: Apache-2.0
// Freezing (SpFDE: Yuan et al. 2022), what a plan says of it: which layers are frozen in an epoch, and what of the plan is
// derived anew then. The plan is that of the whole training and stays; the memory of what no longer happens lies idle.

import CMest
import CMestKernels

extension mest_config {
    var freezes: Bool { freeze_share > 0 }
}

extension Plan {
    /// How many layers are frozen in an epoch: up to the last one with anything to train before multiply-adds
    /// exceed the share of the network's that this epoch has reached. A pure function of the epoch, never falling.
    func frozenLayers(at epoch: UInt32) -> Int {
        let (first, last) = config.freeze_epochs
        if !config.freezes || epoch < first { return 0 }
        var all = 0.0
        for i in 0..<count { all += work(i) }
        let pieces = Double(int(last &- first)) + 1
        let limit = Double(config.freeze_share) * min(1, Double(int(epoch &- first) &+ 1) / pieces) * all
        var done = 0.0
        var end = 0
        for i in 0..<count where nodes[i].hasMatrix || nodes[i].statistics > 0 {
            done += work(i)
            if done > limit { return end }
            // Without a weight in front there is no work to save.
            if done > 0 { end = i &+ 1 }
        }
        return end
    }

    /// A share that no layer fits into is a slip.
    func checkFreezing(_ message: Message) throws(Status) {
        if !config.freezes || !training || frozenLayers(at: config.freeze_epochs.1) > 0 { return }
        var first = 0
        while !nodes[first].hasMatrix { first &+= 1 }
        let text = layer(first, message).text(", which freezes first, is more than freeze_share ").real(config.freeze_share)
        throw text.text(" of the multiply-adds: nothing would freeze; raise it, or set 0").as(.argument)
    }

    private func work(_ i: Int) -> Double { mestk_double_u64(uint64(macs(nodes[i], targetWeights(nodes[i])))) }

    /// The first `end` layers, and no others, stay as they are, and backward ends where nothing in front trains. Sums
    /// that batch norm's gradient would need are not taken then. A checkpoint may have fewer layers frozen than the
    /// model that loads it.
    func freeze(upTo end: Int) {
        nodes[0].frozen = end > 0
        nodes[0].gradient = end > 0 ? .none : nodes[0].planned.gradient
        for i in 1..<count {
            nodes[i].frozen = i < end
            let n = nodes[i]
            let own = !n.frozen && (n.weight.exists || n.bias.exists)
            nodes[i].trains = own || nodes[int(n.from)].trains || n.with >= 0 && nodes[int(n.with)].trains
            (nodes[i].gradient, nodes[i].summedBy) = nodes[i].trains ? n.planned : (Place.none, -1)
        }
    }
}
