// SPDX-License-Identifier: Apache-2.0
// Step: one training pass and, when its micro-batches are complete, one update. Everything that can
// fail comes first; what changes the model (update, running statistics, counts) comes last and cannot.

import CMest
import CMestKernels

extension Model {
    func step(_ batch: mest_batch) throws(Status) -> mest_step_report {
        try check(batch, limit: config.batch, training: true)
        let s = state
        if !s.pointee.began || (!s.pointee.callerBegins && epochIsOver) { _ = try beginEpoch() }

        var pass = Pass(training: true, count: int32(batch.count), number: s.pointee.passes)
        try poll(MEST_STAGE_STEP, done: uint64(s.pointee.stepsInEpoch), total: uint64(s.pointee.stepsPerEpoch))
        if !s.pointee.chosen { try choose(batch, pass) }
        let result: (loss: Float, correct: UInt32)
        let completes = s.pointee.gathered &+ 1 == config.micro_batches || isLastOfEpoch
        pass.adds = s.pointee.gathered > 0
        pass.moves = completes && movesByGradient
        var update: Update?
        do throws(Status) {
            result = try gather(batch, pass)
            if completes {
                update = try prepareUpdate(microBatches: s.pointee.gathered &+ 1)
            }
        } catch {
            dropGradients()  // a torn sum of gradients is no gradient
            throw error
        }

        // From here on nothing fails.
        s.pointee.gathered &+= 1
        s.pointee.batchesInEpoch &+= 1
        if let update { pass.moves ? applyMove() : apply(update) }
        for i in 0..<count where nodes[i].kind == .batchNorm && !nodes[i].frozen { BatchNorm.commit(self, nodes + i, pass) }
        observe(batch)
        s.pointee.presentations &+= uint64(batch.count)
        s.pointee.passes &+= 1
        s.pointee.lastLoss = result.loss

        var report = mest_step_report()
        report.struct_size = uint32(MemoryLayout<mest_step_report>.size)
        report.events = s.pointee.events | (update == nil ? 0 : UInt32(MEST_EVENT_UPDATED))
        s.pointee.events = 0
        report.update = s.pointee.updates
        report.epoch = s.pointee.epoch
        report.step_in_epoch = s.pointee.stepsInEpoch
        report.loss = result.loss
        report.learning_rate = update.map { $0.learningRate } ?? learningRate
        report.gradient_norm = update.map { $0.norm } ?? 0
        report.correct = result.correct
        report.count = batch.count
        report.frozen = s.pointee.frozen
        return report
    }

    private var epochIsOver: Bool {
        let steps = state.pointee.stepsPerEpoch
        return steps > 0 && state.pointee.stepsInEpoch >= steps
    }

    /// The last batch of an epoch that the engine counts completes its update with the micro-batches
    /// there are: ceil(samples / batch) batches need not be a multiple of micro_batches.
    private var isLastOfEpoch: Bool {
        let s = state.pointee
        if s.callerBegins || !s.plan.derivesSteps || s.stepsPerEpoch == 0 { return false }
        return s.batchesInEpoch &+ 1 >= batches(for: s.trainingSamples, config)
    }

    /// Of the next update.
    var learningRate: Float {
        let s = state.pointee
        return s.plan.learningRate(epoch: s.epoch, update: s.stepsInEpoch, steps: s.stepsPerEpoch)
    }

    /// Forward, loss, backward: the gradient of this micro-batch.
    func gather(_ batch: mest_batch, _ pass: Pass) throws(Status) -> (loss: Float, correct: UInt32) {
        if !pass.adds { zeroGradients(stored: false) }
        try forward(batch.x, pass)
        let result = loss(batch, pass, smoothing: config.label_smoothing)
        if !result.loss.isFinite { throw diverged("loss") }
        for i in 0..<count where nodes[i].kind == .batchNorm && !nodes[i].frozen {
            // The loss may be finite all the same: max pooling passes over NaN.
            if !BatchNorm.isFinite(self, nodes + i) { throw diverged("statistics of a batch norm") }
        }
        var i = count &- 1
        while i > 0 {
            try stopIfCancelled()
            if nodes[i].trains {
                if nodes[i].recomputes.1 > 0 { recompute(nodes[i], pass) }
                try backward(nodes + i, pass)
            }
            i &-= 1
        }
        return result
    }

    /// Computes what was given up again, as Plan+Recompute.swift chose them; statistics and
    /// constants are those of the first time.
    private func recompute(_ node: Node, _ pass: Pass) {
        var again = pass
        again.recomputing = true
        for i in int(node.recomputes.0)..<int(node.recomputes.1) where nodes[i].recomputedAt == node.index {
            forward(nodes + i, again)
        }
    }

    private func forward(_ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        if pass.inParts && node.pointee.sparse { return forwardInParts(node, pass) }
        layerForward(self, node, pass)
    }

    private func backward(_ node: UnsafeMutablePointer<Node>, _ pass: Pass) throws(Status) {
        if pass.inParts && node.pointee.sparse { return try scoreInParts(node, pass) }
        if pass.moves && node.pointee.sparse { collectCandidates(node, pass) }
        layerBackward(self, node, pass)
    }

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

    /// Runs the network on pass.count samples.
    func forward(_ x: UnsafePointer<Float>, _ pass: Pass) throws(Status) {
        state.pointee.batchInput = x
        defer { state.pointee.batchInput = nil }
        let filled = (pass.count &+ lanes &- 1) / lanes
        if filled != blocks {
            state.pointee.blocks = filled
            for i in 0..<count {
                nodes[i].geometry.in.blocks = filled
                nodes[i].geometry.out.blocks = filled
            }
        }
        for i in 0..<count {
            try stopIfCancelled()
            forward(nodes + i, pass)
        }
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

    /// The answers of a training pass to the forgetting counts.
    private func observe(_ batch: mest_batch) {
        guard let ids = batch.ids, let forgetting = Forgetting(self) else { return }
        let plan = state.pointee.plan
        let correct = at(plan.sampleCorrect, UInt8.self)
        let margin = optional(plan.sampleMargin)
        for i in 0..<int(batch.count) {
            let id = int(ids[i])
            if forgetting.observe(id, correct: correct[i] != 0) {
                state.pointee.forgotten &+= 1
                state.pointee.forgottenInEpoch &+= 1
            }
            if let margin { forgetting.margins?.add(margin[i], to: id) }
            if let labels = batch.labels { forgetting.classes?.label[id] = UInt16(truncatingIfNeeded: labels[i]) }
        }
    }
}
