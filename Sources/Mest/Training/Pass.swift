// SPDX-License-Identifier: Apache-2.0
// Pass: the network forward, the loss, the network backward, one layer at a time. Layer i computes forward at time i,
// the loss at n, layer i backward at 2n - i: the times by which the plan places the workspace.

import CMest
import CMestKernels

extension Model {
    /// Does what is next: a layer forward, the loss, a layer computed again, or one backward. The work that it was, in
    /// multiply-adds; nil where nothing is left.
    func advance(_ batch: mest_batch, _ pass: Pass, _ time: inout PassTime) throws(Status) -> UInt64? {
        while true {
            let now = time.next
            try stopIfCancelled()
            if now >= 2 &* count { return nil }
            if now < count {
                if now == 0 { begin(pass) }
                forward(nodes + now, batch.x, pass)
                time.next &+= 1
                return work(nodes[now], pass)
            }
            if now == count {
                (time.loss, time.correct) = try checkedLoss(batch, pass)
                time.next &+= 1
                return uint64(int64(outputs(pass).outputs) &* int64(pass.count))
            }
            let node = nodes + (2 &* count &- now)
            if !node.pointee.trains {
                time.next &+= 1
                continue
            }
            if let again = nextRecomputed(node.pointee, &time) {
                var pass = pass
                pass.recomputing = true  // statistics and constants are those of the first time
                forward(again, nil, pass)
                return work(again.pointee, pass)
            }
            try backward(node, pass)
            time.next &+= 1
            time.recomputed = 0
            return 2 &* work(node.pointee, pass)
        }
    }

    /// What a layer goes through: multiply-adds, or values where it has no weights.
    private func work(_ node: Node, _ pass: Pass) -> UInt64 {
        uint64(node.hasMatrix ? weightCount(node) &* node.pixels : node.elements) &* uint64(int64(pass.count))
    }

    /// What was given up and this layer's backward reads, in order, as Plan+Recompute.swift chose it.
    private func nextRecomputed(_ node: Node, _ time: inout PassTime) -> UnsafeMutablePointer<Node>? {
        let (first, end) = (int(node.recomputes.0), int(node.recomputes.1))
        while first &+ time.recomputed < end {
            let i = first &+ time.recomputed
            time.recomputed &+= 1
            if nodes[i].recomputedAt == node.index { return nodes + i }
        }
        return nil
    }

    private func begin(_ pass: Pass) {
        if pass.training && !pass.adds { zeroGradients(stored: false) }
        let filled = (pass.count &+ lanes &- 1) / lanes
        if filled == blocks { return }
        state.pointee.blocks = filled
        for i in 0..<count {
            nodes[i].geometry.in.blocks = filled
            nodes[i].geometry.out.blocks = filled
        }
    }

    /// Runs the network on pass.count samples.
    func forward(_ x: UnsafePointer<Float>, _ pass: Pass) throws(Status) {
        begin(pass)
        for i in 0..<count {
            try stopIfCancelled()
            forward(nodes + i, x, pass)
        }
    }

    /// x: the caller's samples, which the first layer reads.
    private func forward(_ node: UnsafeMutablePointer<Node>, _ x: UnsafePointer<Float>?, _ pass: Pass) {
        if pass.inParts && node.pointee.sparse { return forwardInParts(node, pass) }
        state.pointee.batchInput = x
        layerForward(self, node, pass)
        state.pointee.batchInput = nil
    }

    private func backward(_ node: UnsafeMutablePointer<Node>, _ pass: Pass) throws(Status) {
        if pass.inParts && node.pointee.sparse { return try scoreInParts(node, pass) }
        if pass.moves && node.pointee.sparse { collectCandidates(node, pass) }
        layerBackward(self, node, pass)
    }

    private func checkedLoss(_ batch: mest_batch, _ pass: Pass) throws(Status) -> (loss: Float, correct: UInt32) {
        let result = loss(batch, pass, smoothing: config.label_smoothing)
        if !result.loss.isFinite { throw diverged("loss") }
        for i in 0..<count where nodes[i].kind == .batchNorm && !nodes[i].frozen {
            // The loss may be finite all the same: max pooling passes over NaN.
            if !BatchNorm.isFinite(self, nodes + i) { throw diverged("statistics of a batch norm") }
        }
        return result
    }

    /// Loss over the outputs of the last forward pass; in training also its gradient, divided by the
    /// number of micro-batches so that they average.
    func loss(_ batch: mest_batch, _ pass: Pass, smoothing: Float) -> (loss: Float, correct: UInt32) {
        let plan = state.pointee.plan
        let outputs = outputs(pass)
        let y = floats(plan.last.pointee.output)
        let dy = pass.training ? floats(plan.last.pointee.gradient) : nil
        let scale = 1 / Float(int(config.micro_batches))
        let sampleLoss = floats(plan.sampleLoss)
        let correct = at(plan.sampleCorrect, UInt8.self)
        let sum: Double
        if config.loss == MEST_LOSS_CROSS_ENTROPY {
            // In place: backward reads of the outputs at most their sign.
            if pass.temperature != 1 {
                for i in 0..<int(plan.last.pointee.channels &* lanes &* blocks) { y[i] *= 1 / pass.temperature }
            }
            sum = mestk_cross_entropy(
                outputs, y, batch.labels, smoothing, scale, sampleLoss, correct, optional(plan.sampleMargin), dy)
        } else {
            sum = mestk_mean_squared_error(outputs, y, batch.targets, scale, sampleLoss, dy)
            for i in 0..<int(pass.count) { correct[i] = 0 }
        }
        var right: UInt32 = 0
        for i in 0..<int(pass.count) { right &+= uint32(correct[i]) }
        return (mestk_float_double(sum / Double(int(pass.count))), right)
    }

    func outputs(_ pass: Pass) -> mestk_outputs {
        mestk_outputs(
            blocks: blocks, lanes: lanes, outputs: state.pointee.plan.last.pointee.channels, count: pass.count)
    }

    // MARK: Gradients

    func dropGradients() {
        state.pointee.gathered = 0
        zeroGradients(stored: true)
    }

    /// stored: also those that the first micro-batch stores instead of adding them.
    func zeroGradients(stored: Bool) {
        for i in 0..<count where !nodes[i].frozen && (stored || !layerTraits(nodes[i]).storesFirstGradient) {
            zeroGradient(nodes[i].weight)
            zeroGradient(nodes[i].bias)
        }
    }

    func zeroGradient(_ p: Parameter) {
        if p.exists { zero(p.gradient, to: Place(offset: p.gradient.offset &+ p.capacity &* 4)) }
    }
}
