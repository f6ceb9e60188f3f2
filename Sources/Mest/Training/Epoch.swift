// SPDX-License-Identifier: Apache-2.0
// Epoch: what happens at the start of one: mutation when due, then, once, samples leave.

import CMest
import CMestKernels

extension Model {
    func beginEpoch() throws(Status) -> mest_epoch_report {
        try requireNoGathering()
        let s = state
        let epoch = s.pointee.began ? s.pointee.epoch &+ 1 : 0
        var report = mest_epoch_report()
        report.struct_size = uint32(MemoryLayout<mest_epoch_report>.size)
        report.events = UInt32(MEST_EVENT_EPOCH)
        if s.pointee.plan.mutates(at: epoch) && sparseLayers > 0 {
            try mutate(epoch: epoch)
            let mutation = mutationReport()
            report.dropped = uint32(mutation.dropped)
            report.grown = uint32(mutation.grown)
            if mutation.dropped > 0 || mutation.grown > 0 { report.events |= UInt32(MEST_EVENT_MUTATED) }
        }
        s.pointee.epoch = epoch
        s.pointee.began = true
        s.pointee.stepsInEpoch = 0
        s.pointee.forgottenInEpoch = 0
        if config.phase1_epochs > 0 && epoch == config.phase1_epochs && removeSamples() {
            report.events |= UInt32(MEST_EVENT_REMOVED)
        }
        report.epoch = epoch
        report.steps = s.pointee.stepsPerEpoch
        report.samples = Forgetting(self).map { uint32($0.training) } ?? 0
        report.learning_rate = s.pointee.plan.learningRate(epoch: epoch, update: 0, steps: s.pointee.stepsPerEpoch)
        return report
    }

    func requireNoGathering() throws(Status) {
        if state.pointee.gathered > 0 {
            throw message.start("an update is unfinished: ").integer(state.pointee.gathered).text(" of ")
                .integer(config.micro_batches).text(" micro-batches given; give the rest first").as(.state)
        }
    }

    /// Phase 2: the config's rule takes samples out, counting starts anew, epochs get shorter.
    private func removeSamples() -> Bool {
        guard let forgetting = Forgetting(self), let removed = forgetting.removed else { return false }
        let rule = mest_selection(
            struct_size: 0, rule: config.remove_rule, remove_count: config.remove_count,
            remove_number: config.remove_number, remove_fraction: config.remove_fraction,
            keep_lowest: config.keep_lowest)
        let selection = Selection(self, forgetting, rule)
        var left: UInt32 = 0
        for i in 0..<forgetting.samples where selection.keeps(i) { left &+= 1 }
        if left == 0 {
            log(MEST_LOG_WARNING) {
                $0.text("remove_rule would take every sample out: all stay; lower remove_count, remove_number or remove_fraction")
            }
            return false
        }
        // keeps() looks at the bit of its own sample only, so they may change on the way.
        for i in 0..<forgetting.samples where !selection.keeps(i) { removed[i] = true }
        forgetting.clear()
        state.pointee.phase = 2
        let wasDerived = config.steps_per_epoch == updates(for: config.samples, config)
        if wasDerived { state.pointee.stepsPerEpoch = updates(for: left, config) }
        log(MEST_LOG_INFO) {
            $0.text("epoch ").integer(state.pointee.epoch).text(": phase 2, ").integer(left).text(" of ")
                .integer(config.samples).text(" samples stay")
        }
        return true
    }
}
