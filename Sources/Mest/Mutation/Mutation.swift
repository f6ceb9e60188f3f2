// SPDX-License-Identifier: Apache-2.0
// Mutation: every sparse layer drops and grows, in place; and what the report tells of it.

import CMest
import CMestKernels

extension Model {
    /// Moves connections now, at the phase of `epoch`. The workspace is overwritten.
    /// end: layers before it rest; those of them that are not frozen yet come down to their target, when only
    /// settling nothing else happens.
    func mutate(epoch: UInt32, resting end: Int, onlySettling: Bool = false) {
        let plan = state.pointee.plan
        let number = state.pointee.mutations &+ 1
        for i in 0..<plan.count where nodes[i].isThin { nodes[i].dropped = nodes[i].active }
        let together = plan.sharesOut || plan.thresholdIsGlobal
        if !onlySettling && plan.sharesOut { shareOut(from: end) }
        if !onlySettling && plan.thresholdIsGlobal { cutGlobally(epoch: epoch, from: end) }

        func amount(_ i: Int, _ pool: Node, active: Int64) -> Amount? {
            if i < end { return nodes[i].frozen ? nil : plan.settledAmount(pool, active: active) }
            if onlySettling { return nil }
            if together { return Amount(keep: int64(nodes[i].dropped), after: int64(nodes[i].grown)) }
            return plan.amount(pool, epoch: epoch, active: active)
        }
        for i in 0..<plan.count where nodes[i].sparse {
            if nodes[i].isThin {
                if nodes[i].thin.most == 0 { continue }
                nodes[i].thin.survivors = nodes[i].thin.alive
                if let amount = amount(i, plan.pool(i), active: int64(nodes[i].thin.alive)) {
                    Channels(self, nodes + i).mutate(amount, number: number)
                }
                continue
            }
            let inPool = int64(nodes[i].units) / plan.ranked(units(of: nodes[i]))
            if let amount = amount(i, nodes[i], active: inPool) {
                let key = streamKey(config.seed, .growth, layer: i, number: uint64(number))
                withScheme(nodes[i], Mutate(model: self, node: nodes + i, amount: amount, key: key))
            } else {
                (nodes[i].dropped, nodes[i].grown) = (0, 0)
            }
        }
        for i in 0..<plan.count where nodes[i].isThin {
            let survivors = uint32(plan.weights(nodes[i]) { $0.survivors })
            nodes[i].dropped &-= survivors
            nodes[i].grown = nodes[i].active &- survivors
        }
        if config.method == MEST_METHOD_LOTTERY { rewind() }
        finishMutation(epoch: epoch)
    }

    /// Counts it and tells the log.
    func finishMutation(epoch: UInt32) {
        state.pointee.mutations &+= 1
        state.pointee.mutationEpoch = epoch
        let report = mutationReport()
        log(MEST_LOG_INFO) {
            $0.text("epoch ").integer(epoch).text(": dropped ").natural(report.dropped).text(", grown ")
                .natural(report.grown).text(", active ").natural(report.active).text(" of ").natural(report.positions)
        }
    }

    /// The step's report says so, if connections have moved.
    func tellMoves() {
        let report = mutationReport()
        if report.dropped > 0 || report.grown > 0 { state.pointee.events |= UInt32(MEST_EVENT_MUTATED) }
    }

    /// Whether any sparse layer among nodes first ..< end has connections to move.
    func anySparse(_ first: Int, _ end: Int) -> Bool {
        for i in 0..<count where i >= first && i < end && nodes[i].sparse { return true }
        return false
    }

    var sparseLayers: Int {
        var n = 0
        for i in 0..<state.pointee.plan.count where nodes[i].sparse { n &+= 1 }
        return n
    }

    func mutationReport() -> mest_mutation_report {
        var report = mest_mutation_report()
        report.struct_size = uint32(MemoryLayout<mest_mutation_report>.size)
        report.mutations = state.pointee.mutations
        report.epoch = state.pointee.mutationEpoch
        var explored = 0.0
        for i in 0..<state.pointee.plan.count where nodes[i].sparse {
            report.layers &+= 1
            report.dropped &+= uint64(nodes[i].dropped)
            report.grown &+= uint64(nodes[i].grown)
            report.active &+= uint64(nodes[i].active)
            report.positions &+= uint64(nodes[i].positions)
            explored += Double(1 - nodes[i].unexplored) * mestk_double_u64(uint64(nodes[i].positions))
        }
        if report.positions > 0 {
            let positions = mestk_double_u64(report.positions)
            report.density = mestk_float_double(mestk_double_u64(report.active) / positions)
            report.explored = mestk_float_double(explored / positions)
        }
        return report
    }

    func mutationReport(_ n: Node) -> mest_mutation_layer {
        let positions = mestk_double_u64(uint64(n.positions))
        return mest_mutation_layer(
            struct_size: uint32(MemoryLayout<mest_mutation_layer>.size), layer: uint32(n.index),
            dropped: uint64(n.dropped), grown: uint64(n.grown), active: uint64(n.active), positions: uint64(n.positions),
            density: mestk_float_double(mestk_double_u64(uint64(n.active)) / positions), explored: 1 - n.unexplored)
    }
}
