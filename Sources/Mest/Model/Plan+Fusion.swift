// SPDX-License-Identifier: Apache-2.0
// Fusion: layers are the user's words; what is stored and who computes it is decided here.
//
// Forward. Batch norm, addition and ReLU between two convolutions are virtual: never stored, computed by
// the layer that reads them, from the convolution's output and two constants a channel. A convolution that
// a batch norm reads alone gathers the sums for its statistics.
// Backward. The layer that completes a gradient also passes it through the ReLU and takes the sums that
// batch norm's gradient needs; that gradient is virtual again, computed by the convolution that reads it.

import CMest
import CMestKernels

extension Plan {
    func fuseForward() {
        for i in 1..<count {
            let from = int(nodes[i].from)
            if nodes[i].kind == .batchNorm && nodes[from].kind == .conv2D && nodes[from].consumers == 1 {
                nodes[from].normedBy = int32(i)
                // A bias in front of a batch norm is rare, and its gradient needs the stored one.
                nodes[from].gradientVirtual = training && !nodes[from].bias.exists
            }
        }
        for i in 1..<(count &- 1) {
            switch nodes[i].kind {
            case .batchNorm: nodes[i].isVirtual = allConsumers(of: i) { $0 == .relu || $0 == .add || $0 == .conv2D }
            case .relu:
                nodes[i].isVirtual = nodes[i].consumers == 1 && isSimple(int(nodes[i].from))
                    && allConsumers(of: i) { $0 == .conv2D }
            case .add:
                nodes[i].isVirtual = nodes[i].consumers == 1 && isSimple(int(nodes[i].from))
                    && isSimple(int(nodes[i].with)) && allConsumers(of: i) { $0 == .relu }
            default: break
            }
        }
    }

    /// A stored tensor, or a stored one normalised: what one term of an operand can be.
    private func isSimple(_ i: Int) -> Bool { !nodes[i].isVirtual || nodes[i].kind == .batchNorm }

    private func allConsumers(of producer: Int, _ fits: (Kind) -> Bool) -> Bool {
        var i = producer &+ 1
        while i < count {
            if (int(nodes[i].from) == producer || int(nodes[i].with) == producer) && !fits(nodes[i].kind) { return false }
            i &+= 1
        }
        return true
    }

    /// Who completes each gradient. Needs to know which gradients share a buffer.
    func fuseBackward() {
        if !training { return }
        for i in 1..<count where nodes[i].kind == .relu && nodes[i].trains && nodes[i].gradientInPlace {
            let last = firstConsumer(of: i)
            if last > 0 && nodes[last].kind == .conv2D { nodes[i].finishedBy = int32(last) }
            markSums(int(nodes[i].from), by: nodes[i].finishedBy >= 0 ? last : i)
        }
        for i in 1..<count where nodes[i].kind == .batchNorm && nodes[i].trains && nodes[i].summedBy < 0 {
            let last = firstConsumer(of: i)
            nodes[i].summedBy = last > 0 && nodes[last].kind == .conv2D ? int32(last) : int32(i)
        }
    }

    /// The consumer that comes first forward, hence last backward: it completes the gradient.
    private func firstConsumer(of producer: Int) -> Int {
        var i = producer &+ 1
        while i < count {
            if int(nodes[i].from) == producer { return i }
            if int(nodes[i].with) == producer { return -1 }
            i &+= 1
        }
        return -1
    }

    /// The batch norms whose output's gradient lies in the buffer of node i's.
    private func markSums(_ i: Int, by finisher: Int) {
        if nodes[i].kind == .batchNorm {
            nodes[i].summedBy = int32(finisher)
        } else if nodes[i].kind == .add {
            let (from, with) = (int(nodes[i].from), int(nodes[i].with))
            if nodes[i].gradientInPlace && nodes[from].kind == .batchNorm { nodes[from].summedBy = int32(finisher) }
            // Others may still add to it, unless the sum alone reads it.
            if nodes[i].withInPlace && nodes[with].kind == .batchNorm && nodes[with].consumers == 1 {
                nodes[with].summedBy = int32(finisher)
            }
        }
    }

    /// May the gradient of `with` lie in the buffer of the sum's gradient? Whoever writes there must come
    /// after everybody who reads the gradient for the other operand's sake.
    func sharesWith(_ add: Int) -> Bool {
        let (from, with) = (int(nodes[add].from), int(nodes[add].with))
        if with == 0 || with == from || !nodes[add].gradientInPlace { return false }
        guard let reader = onlyReads(from) else { return false }
        var i = with &+ 1
        while i < count {
            if i != add && (int(nodes[i].from) == with || int(nodes[i].with) == with) && i >= reader { return false }
            i &+= 1
        }
        return with < reader || (nodes[with].consumers == 1 && onlyReads(with) != nil)
    }

    /// The node at which the gradient of node i was read for the last time, if nobody writes to it before.
    private func onlyReads(_ i: Int) -> Int? {
        if nodes[i].kind == .conv2D { return i }
        let from = int(nodes[i].from)
        return nodes[i].kind == .batchNorm && nodes[from].gradientVirtual ? from : nil
    }
}
