// SPDX-License-Identifier: Apache-2.0
// mest_plan, mest_model_create*, _plan, _cancel, _destroy. Planning works on the stack, or in the block that the
// caller gave; create then builds where it is told.

import CMest
import CMestKernels

@c @implementation
public func mest_plan(
    _ config: UnsafePointer<mest_config>?, _ layers: UnsafePointer<mest_layer>?, _ count: UInt32,
    _ out_plan: UnsafeMutablePointer<mest_plan_report>?, _ out_layers: UnsafeMutablePointer<mest_layer_plan>?
) -> Int32 {
    PlanCall(config: config, layers: layers, count: count, outPlan: out_plan, outLayers: out_layers).run()
}

@c @implementation
public func mest_model_create(
    _ config: UnsafePointer<mest_config>?, _ layers: UnsafePointer<mest_layer>?, _ count: UInt32,
    _ env: UnsafePointer<mest_env>?, _ out_model: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
    PlanCall(
        config: config, layers: layers, count: count, creates: true, env: env, outModel: out_model
    ).run()
}

@c @implementation
public func mest_model_create_in(
    _ config: UnsafePointer<mest_config>?, _ layers: UnsafePointer<mest_layer>?, _ count: UInt32,
    _ env: UnsafePointer<mest_env>?, _ block: UnsafeMutableRawPointer?, _ bytes: Int,
    _ out_model: UnsafeMutablePointer<OpaquePointer?>?
) -> Int32 {
    PlanCall(
        config: config, layers: layers, count: count, creates: true, env: env, inBlock: true, block: block,
        blockBytes: bytes, outModel: out_model
    ).run()
}

@c @implementation
public func mest_model_destroy(_ handle: OpaquePointer?) {
    guard let handle else { return }
    let flags = Flags(handle)
    // Destroying a model under a running call, from its own callback say, would pull the ground away.
    if !flags.alive || mestk_exchange(flags.busy, 1) != 0 { return }
    flags.alive = false
    let state = Model(handle).state
    if !state.pointee.ownsBlock { return }
    let env = state.pointee.env
    if let release = env.release {
        release(UnsafeMutableRawPointer(handle), int(state.pointee.plan.bytes.total), env.user)
    } else {
        mestk_release(UnsafeMutableRawPointer(handle))
    }
}

@c @implementation
public func mest_model_cancel(_ handle: OpaquePointer?) {
    guard let handle else { return }
    let flags = Flags(handle)
    if flags.alive { mestk_store(flags.cancelled, 1) }
}

@c @implementation
public func mest_model_plan(
    _ model: OpaquePointer?, _ out_plan: UnsafeMutablePointer<mest_plan_report>?,
    _ out_layers: UnsafeMutablePointer<mest_layer_plan>?
) -> Int32 {
    call(model, inStep: true) { (model) throws(Status) in
        try checkReports(out_plan, out_layers, uint32(model.count), model.message)
        report(model.state.pointee.plan, out_plan, out_layers)
    }
}

/// The arguments of a call that plans, carried over the memory that planning needs.
private struct PlanCall {
    var config: UnsafePointer<mest_config>?
    var layers: UnsafePointer<mest_layer>?
    var count: UInt32
    var outPlan: UnsafeMutablePointer<mest_plan_report>? = nil
    var outLayers: UnsafeMutablePointer<mest_layer_plan>? = nil
    var creates = false
    var env: UnsafePointer<mest_env>? = nil
    var inBlock = false
    var block: UnsafeMutableRawPointer? = nil
    var blockBytes = 0
    var outModel: UnsafeMutablePointer<OpaquePointer?>? = nil

    func run() -> Int32 {
        let message = threadMessage
        message.clear()
        if let outModel { outModel.pointee = nil }
        do throws(Status) {
            try check(message)
        } catch {
            return error.rawValue
        }
        var call = self
        let mode = mestk_plain_mode()
        defer { mestk_set_mode(mode) }
        if let room = roomInBlock { return make(room) }
        return mestk_with_stack(Plan.scratchBytes(int(count)), { scratch, context in
            guard let scratch, let context else { return Status.internal.rawValue }
            return context.assumingMemoryBound(to: PlanCall.self).pointee.make(scratch)
        }, &call)
    }

    /// In the caller's block, behind where the table will be, which is copied from here: a microcontroller's stack
    /// has no room for planning.
    private var roomInBlock: UnsafeMutableRawPointer? {
        guard inBlock, let block else { return nil }
        let table = int(Model.tableBytes(int(count)))
        let fits = UInt(bitPattern: blockBytes) >= UInt(bitPattern: table &+ Plan.scratchBytes(int(count)))
        return fits ? block + table : nil
    }

    private func make(_ scratch: UnsafeMutableRawPointer) -> Int32 {
        do throws(Status) {
            try make(scratch, threadMessage)
            return statusOK
        } catch {
            return error.rawValue
        }
    }

    private func check(_ message: Message) throws(Status) {
        guard let layers else { throw null("layers", message) }
        let own = try read(config, "config", message)
        if own.abi_version != MEST_ABI_VERSION {
            throw message.start("config.abi_version is ").integer(own.abi_version).text(", this library's is ")
                .integer(MEST_ABI_VERSION).text("; compile with the header of this library").as(.version)
        }
        if count < 2 || count > uint32(Plan.maxLayers) {
            throw message.start("count is ").integer(count).text("; use 2 to ").integer(Plan.maxLayers).text(" layers").as(.argument)
        }
        try CallersArray(layers).check(int(count), "layers", message)
        if creates {
            if outModel == nil { throw null("out_model", message) }
            if inBlock && block == nil { throw null("block", message) }
            if inBlock && UInt(bitPattern: block) & 63 != 0 {
                throw message.start("block is not aligned to 64 bytes").as(.argument)
            }
            if let env {
                let own = try read(env, "env", message)
                if (own.allocate == nil) != (own.release == nil) {
                    throw message.start("env: give both allocate and release, or neither").as(.argument)
                }
            }
        } else {
            try checkReports(outPlan, outLayers, count, message)
        }
    }

    private func make(_ scratch: UnsafeMutableRawPointer, _ message: Message) throws(Status) {
        guard let config, let layers else { throw Status.internal }
        let own = try read(config, "config", message), description = CallersArray(layers)
        let plan = try Plan.make(own, description, int(count), scratch: scratch, message)
        if !creates { report(plan, outPlan, outLayers) }
        let budget = own.budget_bytes
        if budget > 0 && uint64(plan.bytes.total) > budget {
            throw overBudget(plan, budget, own, description, scratch, message)
        }
        if creates { try create(plan, message) }
    }

    private func create(_ plan: Plan, _ message: Message) throws(Status) {
        if uint64(plan.bytes.total) > uint64(int64(Int.max)) {
            throw message.start("the plan needs ").integer(plan.bytes.total)
                .text(" bytes, more than this machine can address; use a smaller batch").as(.memory)
        }
        let bytes = int(plan.bytes.total)
        var env = mest_env()
        if let given = self.env { env = try read(given, "env", message) }
        var memory = block
        if inBlock {
            if UInt(bitPattern: blockBytes) < UInt(bitPattern: bytes) {
                throw message.start("block has ").integer(blockBytes).text(" bytes, the plan needs ").integer(bytes).as(.memory)
            }
        } else if let allocate = env.allocate {
            memory = allocate(bytes, 64, env.user)
        } else {
            memory = mestk_allocate(bytes, 64)
        }
        guard let memory else {
            throw message.start("no block of ").integer(bytes).text(" bytes was to be had: use a smaller batch or density")
                .text(", or memory of your own, by env.allocate or mest_model_create_in()").as(.memory)
        }
        if !inBlock && UInt(bitPattern: memory) & 63 != 0 {
            env.release?(memory, bytes, env.user)
            throw message.start("env.allocate returned a block that is not aligned to 64 bytes").as(.memory)
        }
        if env.parallel_for == nil && plan.threads > 1 { mestk_start_workers(uint32(plan.threads)) }
        let model = Model.create(plan, env, block: memory, ownsBlock: !inBlock)
        outModel?.pointee = model.handle
    }

    /// "budget_bytes is 262144, the plan needs 301056: workspace 180224, weights and index 60000, ... Batch 16 needs 210944"
    private func overBudget(
        _ plan: Plan, _ budget: UInt64, _ config: mest_config, _ layers: CallersArray<mest_layer>,
        _ scratch: UnsafeMutableRawPointer, _ message: Message
    ) -> Status {
        let total = plan.bytes.total
        let bytes = plan.bytes
        var smaller = config
        var fits: (batch: UInt32, bytes: Int64)?
        while fits == nil && smaller.batch > 1 {
            smaller.batch /= 2
            guard let other = try? Plan.make(smaller, layers, int(count), scratch: scratch, message) else { break }
            if uint64(other.bytes.total) <= budget { fits = (smaller.batch, other.bytes.total) }
        }
        let text = message.start("budget_bytes is ").natural(budget).text(", the plan needs ").integer(total)
            .text(": workspace ").integer(bytes.workspace).text(", weights and index ").integer(bytes.weights &+ bytes.index)
            .text(", gradients and state ").integer(bytes.gradients &+ bytes.state &+ bytes.recovery)
            .text(", batch and counts ").integer(bytes.batch &+ bytes.forgetting).text(", tables ").integer(bytes.table).text(". ")
        if let fits {
            return text.text("Batch ").integer(fits.batch).text(" needs ").integer(fits.bytes).as(.budget)
        }
        if uint64(bytes.table) > budget { return text.text("Tables alone are too large: use fewer layers").as(.budget) }
        return text.text("No smaller batch fits: lower the density, use fewer channels or layers").as(.budget)
    }
}
