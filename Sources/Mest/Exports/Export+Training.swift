// SPDX-License-Identifier: Apache-2.0
// mest_model_step, _step_slice, _begin_epoch, _mutate, _mutation, _predict, _evaluate.

import CMest
import CMestKernels

@c @implementation
public func mest_model_step(
    _ model: OpaquePointer?, _ batch: UnsafePointer<mest_batch>?, _ out_report: UnsafeMutablePointer<mest_step_report>?
) -> Int32 {
    call(model) { (model) throws(Status) in _ = try step(model, batch, .max, out_report) }
}

@c @implementation
public func mest_model_step_slice(
    _ model: OpaquePointer?, _ batch: UnsafePointer<mest_batch>?, _ quantum: UInt64,
    _ out_report: UnsafeMutablePointer<mest_step_report>?
) -> Int32 {
    var isDone = true
    let status = call(model, inStep: true) { (model) throws(Status) in
        try model.dropIfCancelled()
        isDone = try step(model, batch, quantum, out_report)
    }
    return isDone ? status : int32(MEST_MORE)
}

/// Whether it is done.
private func step(
    _ model: Model, _ batch: UnsafePointer<mest_batch>?, _ quantum: UInt64,
    _ out_report: UnsafeMutablePointer<mest_step_report>?
) throws(Status) -> Bool {
    let batch = try read(batch, "batch", model.message)
    try checkSize(out_report, "out_report", model.message)
    try model.requireTraining()
    do throws(Status) {
        guard let report = try model.step(batch, quantum: quantum) else { return false }
        write(report, to: out_report)
        return true
    } catch {
        throw model.returning(error) { write(model.returnStepReport(), to: out_report) }
    }
}

@c @implementation
public func mest_model_begin_epoch(
    _ model: OpaquePointer?, _ out_report: UnsafeMutablePointer<mest_epoch_report>?
) -> Int32 {
    call(model) { (model) throws(Status) in
        try checkSize(out_report, "out_report", model.message)
        try model.requireTraining()
        do throws(Status) {
            write(try model.beginEpoch(), to: out_report)
        } catch {
            throw model.returning(error) { write(model.returnReport(), to: out_report) }
        }
        model.state.pointee.callerBegins = true
        model.state.pointee.events = 0
    }
}

@c @implementation
public func mest_model_mutate(
    _ model: OpaquePointer?, _ out_report: UnsafeMutablePointer<mest_mutation_report>?
) -> Int32 {
    call(model) { (model) throws(Status) in
        try checkSize(out_report, "out_report", model.message)
        try model.requireTraining()
        if model.config.method == MEST_METHOD_STATIC {
            throw model.message.start("config.method is STATIC: the connections are fixed").as(.argument)
        }
        if model.state.pointee.plan.choosesOnce {
            throw model.message.start("config.method chooses the connections by a batch, in the first mest_model_step()")
                .as(.argument)
        }
        if model.config.method == MEST_METHOD_LOTTERY {
            throw model.message.start("config.method is LOTTERY: connections leave between rounds, when all parameters go back")
                .as(.argument)
        }
        if model.config.growsByGradient {
            throw model.message.start("config.method is ").text(methodName(model.config.method) ?? "")
                .text(": connections move by a batch's gradient, in mest_model_step()").as(.argument)
        }
        try model.requireNoGathering()
        try model.poll(MEST_STAGE_MUTATE, done: 0, total: uint64(model.sparseLayers))
        model.mutate(epoch: model.state.pointee.epoch, resting: int(model.state.pointee.frozen))
        write(model.mutationReport(), to: out_report)
    }
}

@c @implementation
public func mest_model_mutation(
    _ model: OpaquePointer?, _ out_report: UnsafeMutablePointer<mest_mutation_report>?,
    _ out_layers: UnsafeMutablePointer<mest_mutation_layer>?, _ capacity: UInt32
) -> Int32 {
    call(model) { (model) throws(Status) in
        try checkSize(out_report, "out_report", model.message)
        if let out_layers, model.sparseLayers > 0 {
            if capacity < uint32(model.sparseLayers) {
                throw model.message.start("capacity is ").integer(capacity).text(", there are ").integer(model.sparseLayers)
                    .text(" sparse layers").as(.argument)
            }
            let layers = CallersArray(UnsafePointer(out_layers))
            try layers.check(model.sparseLayers, "out_layers", model.message)
            var n = 0
            for i in 0..<model.count where model.nodes[i].sparse {
                layers.write(model.mutationReport(model.nodes[i]), to: n)
                n &+= 1
            }
        }
        write(model.mutationReport(), to: out_report)
    }
}

@c @implementation
public func mest_model_predict(
    _ model: OpaquePointer?, _ x: UnsafePointer<Float>?, _ count: UInt64, _ flags: UInt32,
    _ out: UnsafeMutablePointer<Float>?, _ capacity: UInt64
) -> Int32 {
    call(model) { (model) throws(Status) in
        guard let x else { throw null("x", model.message) }
        guard let out else { throw null("out", model.message) }
        if flags & ~UInt32(MEST_PREDICT_PROBABILITIES) != 0 {
            throw model.message.start("flags ").integer(flags).text(" are unknown; use MEST_PREDICT_*").as(.argument)
        }
        if flags != 0 && model.config.loss == MEST_LOSS_MSE {
            throw model.message.start("probabilities need loss CROSS_ENTROPY; this model's is MSE").as(.argument)
        }
        let outputs = uint64(model.state.pointee.plan.last.pointee.channels)
        let inputs = uint64(model.nodes[0].elements)
        let (needed, overflow) = count.multipliedReportingOverflow(by: outputs)
        if overflow || needed > capacity {
            throw model.message.start("capacity is ").natural(capacity).text(", ").natural(count).text(" samples need ")
                .natural(outputs).text(" floats each").as(.argument)
        }
        let most = uint64(Int.max) / 4
        if count > most / inputs || needed > most {
            throw model.message.start("count ").natural(count).text(" is more than memory can hold").as(.argument)
        }
        try model.predict(x, count: count, probabilities: flags & UInt32(MEST_PREDICT_PROBABILITIES) != 0, out: out)
    }
}

@c @implementation
public func mest_model_evaluate(
    _ model: OpaquePointer?, _ batch: UnsafePointer<mest_batch>?,
    _ out_evaluation: UnsafeMutablePointer<mest_evaluation>?
) -> Int32 {
    call(model) { (model) throws(Status) in
        guard let out_evaluation else { throw null("out_evaluation", model.message) }
        let batch = try read(batch, "batch", model.message)
        try checkSize(out_evaluation, "out_evaluation", model.message)
        write(try model.evaluate(batch), to: out_evaluation)
    }
}

extension Model {
    func requireTraining() throws(Status) {
        if config.inference_only != 0 {
            throw message.start("config.inference_only is 1: this model cannot train").as(.state)
        }
    }
}
