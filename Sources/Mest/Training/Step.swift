// SPDX-License-Identifier: Apache-2.0
// Step: one training pass and, when its micro-batches are complete, one update; before the first, the passes by which
// SNIP and GraSP choose the connections. Everything that can fail comes first; what changes the model (update, running
// statistics, counts) comes last and cannot. Between two layers a step may be left and taken up again.

import CMest
import CMestKernels

extension Model {
    /// Works on a step, taking up the one that is in work, until it is done or `quantum` multiply-adds are; nil: there is
    /// more to do. At least one layer gets on.
    func step(_ batch: mest_batch, quantum: UInt64) throws(Status) -> mest_step_report? {
        if state.pointee.step.stage == .none { try beginStep(batch) } else { try takeUp(batch) }
        do throws(Status) {
            var done: UInt64 = 0
            repeat {
                if let work = try advance(batch, state.pointee.step.pass, &state.pointee.step.time) {
                    done = done &+ work
                } else if let report = try finishPass(batch) {
                    return report
                }
            } while done < quantum
            return nil
        } catch {
            dropStep()
            throw error
        }
    }

    /// Whoever drops a step need not have its batch any more.
    func dropIfCancelled() throws(Status) {
        if state.pointee.step.stage == .none { return }
        do throws(Status) { try stopIfCancelled() } catch {
            dropStep()
            throw error
        }
    }

    private func beginStep(_ batch: mest_batch) throws(Status) {
        try check(batch, limit: config.batch, training: true)
        let s = state
        if !s.pointee.began || s.pointee.epochIsNext || (!s.pointee.callerBegins && epochIsOver) { _ = try beginEpoch() }
        try poll(MEST_STAGE_STEP, done: uint64(s.pointee.stepsInEpoch), total: uint64(s.pointee.stepsPerEpoch))
        s.pointee.step.pass = Pass(training: true, count: int32(batch.count), number: s.pointee.passes)
        enter(s.pointee.chosen ? .training : try beginChoice())
    }

    private func takeUp(_ batch: mest_batch) throws(Status) {
        let count = state.pointee.step.pass.count
        if int64(batch.count) != int64(count) {
            throw message.start("a step of ").integer(count).text(" samples is in work, this batch has ").integer(batch.count)
                .text("; give the same batch until the step is done").as(.argument)
        }
        try check(batch, limit: config.batch, training: true)
    }

    private func enter(_ stage: Step.Stage) {
        let s = state
        s.pointee.step.stage = stage
        s.pointee.step.time = PassTime()
        var pass = Pass(training: true, count: s.pointee.step.pass.count, number: s.pointee.passes)
        if stage == .training {
            pass.adds = s.pointee.gathered > 0
            pass.moves = completesUpdate && movesByGradient
        } else {
            prepareChoice(stage, &pass)
        }
        s.pointee.step.pass = pass
    }

    private func finishPass(_ batch: mest_batch) throws(Status) -> mest_step_report? {
        if state.pointee.step.stage != .training {
            let next = try finishChoicePass()
            if next == .training { zeroGradients(stored: true) }  // scores lay there
            enter(next)
            return nil
        }
        let update = completesUpdate ? try prepareUpdate(microBatches: state.pointee.gathered &+ 1) : nil
        state.pointee.step.stage = .none
        return commit(batch, update)
    }

    /// The model is as before the step.
    private func dropStep() {
        undoChoicePass()
        state.pointee.step.stage = .none
        dropGradients()  // a torn sum of gradients is no gradient
    }

    /// What a step changes. Nothing here fails.
    private func commit(_ batch: mest_batch, _ update: Update?) -> mest_step_report {
        let s = state
        let pass = s.pointee.step.pass, result = s.pointee.step.time
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

    private var completesUpdate: Bool { state.pointee.gathered &+ 1 == config.micro_batches || isLastOfEpoch }

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
        return s.rateScale * s.plan.learningRate(epoch: s.epoch, update: s.stepsInEpoch, steps: s.stepsPerEpoch)
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
