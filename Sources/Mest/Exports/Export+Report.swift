// SPDX-License-Identifier: Apache-2.0
// The plan as the caller sees it.

import CMest
import CMestKernels

func checkReports(
    _ outPlan: UnsafeMutablePointer<mest_plan_report>?, _ outLayers: UnsafeMutablePointer<mest_layer_plan>?,
    _ count: UInt32, _ message: Message
) throws(Status) {
    guard let outPlan else { throw null("out_plan", message) }
    try checkSize(outPlan, "out_plan", message)
    if let outLayers { try CallersArray(UnsafePointer(outLayers)).check(int(count), "out_layers", message) }
}

func report(
    _ plan: Plan, _ outPlan: UnsafeMutablePointer<mest_plan_report>?,
    _ outLayers: UnsafeMutablePointer<mest_layer_plan>?
) {
    write(plan.report(), to: outPlan)
    guard let outLayers else { return }
    let layers = CallersArray(UnsafePointer(outLayers))
    for i in 0..<plan.count { layers.write(plan.report(plan.nodes[i]), to: i) }
}

extension Plan {
    func report() -> mest_plan_report {
        var r = mest_plan_report()
        r.struct_size = uint32(MemoryLayout<mest_plan_report>.size)
        r.alignment = 64
        r.total_bytes = uint64(bytes.total)
        r.table_bytes = uint64(bytes.table)
        r.weight_bytes = uint64(bytes.weights)
        r.index_bytes = uint64(bytes.index)
        r.gradient_bytes = uint64(bytes.gradients)
        r.state_bytes = uint64(bytes.state)
        r.forgetting_bytes = uint64(bytes.forgetting)
        r.batch_bytes = uint64(bytes.batch)
        r.workspace_bytes = uint64(bytes.workspace)
        r.activation_bytes = uint64(bytes.activations)
        r.mutation_bytes = uint64(bytes.mutation)
        for i in 0..<count {
            let n = nodes[i]
            // One value a channel: bias, scale and shift.
            let others: Int64 = (n.weight.exists && !n.hasMatrix ? 1 : 0) &+ (n.bias.exists ? 1 : 0)
            r.parameters &+= uint64(n.positions &+ others &* channels(n) { $0.declared })
            r.active &+= uint64((n.hasMatrix ? targetWeights(n) : 0) &+ others &* channels(n) { $0.target })
            r.active_peak &+= uint64((n.hasMatrix ? n.weight.capacity : 0) &+ others &* channels(n) { $0.most })
            r.macs &+= uint64(macs(n, targetWeights(n)))
            r.dense_macs &+= uint64(macs(n, n.positions))
            if n.statistics > 0 { r.dense_bytes &+= uint64(channels(n) { $0.declared } &* 8) }
        }
        r.dense_bytes &+= r.parameters &* (training ? 12 : 4)
        r.layers = uint32(count)
        r.inputs = uint32(nodes[0].elements)
        r.outputs = uint32(last.pointee.channels)
        r.lanes = uint32(lanes)
        r.steps_per_epoch = config.steps_per_epoch
        r.threads = uint32(threads)
        r.method = config.method
        r.memory_economic = isMemoryEconomic ? 1 : 0
        r.checkpoint_bytes = uint64(bytes.checkpoint)
        r.recovery_bytes = uint64(bytes.recovery)
        return r
    }

    /// Whether sparse layers never have more than twice the connections of their targets. What a last block or run
    /// lacks is stored and is no connection.
    private var isMemoryEconomic: Bool {
        var target: Int64 = 0, most: Int64 = 0, roundedUp: Int64 = 0
        for i in 0..<count where nodes[i].sparse {
            let n = nodes[i], units = units(of: n)
            roundedUp &+= n.isThin ? 0 : int64(n.unit) &* units.pools
            target &+= n.isThin ? targetWeights(n) : units.expectedWeights(targetUnits(n))
            most &+= n.isThin ? n.weight.capacity : units.expectedWeights(n.weight.capacity / int64(n.unit) / units.pools)
        }
        return most <= 2 &* target &+ roundedUp
    }

    /// Where the output of a node is, in the words of the header.
    private func place(of n: Node) -> (what: Int, layer: Int32) {
        if n.isVirtual { return (MEST_OUTPUT_FUSED, int32(reader(of: int(n.index)))) }
        if n.inPlace { return (MEST_OUTPUT_IN_PLACE, n.outputOwner) }
        if n.recomputedAt >= 0 { return (MEST_OUTPUT_RECOMPUTED, n.recomputedAt) }
        return (MEST_OUTPUT_STORED, -1)
    }

    /// The first layer that computes a virtual output while it reads.
    private func reader(of virtual: Int) -> Int {
        for i in (virtual &+ 1)..<count where !nodes[i].isVirtual && reads(i, virtual) { return i }
        return -1
    }

    /// Itself, or what it reads and is not stored either.
    private func reads(_ i: Int, _ wanted: Int) -> Bool {
        let (from, with) = (int(nodes[i].from), int(nodes[i].with))
        if from == wanted || with == wanted { return true }
        return from > wanted && nodes[from].isVirtual && reads(from, wanted)
            || with > wanted && nodes[with].isVirtual && reads(with, wanted)
    }

    func report(_ node: Node) -> mest_layer_plan {
        // As it was planned: with the most channels there will be.
        var n = node
        n.channels = int32(channels(node) { $0.most })
        if n.statistics > 0 { n.statistics = n.channels }
        var r = mest_layer_plan()
        r.struct_size = uint32(MemoryLayout<mest_layer_plan>.size)
        r.kind = n.kind.rawValue
        r.from = n.from
        r.with = n.with
        r.channels = uint32(channels(n) { $0.declared })
        r.alive = uint32(channels(n) { $0.target })
        r.height = uint32(n.height)
        r.width = uint32(n.width)
        withUnsafeMutableBytes(of: &r.name) { to in
            withUnsafeBytes(of: n.name) { from in
                for i in 0..<to.count { to[i] = from[i] }
            }
        }
        // As placed: every tensor begins on its own 64 bytes.
        let weight = aligned(n.weight.capacity &* 4)
        let trained = weight &+ aligned(n.bias.capacity &* 4)
        r.weight_bytes = uint64(trained &+ 2 &* aligned(int64(n.statistics) &* 4))
        if training {
            r.gradient_bytes = uint64(trained)
            r.state_bytes = uint64(trained &+ (n.weight.average.exists ? weight : 0))
        }
        if !n.inPlace && !n.isVirtual { r.activation_bytes = uint64(mestk_bytes(n.shape(lanes: lanes, blocks: blocks))) }
        let place = place(of: n)
        r.output = int32(place.what)
        r.output_layer = place.layer
        if !n.isVirtual && n.format == int32(MESTK_BF16) { r.output_format = int32(MEST_ACTIVATIONS_BF16) }
        if !n.hasMatrix { return r }
        r.rows = uint32(n.rows)
        r.columns = uint32(n.columns)
        // What the connections make, not what was asked: rows of few units cannot meet that exactly.
        let share = mestk_double_u64(uint64(targetWeights(n))) / mestk_double_u64(uint64(n.positions))
        r.density = mestk_float_double(share)
        r.active = uint64(targetWeights(n))
        r.capacity = uint64(n.weight.capacity)
        r.macs = uint64(macs(n, targetWeights(n)))
        r.scheme = n.sparse ? n.scheme : 0
        r.unit = n.isThin ? 0 : uint32(n.unit)
        var cursor = Cursor(offset: 0)
        var copy = n
        withUnsafeMutablePointer(to: &cursor) { cursor in
            withUnsafeMutablePointer(to: &copy) {
                withScheme(n, ReserveIndex(node: $0, training: training, cursor: cursor))
            }
        }
        r.index_bytes = uint64(cursor.offset)
        return r
    }
}
