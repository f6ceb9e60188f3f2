// SPDX-License-Identifier: Apache-2.0
// Recomputation by blocks: a block's inner outputs are given up after its forward pass and computed again
// when backward comes to it (Chen et al. 2016, "Training deep nets with sublinear memory cost").
//
// A block lies between two stored outputs through which alone everything passes: the output of a residual
// block, of a pool. The last block is kept, since backward begins there, and so are those that hold less
// than a third of the largest: late blocks take as long to compute again and save little.

import CMest
import CMestKernels

extension Plan {
    /// Marks, on the node whose backward needs a block first, what is to be computed again.
    func chooseRecomputation() {
        if !training || config.recompute != MEST_RECOMPUTE_BLOCK { return }
        var largest: Int64 = 0
        forEachBlock { largest = max(largest, innerBytes(after: $0, before: $1)) }
        forEachBlock { start, end in
            if innerBytes(after: start, before: end) &* 3 > largest { markBlock(after: start, before: end) }
        }
    }

    /// Between neighbouring anchors, the last two left out.
    private func forEachBlock(_ body: (Int, Int) -> Void) {
        var start = 0
        for i in 1..<count where isAnchor(i) {
            if nextAnchor(after: i) < count { body(start, i) }
            start = i
        }
    }

    private func innerBytes(after start: Int, before end: Int) -> Int64 {
        var bytes: Int64 = 0
        var i = start &+ 1
        while i < end {
            if !nodes[i].isVirtual && !nodes[i].inPlace {
                bytes &+= mestk_bytes(nodes[i].shape(lanes: lanes, blocks: blocks))
            }
            i &+= 1
        }
        return bytes
    }

    private func markBlock(after start: Int, before end: Int) {
        var trigger = end
        if !nodes[start &+ 1].trains { return }
        for i in (start &+ 1)..<end where nodes[i].kind == .batchNorm {
            // Whoever takes a batch norm's sums reads what was normalised.
            trigger = max(trigger, int(nodes[i].summedBy))
        }
        for i in (start &+ 1)..<end { nodes[i].recomputedAt = int32(trigger) }
        nodes[trigger].recomputes = (int32(start &+ 1), int32(end))
    }

    /// A stored output that is all that later layers know of earlier ones. A convolution's is not: it is
    /// what a block can give up.
    private func isAnchor(_ i: Int) -> Bool {
        if nodes[i].isVirtual || nodes[i].inPlace || nodes[i].kind == .conv2D { return false }
        for j in (i &+ 1)..<count where (int(nodes[j].from) < i) || (nodes[j].with >= 0 && int(nodes[j].with) < i) {
            return false
        }
        return true
    }

    private func nextAnchor(after i: Int) -> Int {
        var j = i &+ 1
        while j < count && !isAnchor(j) { j &+= 1 }
        return j
    }
}

extension Model {
    /// Computes the inner outputs of a block again; statistics and constants are those of the first time.
    func recompute(_ node: Node, _ pass: Pass) {
        var again = pass
        again.recomputing = true
        for i in int(node.recomputes.0)..<int(node.recomputes.1) { layerForward(self, nodes + i, again) }
    }
}
