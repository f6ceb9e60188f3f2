// SPDX-License-Identifier: Apache-2.0
// Workspace: places activations, their gradients and scratch by life-time, greedy best fit by size
// (largest first, into the tightest gap that is free during the tensor's life).
//
// Time: node i computes forward at i, the loss at n, node i backward at 2n - i.

import CMest
import CMestKernels

enum Use: Int32 { case output, gradient, scratch, backwardScratch, sums, backwardSums, start, gradientConstants }

struct Tensor {
    var bytes: Int64
    var life: Life
    var again = Life.none  // a second life: what is recomputed
    var node: Int32
    var use: Use
    var offset: Int64 = -1
    var next: Int32 = -1  // of the placed ones, by ascending offset

    /// Scratch is used up when a kernel returns, so that of two never meets: not even where, at one time, a
    /// block is computed again, node after node, and then a backward comes.
    func meets(_ other: Tensor) -> Bool {
        if isScratch && other.isScratch { return false }
        return life.meets(other.life) || life.meets(other.again) || again.meets(other.life) || again.meets(other.again)
    }

    private var isScratch: Bool { use == .scratch || use == .backwardScratch }

    func lives(at time: Int32) -> Bool { life.meets(Life(time, time)) || again.meets(Life(time, time)) }
}

/// From the first moment to the last, both included.
struct Life {
    static let none = Life(1, 0)
    var first: Int32
    var last: Int32

    init(_ first: Int32, _ last: Int32) {
        self.first = first
        self.last = last
    }

    func meets(_ other: Life) -> Bool { max(first, other.first) <= min(last, other.last) }
}

struct LastReads {
    var forward: Int
    var backward: Int

    mutating func take(_ other: LastReads) {
        forward = max(forward, other.forward)
        backward = max(backward, other.backward)
    }
}

enum Workspace {
    static let tensorsPerNode = 6
}

extension Plan {
    mutating func placeWorkspace(_ tensors: UnsafeMutablePointer<Tensor>) {
        shareBuffers()
        fuseBackward()
        chooseRecomputation()
        let n = listTensors(tensors)
        tensorCount = n
        let (all, activations) = Plan.bestFit(tensors, n, in: workspace.offset, nodes)
        bytes.activations = activations
        resolveShared()
        for i in 0..<count { nodes[i].planned = (nodes[i].gradient, nodes[i].summedBy) }
        bytes.mutation = max(mutationScratch(), initialScratch())
        bytes.workspace = all > bytes.mutation ? all : bytes.mutation
    }

    /// Decides who computes in place, who owns which buffer, and who adds to a gradient that a later
    /// consumer has begun.
    private func shareBuffers() {
        nodes[0].outputOwner = 0
        nodes[0].gradientOwner = 0
        for i in 1..<count {
            let from = int(nodes[i].from)
            let traits = layerTraits(nodes[i])
            let alone = nodes[from].consumers == 1 && from > 0
            let kept = training && layerTraits(nodes[from]).backwardReadsOutput
            nodes[i].inPlace = traits.inPlace && alone && !kept && !nodes[i].isVirtual && !nodes[from].isVirtual
            nodes[i].gradientInPlace = traits.inPlaceBackward && alone
            nodes[i].outputOwner = nodes[i].inPlace ? nodes[from].outputOwner : int32(i)
            nodes[i].gradientOwner = int32(i)
            nodes[i].accumulatesFrom = laterConsumer(of: from, than: i)
            if nodes[i].with >= 0 {
                nodes[i].accumulatesWith =
                    nodes[i].with == nodes[i].from || laterConsumer(of: int(nodes[i].with), than: i)
            }
        }
        // Gradients are shared the other way: a producer's lies in its only consumer's buffer.
        var i = count &- 1
        while i > 0 {
            if nodes[i].gradientInPlace { nodes[int(nodes[i].from)].gradientOwner = nodes[i].gradientOwner }
            nodes[i].withInPlace = nodes[i].kind == .add && sharesWith(i)
            if nodes[i].withInPlace { nodes[int(nodes[i].with)].gradientOwner = nodes[i].gradientOwner }
            i &-= 1
        }
    }

    private func laterConsumer(of producer: Int, than i: Int) -> Bool {
        var j = i &+ 1
        while j < count {
            if int(nodes[j].from) == producer || int(nodes[j].with) == producer { return true }
            j &+= 1
        }
        return false
    }

    private func listTensors(_ tensors: UnsafeMutablePointer<Tensor>) -> Int {
        var n = 0
        func add(_ bytes: Int64, _ first: Int, _ last: Int, _ node: Int, _ use: Use, again: Life? = nil) {
            if bytes == 0 { return }
            (tensors + n).initialize(
                to: Tensor(
                    bytes: aligned(bytes), life: Life(int32(first), int32(last)), again: again ?? .none, node: int32(node),
                    use: use))
            n &+= 1
        }
        let loss = count
        for i in 0..<count {
            if !nodes[i].inPlace && !nodes[i].isVirtual {
                // Lives until its last reader, the readers of everything computed in its place included.
                var reads = LastReads(forward: i, backward: 0)
                for j in i..<count where int(nodes[j].outputOwner) == i { reads.take(lastReads(j)) }
                let bytes = mestk_bytes(nodes[i].shape(lanes: lanes, blocks: blocks))
                if nodes[i].recomputedAt >= 0 {
                    // Perhaps only for what is computed from it.
                    let time = 2 &* loss &- int(nodes[i].recomputedAt)
                    add(bytes, i, reads.forward, i, .output, again: Life(int32(time), int32(max(time, reads.backward))))
                } else {
                    add(bytes, i, max(reads.forward, reads.backward), i, .output)
                }
            }
            if nodes[i].kind == .batchNorm && training {
                add(sumBytes(nodes[i]), min(i, int(nodes[i].from)), i, i, .sums)
                if nodes[i].trains {
                    add(sumBytes(nodes[i]), 2 &* loss &- int(nodes[i].summedBy), 2 &* loss &- i, i, .backwardSums)
                    let reader = nodes[int(nodes[i].from)].gradientVirtual ? int(nodes[i].from) : i
                    add(int64(nodes[i].channels) &* 12, 2 &* loss &- i, 2 &* loss &- reader, i, .gradientConstants)
                }
            }
            let time = int32(2 &* loss) &- nodes[i].recomputedAt
            let again = nodes[i].recomputedAt >= 0 ? Life(time, time) : nil
            if nodes[i].normedBy >= 0 { add(int64(nodes[i].channels) &* 4, i, i, i, .start, again: again) }
            add(max(layerScratch(nodes[i], self), forwardPartScratch(nodes[i])), i, i, i, .scratch, again: again)
            if !training || !nodes[i].trains { continue }
            let most = max(layerBackwardScratch(nodes[i], self), max(gradientScratch(nodes[i]), backwardPartScratch(nodes[i])))
            add(most, 2 &* loss &- i, 2 &* loss &- i, i, .backwardScratch)
            if int(nodes[i].gradientOwner) == i {
                var first = firstGradient(i)
                var end = 2 &* loss &- i
                for j in 0..<i where int(nodes[j].gradientOwner) == i {
                    first = min(first, firstGradient(j))
                    end = max(end, 2 &* loss &- j)
                }
                add(mestk_bytes(nodes[i].shape(lanes: lanes, blocks: blocks)), first, end, i, .gradient)
            }
        }
        return n
    }

    /// When the output of node i is read for the last time in each direction; 0: not in backward.
    func lastReads(_ i: Int) -> LastReads {
        let loss = count
        var reads = LastReads(forward: i == count &- 1 ? loss : i, backward: 0)
        if training && nodes[i].trains && (layerTraits(nodes[i]).backwardReadsOutput || nodes[i].gradientVirtual) {
            reads.backward = 2 &* loss &- i
        }
        var j = i &+ 1
        while j < count {
            if int(nodes[j].from) == i || int(nodes[j].with) == i {
                if nodes[j].isVirtual { reads.take(lastReads(j)) } else { reads.take(LastReads(forward: j, backward: 0)) }
                if training && nodes[j].trains && layerTraits(nodes[j]).backwardReadsInput {
                    reads.take(LastReads(forward: 0, backward: 2 &* loss &- j))
                }
                // What is computed again reads its input again.
                if nodes[j].recomputedAt >= 0 && nodes[i].recomputedAt < 0 {
                    reads.take(LastReads(forward: 0, backward: 2 &* loss &- int(nodes[j].recomputedAt)))
                }
            }
            j &+= 1
        }
        return reads
    }

    /// When the gradient of node i's output is written first: by its last consumer, or the loss.
    private func firstGradient(_ i: Int) -> Int {
        var first = count
        var j = i &+ 1
        while j < count {
            if int(nodes[j].from) == i || int(nodes[j].with) == i { first = 2 &* count &- j }
            j &+= 1
        }
        return first
    }

    /// Gives every tensor its place from `base` on. Returns the bytes in use at the fullest, with
    /// kernels' scratch and without.
    private static func bestFit(
        _ tensors: UnsafeMutablePointer<Tensor>, _ n: Int, in base: Int64, _ nodes: UnsafeMutablePointer<Node>
    ) -> (all: Int64, activations: Int64) {
        var head: Int32 = -1
        var all: Int64 = 0
        var activations: Int64 = 0
        for _ in 0..<n {
            var big = -1
            for i in 0..<n where tensors[i].offset < 0 && (big < 0 || tensors[i].bytes > tensors[big].bytes) { big = i }
            let t = tensors[big]

            var best: Int64 = -1
            var bestGap = Int64.max
            var end: Int64 = 0
            var at = head
            while at >= 0 {
                let placed = tensors[int(at)]
                if placed.meets(t) {
                    let gap = placed.offset &- end
                    if gap >= t.bytes && gap < bestGap { (best, bestGap) = (end, gap) }
                    end = max(end, placed.offset &+ placed.bytes)
                }
                at = placed.next
            }
            let offset = best >= 0 ? best : end
            tensors[big].offset = offset

            // Into the list, which is kept by ascending offset.
            if head < 0 || tensors[int(head)].offset >= offset {
                tensors[big].next = head
                head = int32(big)
            } else {
                var before = int(head)
                while tensors[before].next >= 0 && tensors[int(tensors[before].next)].offset < offset {
                    before = int(tensors[before].next)
                }
                tensors[big].next = tensors[before].next
                tensors[before].next = int32(big)
            }

            all = max(all, offset &+ t.bytes)
            let node = nodes + int(t.node)
            let place = Place(offset: base &+ offset)
            switch t.use {
            case .output: node.pointee.output = place
            case .gradient: node.pointee.gradient = place
            case .scratch: node.pointee.scratch = place
            case .backwardScratch: node.pointee.backwardScratch = place
            case .sums: node.pointee.sums = place
            case .backwardSums: node.pointee.backwardSums = place
            case .start: node.pointee.start = place
            case .gradientConstants: node.pointee.gradientConstants = place
            }
        }
        // Fullest moment of activations and gradients alone.
        for i in 0..<n {
            var (sum, again) = (Int64(0), Int64(0))
            for j in 0..<n where tensors[j].use == .output || tensors[j].use == .gradient {
                if tensors[j].lives(at: tensors[i].life.first) { sum &+= tensors[j].bytes }
                if tensors[j].lives(at: tensors[i].again.first) { again &+= tensors[j].bytes }
            }
            activations = max(activations, max(sum, again))
        }
        return (all, activations)
    }

    /// Those who share a buffer get its place.
    private func resolveShared() {
        for i in 0..<count where !nodes[i].isVirtual { nodes[i].output = nodes[int(nodes[i].outputOwner)].output }
        if !training { return }
        for i in 0..<count where nodes[i].trains {
            nodes[i].gradient = nodes[int(nodes[i].gradientOwner)].gradient
        }
    }
}
