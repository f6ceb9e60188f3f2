// SPDX-License-Identifier: Apache-2.0
// Guard: what every export does before and after: is the handle a living model, is no other call
// running on it, and the status a thrown error becomes.

import CMest
import CMestKernels

/// Messages of calls that have no model.
var threadMessage: Message { Message(buffer: mestk_thread_message()) }

private func living(_ handle: OpaquePointer?) throws(Status) -> Model {
    guard let handle else { throw threadMessage.start("model is NULL").as(.argument) }
    if !Flags(handle).alive { throw threadMessage.start("this is no model, or it was destroyed").as(.state) }
    return Model(handle)
}

/// Runs body alone on the model.
func call(_ handle: OpaquePointer?, inStep: Bool = false, _ body: (Model) throws(Status) -> Void) -> Int32 {
    do throws(Status) {
        let model = try living(handle)
        if mestk_exchange(model.flags.busy, 1) != 0 { throw busy() }
        let mode = mestk_plain_mode()
        defer {
            mestk_set_mode(mode)
            mestk_store(model.flags.busy, 0)
        }
        model.message.clear()
        if !inStep && model.state.pointee.step.stage != .none { throw model.unfinished() }
        try body(model)
        return statusOK
    } catch {
        return error.rawValue
    }
}

/// Its message is the thread's: the model's belongs to the running call.
private func busy() -> Status {
    threadMessage.start("another call is running on this model; one model is for one thread at a time").as(.state)
}

let statusOK: Int32 = 0

extension Model {
    /// Weights may be on their way, and the workspace is the step's.
    fileprivate func unfinished() -> Status {
        message.start("a step is in work: go on with mest_model_step_slice(), or drop it with mest_model_cancel() and one slice more")
            .as(.state)
    }
}
