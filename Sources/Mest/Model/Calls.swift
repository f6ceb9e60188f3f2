// SPDX-License-Identifier: Apache-2.0
// Calls out of the engine: progress and cancellation, asked for at safe places only.

import CMest
import CMestKernels

extension Model {
    /// Tells the caller how far the work is and asks whether to go on.
    func poll(_ stage: Int, done: UInt64, total: UInt64) throws(Status) {
        try stopIfCancelled()
        guard let progress = state.pointee.env.progress else { return }
        var report = mest_progress(
            struct_size: uint32(MemoryLayout<mest_progress>.size), stage: int32(stage), done: done, total: total,
            epoch: state.pointee.epoch, loss: state.pointee.lastLoss)
        if progress(&report, state.pointee.env.user) != 0 {
            throw message.start("the progress callback asked to stop").as(.callback)
        }
    }

    /// Between layers: has somebody called mest_model_cancel?
    func stopIfCancelled() throws(Status) {
        if mestk_load(flags.cancelled) == 0 { return }
        mestk_store(flags.cancelled, 0)
        throw message.start("cancelled by mest_model_cancel").as(.cancelled)
    }

    /// Hands a line to the caller's log. The model's message buffer carries it and is empty afterwards.
    func log(_ level: Int, _ line: (Message) -> Message) {
        guard let log = state.pointee.env.log else { return }
        message.clear()
        _ = line(message)
        log(int32(level), UnsafePointer(message.buffer), state.pointee.env.user)
        message.clear()
    }
}
