// SPDX-License-Identifier: Apache-2.0
// Recomputation: outputs that are given up after their forward pass and computed again when backward comes to
// them (Chen et al. 2016, "Training deep nets with sublinear memory cost").
//
// ELEMENTWISE: those of ReLU and addition that are stored, unless one that is given up is needed to compute
// them: of a chain of residual blocks every other one.
//
// BLOCK: all inside a block, which lies between two stored outputs through which alone everything passes: the
// output of a residual block, of a pool; of a long chain of convolutions, of some of them. The last block that holds
// anything is kept, since backward begins there, and so are those that hold less than a third of the largest: late
// blocks take as long to compute again and save little.

import CMest
import CMestKernels

extension Plan {
    /// Marks, on the node whose backward needs it first, what is to be computed again.
    func chooseRecomputation() {
        if !training { return }
        switch int(config.recompute) {
        case MEST_RECOMPUTE_BLOCK: chooseBlocks()
        case MEST_RECOMPUTE_ELEMENTWISE: chooseElementwise()
        default: break
        }
    }

    // MARK: elementwise

    private func chooseElementwise() {
        for i in 1..<(count &- 1) where isElementwise(i) && nodes[i].trains && !readsRecomputed(i) {
            let reader = firstReaderInBackward(i)
            // Where backward begins nothing is gained.
            if reader > 0 && bytesStored(after: reader) > outputBytes(i) {
                nodes[i].recomputedAt = int32(reader)
                // Of two with one reader the range holds both; what lies between is told by recomputedAt.
                let first = nodes[reader].recomputes.1 > 0 ? nodes[reader].recomputes.0 : int32(i)
                nodes[reader].recomputes = (first, int32(i &+ 1))
            }
        }
    }

    /// ReLU or a sum with a buffer that is its own alone.
    private func isElementwise(_ i: Int) -> Bool {
        if nodes[i].isVirtual || int(nodes[i].outputOwner) != i { return false }
        if nodes[i].kind != .relu && nodes[i].kind != .add { return false }
        for j in (i &+ 1)..<count where int(nodes[j].outputOwner) == i { return false }
        return true
    }

    /// Is one of the stored outputs that it is computed from given up itself?
    private func readsRecomputed(_ i: Int) -> Bool {
        isRecomputed(int(nodes[i].from)) || isRecomputed(int(nodes[i].with))
    }

    private func isRecomputed(_ source: Int) -> Bool {
        if source < 0 { return false }
        if nodes[source].isVirtual { return readsRecomputed(source) }
        return nodes[int(nodes[source].outputOwner)].recomputedAt >= 0
    }

    /// The node whose backward comes first among those that read the output; 0: none.
    private func firstReaderInBackward(_ i: Int) -> Int {
        var reader = layerTraits(nodes[i]).backwardReadsOutput ? i : 0
        for j in (i &+ 1)..<count where int(nodes[j].from) == i || int(nodes[j].with) == i {
            if !nodes[j].trains { continue }
            if nodes[j].isVirtual { reader = max(reader, firstReaderInBackward(j)) }
            if layerTraits(nodes[j]).backwardReadsInput { reader = max(reader, j) }
            if nodes[j].kind == .batchNorm { reader = max(reader, int(nodes[j].summedBy)) }
        }
        return reader
    }

    private func bytesStored(after i: Int) -> Int64 {
        var bytes: Int64 = 0
        for j in (i &+ 1)..<count where int(nodes[j].outputOwner) == j && !nodes[j].isVirtual {
            bytes &+= outputBytes(j)
        }
        return bytes
    }

    private func outputBytes(_ i: Int) -> Int64 { mestk_bytes(nodes[i].shape(lanes: lanes, blocks: blocks)) }

    // MARK: blocks

    private static let longChain = 6  // convolutions

    private func chooseBlocks() {
        var largest: Int64 = 0
        var last = 0
        forEachBlock { start, end in
            let bytes = innerBytes(after: start, before: end)
            largest = max(largest, bytes)
            if bytes > 0 { last = end }
        }
        forEachBlock { start, end in
            if innerBytes(after: start, before: end) &* 3 <= largest { return }
            forEachPiece(after: start, before: end) { start, end in
                if end < last { markBlock(after: start, before: end) }
            }
        }
    }

    /// Between neighbouring anchors.
    private func forEachBlock(_ body: (Int, Int) -> Void) {
        var start = 0
        for i in 1..<count where isAnchor(i) {
            body(start, i)
            start = i
        }
    }

    /// A long chain of convolutions in pieces, of which each ends with an output that is kept; else the whole block.
    /// Backward goes through pieces from the last to the first and holds, in piece j, the inner outputs of that one and
    /// the ends of j: so the later a piece, the shorter. Lengths m, m - 1, ... hold m outputs at most, and a chain of
    /// m (m + 1) / 2 fits.
    private func forEachPiece(after start: Int, before end: Int, _ body: (Int, Int) -> Void) {
        var links = 0
        for i in (start &+ 1)...end where i < end && isLink(i) { links &+= 1 }
        if links < Plan.longChain { return body(start, end) }
        var length = 1
        while length &* (length &+ 1) / 2 < links { length &+= 1 }
        var (from, passed) = (start, 0)
        for i in (start &+ 1)...end where i < end && isLink(i) {
            passed &+= 1
            links &-= 1
            if passed == length && links > 0 {
                body(from, i)
                (from, passed) = (i, 0)
                length &-= 1
            }
        }
        body(from, end)
    }

    /// What a block gives up: outputs that backward reads.
    private func innerBytes(after start: Int, before end: Int) -> Int64 {
        var bytes: Int64 = 0
        var i = start &+ 1
        while i < end {
            if int(nodes[i].outputOwner) == i && !nodes[i].isVirtual && !liesIn(start, end, i) && isReadInBackward(i) {
                bytes &+= outputBytes(i)
            }
            i &+= 1
        }
        return bytes
    }

    private func markBlock(after start: Int, before end: Int) {
        var trigger = end
        if !nodes[start &+ 1].trains { return }
        for i in (start &+ 1)...end where nodes[i].kind == .batchNorm {
            // Whoever takes a batch norm's sums reads what was normalised.
            trigger = max(trigger, int(nodes[i].summedBy))
        }
        // From the end, so that it is known what the later ones are computed from.
        var first = end
        var i = end &- 1
        while i > start {
            if !liesIn(start, end, i) && isReadInBackward(i) {
                nodes[i].recomputedAt = int32(trigger)
                first = i
            }
            i &-= 1
        }
        nodes[trigger].recomputes = (int32(first), int32(end))
    }

    /// In the buffer of the block's input or output: such a one is not given up, and nobody else reads it.
    private func liesIn(_ start: Int, _ end: Int, _ i: Int) -> Bool {
        nodes[i].outputOwner == nodes[start].outputOwner || nodes[i].outputOwner == nodes[end].outputOwner
    }

    /// By a layer's backward, or by one that is itself computed again; those in its place included.
    private func isReadInBackward(_ i: Int) -> Bool {
        var j = i
        while j < count {
            if int(nodes[j].outputOwner) == i && lastReads(j).backward > 0 { return true }
            j &+= 1
        }
        return lastReads(i).backward > 0
    }

    /// Ends a block. A convolution's output does not: it is what a block can give up.
    private func isAnchor(_ i: Int) -> Bool {
        // Nor does ReLU's or dropout's in its place; but a sum ends a residual block wherever it lies.
        nodes[i].kind != .conv2D && (!nodes[i].inPlace || nodes[i].kind == .add) && isPassage(i)
    }

    /// A link of a chain of convolutions.
    private func isLink(_ i: Int) -> Bool { nodes[i].kind == .conv2D && isPassage(i) }

    /// A stored output that is all that later layers know of earlier ones.
    private func isPassage(_ i: Int) -> Bool {
        if nodes[i].isVirtual { return false }
        for j in (i &+ 1)..<count where (int(nodes[j].from) < i) || (nodes[j].with >= 0 && int(nodes[j].with) < i) {
            return false
        }
        return true
    }
}
