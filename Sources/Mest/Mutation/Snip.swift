// SPDX-License-Identifier: Apache-2.0
// SNIP (Lee et al. 2019): before the first step each weight of the dense network is scored by |gradient * weight| on
// that step's batch, and the largest scores of the whole network are its connections from then on. The dense network
// is computed in parts (DenseParts.swift); of its scores every layer keeps as many as it has room for, where
// its gradients and the places of its second order will lie.

import CMest
import CMestKernels

extension Plan {
    var scoresAll: Bool { config.method == MEST_METHOD_SNIP && training }

    /// Layers whose target is lower, and which have so many positions, have room for this many connections; so that there
    /// is room for twice the targets in all. Small layers may thus become dense, and large ones keep their target.
    func findRoomLevel() -> Int64 {
        func taken(_ level: Int64) -> Int64 {
            var sum: Int64 = 0
            for i in 0..<count where nodes[i].sparse { sum &+= room(nodes[i], level: level) }
            return sum
        }
        var low: Int64 = 0, high = int64(Int32.max)
        let most = 2 &* taken(0)
        while low < high {
            let middle = (low &+ high &+ 1) / 2
            if taken(middle) <= most { low = middle } else { high = middle &- 1 }
        }
        return low
    }

    func room(_ node: Node, level: Int64) -> Int64 { max(initialUnits(node), min(level, node.positions)) }
}

extension Model {
    /// In the backward pass of a layer: its best weights, scores instead of gradients, positions ascending.
    func scoreInParts(_ node: UnsafeMutablePointer<Node>, _ pass: Pass) throws(Status) {
        let n = node.pointee
        let keys = n.backwardScratch.offset &+ state.pointee.plan.backwardPart(n).candidates
        var best = Candidates(wanted: int(n.weight.capacity), tight: true, keys: at(Place(offset: keys), UInt64.self))
        var finite = true
        backwardInParts(node, pass) { value, gradient, position in
            let score = value * gradient
            finite = finite && score.isFinite
            best.offer(score, position)
        }
        if !finite { throw notFinite() }
        best.keepLargest()
        best.sortByPosition()
        let score = floats(n.weight.gradient), position = at(n.connections.position, UInt32.self)
        for j in 0..<best.count {
            score[j] = best.magnitude(j)
            position[j] = best.position(j)
        }
        node.pointee.scored = int32(best.count)
    }

    /// The connections of a layer that the cut keeps, as they were drawn, instead of those that it has.
    func takeChosen(_ node: UnsafeMutablePointer<Node>, _ cut: inout Cut) {
        let store = Unstructured.store(self, node), rows = store.rows
        let score = floats(node.pointee.weight.gradient)
        let position = at(node.pointee.connections.position, UInt32.self)
        var kept = 0
        for j in 0..<int(node.pointee.scored) where cut.takes(falling(score[j])) {
            position[kept] = position[j]
            kept &+= 1
        }
        let before = rows.count, common = rows.common(with: position, kept)
        rows.replace(with: position, kept)
        var values = FirstValues(self, node.pointee)
        values.fill(rows)
        store.refresh()
        node.pointee.dropped = uint32(before &- common)
        node.pointee.grown = uint32(kept &- common)
    }
}
