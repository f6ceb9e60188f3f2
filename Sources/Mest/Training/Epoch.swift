// SPDX-License-Identifier: Apache-2.0
// Epoch: what happens at the start of one: an unfinished update is applied, connections move when due, layers
// freeze, and samples leave the training set or come back.

import CMest
import CMestKernels

extension Model {
    func beginEpoch() throws(Status) -> mest_epoch_report {
        let s = state
        let epoch = s.pointee.began ? s.pointee.epoch &+ 1 : 0
        let (before, end) = (int(s.pointee.frozen), s.pointee.chosen ? s.pointee.plan.frozenLayers(at: epoch) : 0)
        let mutates = s.pointee.plan.mutates(at: epoch) && anySparse(end, count)
        let settles = s.pointee.plan.settlesWhenFrozen && anySparse(before, end)
        if mutates || settles { try poll(MEST_STAGE_MUTATE, done: 0, total: uint64(sparseLayers)) }
        if s.pointee.gathered > 0 { try applyUnfinished() }
        keepGoodState(before: epoch)

        var report = mest_epoch_report()
        report.struct_size = uint32(MemoryLayout<mest_epoch_report>.size)
        report.events = UInt32(MEST_EVENT_EPOCH)
        if mutates || settles {
            mutate(epoch: epoch, resting: end, onlySettling: !mutates)
            let mutation = mutationReport()
            report.dropped = uint32(mutation.dropped)
            report.grown = uint32(mutation.grown)
            if mutation.dropped > 0 || mutation.grown > 0 { report.events |= UInt32(MEST_EVENT_MUTATED) }
        }
        if !s.pointee.began { s.pointee.trainingSamples = config.samples }
        s.pointee.epoch = epoch
        freeze(upTo: end)
        s.pointee.began = true
        s.pointee.epochIsNext = false
        s.pointee.stepsInEpoch = 0
        s.pointee.batchesInEpoch = 0
        s.pointee.forgottenInEpoch = 0
        if config.phase1_epochs > 0 && epoch == config.phase1_epochs && removeSamples() {
            report.events |= UInt32(MEST_EVENT_REMOVED)
            report.left = config.samples &- s.pointee.trainingSamples
        }
        if config.sieves(at: epoch) {
            (report.left, report.returned) = sieve()
            if report.left > 0 { report.events |= UInt32(MEST_EVENT_SIEVED) }
        }
        if config.samples > 0 { s.pointee.presentationsSaved &+= uint64(config.samples &- s.pointee.trainingSamples) }
        s.pointee.events |= report.events

        report.epoch = epoch
        report.steps = s.pointee.stepsPerEpoch
        report.samples = s.pointee.trainingSamples
        report.learning_rate = learningRate
        report.frozen = s.pointee.frozen
        return report
    }

    /// The update that the micro-batches given so far make.
    private func applyUnfinished() throws(Status) {
        do throws(Status) {
            apply(try prepareUpdate(microBatches: state.pointee.gathered))
        } catch {
            dropGradients()
            throw error
        }
    }

    func requireNoGathering() throws(Status) {
        if state.pointee.gathered > 0 {
            throw message.start("an update is unfinished: ").integer(state.pointee.gathered).text(" of ")
                .integer(config.micro_batches)
                .text(" micro-batches given; give the rest, or begin the next epoch").as(.state)
        }
    }

    /// Epochs get longer or shorter with it.
    func takeTrainingSet(of samples: UInt32) {
        state.pointee.trainingSamples = samples
        if state.pointee.plan.derivesSteps { state.pointee.stepsPerEpoch = updates(for: samples, config) }
    }

    /// Phase 2: the config's rule takes samples out, counting starts anew, epochs get shorter.
    private func removeSamples() -> Bool {
        guard let forgetting = Forgetting(self), let removed = forgetting.removed else { return false }
        let rule = mest_selection(
            struct_size: 0, rule: config.remove_rule, remove_count: config.remove_count,
            remove_number: config.remove_number, remove_fraction: config.remove_fraction,
            keep_lowest: config.keep_lowest)
        let selection = Selection(self, forgetting, rule)
        let learned = forgetting.knows(state.pointee.orderGiven)
        var left: UInt32 = 0
        for i in 0..<forgetting.samples where selection.keeps(i) { left &+= 1 }
        if left == 0 || left == config.samples || !learned {
            log(MEST_LOG_WARNING) {
                let line = $0.text("phase 1 goes on: ")
                if !learned { return line.text("no sample was counted; pass ids with the batches") }
                return line.text(left == 0 ? "remove_rule would take every sample out" : "remove_rule takes no sample out")
            }
            return false
        }
        // keeps() looks at the bit of its own sample only, so they may change on the way.
        for i in 0..<forgetting.samples where !selection.keeps(i) { removed[i] = true }
        forgetting.clear()
        let s = state
        s.pointee.phase = 2
        s.pointee.forgotten = 0
        takeTrainingSet(of: left)
        log(MEST_LOG_INFO) {
            $0.text("epoch ").integer(s.pointee.epoch).text(": phase 2, ").integer(left).text(" of ")
                .integer(config.samples).text(" samples stay")
        }
        return true
    }
}
