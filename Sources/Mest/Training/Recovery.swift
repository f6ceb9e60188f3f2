// SPDX-License-Identifier: Apache-2.0
// Recovery: a good state, kept between two epochs inside the block, to which training returns when it diverges, with a
// lower learning rate from then on. It is a checkpoint in memory.

import CMest
import CMestKernels

extension Plan {
    /// Behind everything: it is no part of the model that it holds.
    mutating func placeRecovery() {
        if config.recover_epochs == 0 || !training { return }
        recovery = Place(offset: bytes.total)
        bytes.recovery = aligned(bytes.checkpoint)
    }
}

extension Model {
    private var goodState: Device {
        var io = mest_io()
        io.user = base + int(state.pointee.plan.recovery.offset)
        io.read = mestk_memory_read
        io.write = mestk_memory_write
        io.sync = mestk_memory_sync
        return Device(io: io, slot: 0, limit: uint64(state.pointee.plan.bytes.checkpoint), kind: .memory)
    }

    /// Nothing of the epoch has happened yet, no update is unfinished.
    func keepGoodState(before epoch: UInt32) {
        if config.recover_epochs == 0 || epoch % config.recover_epochs != 0 { return }
        state.pointee.keeps = (try? write(to: goodState, sequence: 1)) != nil
    }

    /// What a call throws that `status` has ended, and whose step was dropped: the same, said with where training is now.
    func returning(_ status: Status, _ report: () -> Void) -> Status {
        let before = state.pointee
        if status != .diverged || !before.keeps || before.returns == MEST_MOST_RETURNS { return status }
        do throws(Status) { try take(try check(goodState, strict: true)) } catch { return error }
        let s = state
        s.pointee.keeps = true
        s.pointee.returns = before.returns &+ 1
        s.pointee.rateScale = max(before.rateScale * config.recover_rate, .leastNormalMagnitude)
        s.pointee.epochIsNext = true
        s.pointee.bytesWritten = before.bytesWritten
        s.pointee.savedAt = before.savedAt
        _ = message.text(". Returned to update ").natural(s.pointee.updates).text(", learning rate times ").real(s.pointee.rateScale)
        report()
        return status
    }

    /// After it: before this epoch.
    private var nextEpoch: UInt32 { state.pointee.began ? state.pointee.epoch &+ 1 : 0 }

    func returnStepReport() -> mest_step_report {
        let s = state.pointee
        var report = mest_step_report()
        report.events = UInt32(MEST_EVENT_RETURNED)
        report.update = s.updates
        report.epoch = nextEpoch
        report.loss = s.lastLoss
        report.learning_rate = learningRate
        report.frozen = s.frozen
        return report
    }

    func returnReport() -> mest_epoch_report {
        let s = state.pointee
        var report = mest_epoch_report()
        report.events = UInt32(MEST_EVENT_RETURNED)
        report.epoch = nextEpoch
        report.samples = s.trainingSamples
        report.learning_rate = learningRate
        report.frozen = s.frozen
        return report
    }
}
