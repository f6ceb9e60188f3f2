// SPDX-License-Identifier: Apache-2.0
// mest_model_forgetting, mest_model_select, mest_model_order, mest_model_order_set.

import CMest
import CMestKernels

@c @implementation
public func mest_model_forgetting(
    _ model: OpaquePointer?, _ out_report: UnsafeMutablePointer<mest_forgetting_report>?,
    _ out_counts: UnsafeMutablePointer<UInt8>?, _ capacity: UInt64
) -> Int32 {
    call(model) { (model) throws(Status) in
        let forgetting = try counting(model)
        try checkSize(out_report, "out_report", model.message)
        if let out_counts {
            try checkCapacity(capacity, model, forgetting)
            for i in 0..<forgetting.samples { out_counts[i] = forgetting.reported(i) }
        }
        write(model.forgettingReport(forgetting), to: out_report)
    }
}

@c @implementation
public func mest_model_select(
    _ model: OpaquePointer?, _ selection: UnsafePointer<mest_selection>?, _ out_ids: UnsafeMutablePointer<UInt32>?,
    _ capacity: UInt64, _ out_count: UnsafeMutablePointer<UInt64>?
) -> Int32 {
    call(model) { (model) throws(Status) in
        let forgetting = try counting(model)
        guard let out_count else { throw null("out_count", model.message) }
        let rule = try read(selection, "selection", model.message)
        if rule.rule < 0 || int(rule.rule) > MEST_REMOVE_FRACTION {
            throw model.message.start("selection.rule is ").integer(rule.rule).text("; use MEST_REMOVE_*").as(.argument)
        }
        if !(rule.remove_fraction >= 0 && rule.remove_fraction < 1) {
            throw model.message.start("selection.remove_fraction is ").real(rule.remove_fraction).text("; use 0 to below 1")
                .as(.argument)
        }
        if rule.rule == MEST_REMOVE_COUNT && model.state.pointee.orderGiven {
            throw model.message.start("selection.rule is COUNT, and the order that was set has no counts; use NUMBER or FRACTION")
                .as(.argument)
        }
        let chosen = Selection(model, forgetting, rule)
        var kept = 0
        for i in 0..<forgetting.samples where chosen.keeps(i) { kept &+= 1 }
        if let out_ids {
            if capacity < uint64(kept) {
                throw model.message.start("capacity is ").natural(capacity).text(", ").integer(kept).text(" samples stay")
                    .as(.argument)
            }
            var n = 0
            for i in 0..<forgetting.samples where chosen.keeps(i) {
                out_ids[n] = uint32(i)
                n &+= 1
            }
        }
        out_count.pointee = uint64(kept)
    }
}

@c @implementation
public func mest_model_order(
    _ model: OpaquePointer?, _ out_ids: UnsafeMutablePointer<UInt32>?, _ capacity: UInt64,
    _ out_count: UnsafeMutablePointer<UInt64>?
) -> Int32 {
    call(model) { (model) throws(Status) in
        let forgetting = try counting(model)
        guard let out_count else { throw null("out_count", model.message) }
        if let out_ids {
            try checkCapacity(capacity, model, forgetting)
            SampleOrder(model, forgetting).list(out_ids)
        }
        out_count.pointee = uint64(forgetting.samples)
    }
}

@c @implementation
public func mest_model_order_set(_ model: OpaquePointer?, _ ids: UnsafePointer<UInt32>?, _ count: UInt64) -> Int32 {
    call(model) { (model) throws(Status) in
        let forgetting = try counting(model)
        if count > 0 && ids == nil { throw null("ids", model.message) }
        if count > uint64(forgetting.samples) {
            throw model.message.start("count is ").natural(count).text("; there are ").integer(forgetting.samples)
                .text(" samples").as(.argument)
        }
        try model.give(order: ids, int(int64(count)), to: forgetting)
    }
}

private func checkCapacity(_ capacity: UInt64, _ model: Model, _ forgetting: Forgetting) throws(Status) {
    if capacity < uint64(forgetting.samples) {
        throw model.message.start("capacity is ").natural(capacity).text(", there are ").integer(forgetting.samples)
            .text(" samples").as(.argument)
    }
}

private func counting(_ model: Model) throws(Status) -> Forgetting {
    guard let forgetting = Forgetting(model) else {
        throw model.message.start("forgetting is not counted: set config.samples, and inference_only to 0").as(.state)
    }
    return forgetting
}
