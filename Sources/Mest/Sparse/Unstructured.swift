// SPDX-License-Identifier: Apache-2.0
// Unstructured: any single weight may exist. Compressed sparse rows of [outputs][inputs * kernel],
// with a second order of the same connections by input channel for the backward pass
// (CMestKernels/include/weights.h). Room for `capacity` connections, taken once.
//
// Bytes a connection: value 4, gradient 4, momentum 4, column 2, key 2, position 4 = 20; and 4 a row,
// 4 an input channel.

import CMest
import CMestKernels

enum Unstructured: Scheme {
    static func capacity(_ node: Node, connections: Int64) -> Int64 { connections }

    static func reserveIndex(_ node: inout Node, training: Bool, _ cursor: inout Cursor) {
        let n = node.weight.capacity
        node.connections.rowStart = cursor.take((int64(node.rows) &+ 1) &* 4)
        node.connections.column = cursor.take(n &* 2)
        if !training { return }
        node.connections.channelStart = cursor.take((int64(node.columns / node.taps) &+ 1) &* 4)
        node.connections.key = cursor.take(n &* 2)
        node.connections.position = cursor.take(n &* 4)
    }

    static func weights(_ model: Model, _ node: UnsafeMutablePointer<Node>) -> mestk_weights {
        let n = node.pointee
        let backward = n.connections.key.exists
        return mestk_weights(
            rows: n.rows, channels: n.columns / n.taps, taps: n.taps,
            row_start: model.at(n.connections.rowStart, UInt32.self),
            column: model.at(n.connections.column, UInt16.self),
            channel_start: backward ? model.at(n.connections.channelStart, UInt32.self) : nil,
            key: backward ? model.at(n.connections.key, UInt16.self) : nil,
            position: backward ? model.at(n.connections.position, UInt32.self) : nil,
            value: model.floats(n.weight.value))
    }

    /// Rebuilds the order by input channel; after every change of connections.
    static func refresh(_ model: Model, _ node: UnsafeMutablePointer<Node>) {
        let n = node.pointee
        if !n.connections.key.exists { return }
        mestk_index_by_channel(
            n.rows, n.columns / n.taps, n.taps,
            model.at(n.connections.rowStart, UInt32.self), model.at(n.connections.column, UInt16.self),
            model.at(n.connections.channelStart, UInt32.self), model.at(n.connections.key, UInt16.self),
            model.at(n.connections.position, UInt32.self))
    }

    /// The rows and everything that moves with a connection.
    static func rows(_ model: Model, _ node: UnsafeMutablePointer<Node>) -> SparseRows {
        let n = node.pointee
        return SparseRows(
            rows: int(n.rows), columns: int(n.columns),
            start: model.at(n.connections.rowStart, UInt32.self), column: model.at(n.connections.column, UInt16.self),
            value: model.floats(n.weight.value), gradient: model.optional(n.weight.gradient),
            momentum: model.optional(n.weight.momentum), average: model.optional(n.weight.average))
    }

    // MARK: Initial connections

    /// Connections uniform over all positions; w ~ N(0, 2 / fan) with the row's own number of
    /// connections as fan: sparse Kaiming, so that a row keeps its variance whatever its density.
    static func initialise(_ model: Model, _ node: UnsafeMutablePointer<Node>) {
        let n = node.pointee
        let rows = rows(model, node)
        var topology = SplitMix64(streamKey(model.config.seed, .topology, layer: int(n.index), number: 0))
        rows.drawUniform(count: int(n.active), &topology)
        if model.config.allow_empty_rows == 0 && int(n.active) >= rows.rows { rows.fillEmptyRows(&topology) }

        var random = SplitMix64(streamKey(model.config.seed, .value, layer: int(n.index), number: 0))
        for r in 0..<rows.rows {
            let fan = rows.start[r &+ 1] &- rows.start[r]
            if fan == 0 { continue }
            let deviation = mestk_sqrt(2 / Float(int(fan)))
            for j in int(rows.start[r])..<int(rows.start[r &+ 1]) { rows.value[j] = deviation * random.normal() }
        }
        refresh(model, node)
    }

    /// Takes over a checked set of connections; gradients and averages start at 0.
    static func replace(_ model: Model, _ node: UnsafeMutablePointer<Node>, by csr: mest_csr) {
        let rows = rows(model, node)
        for r in 0...rows.rows { rows.start[r] = csr.row_start[r] }
        for j in 0..<int(csr.count) {
            rows.column[j] = csr.column[j]
            rows.value[j] = csr.value[j]
            rows.gradient?[j] = 0
            rows.average?[j] = 0
            rows.momentum?[j] = csr.momentum.map { $0[j] } ?? 0
        }
        node.pointee.active = csr.count
        refresh(model, node)
    }

    // MARK: Mutation (spec: drop the least important, grow uniformly at random at value 0)

    static func mutate(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ amount: Amount, key: UInt64) {
        let rows = rows(model, node)
        let excludes = model.config.mutation_flags & UInt32(MEST_MUTATION_EXCLUDE_DROPPED) != 0
        let scratch = model.at(model.state.pointee.plan.workspace, UInt32.self)
        let active = int(node.pointee.active)

        // Dropped positions go to the front of the scratch when growth must avoid them.
        let drop = max(0, active &- int(amount.keep))
        if drop > 0 {
            let importance = Importance(model, node)
            rows.drop(drop, of: active, recordTo: excludes ? scratch : nil) { importance[$0] }
        }
        var excluded = excludes ? drop : 0
        let drawn = scratch + excluded
        var random = SplitMix64(key)
        var now = active &- drop
        // One round as a rule; more for a layer that was set to fewer connections than a mutation leaves.
        while int64(now) < amount.after {
            let free = int64(rows.rows) &* int64(rows.columns) &- int64(now &+ excluded)
            let grow = int(min(min(amount.after &- int64(now), free), node.pointee.mostGrown))
            if grow == 0 {
                if excluded == 0 { break }
                excluded = 0  // nothing else is free: what was just dropped may come back
                continue
            }
            Floyd.draw(grow, below: uint64(free), &random, table: drawn)
            rows.grow(drawn, grow, avoiding: scratch, excluded)
            node.pointee.unexplored *= 1 - Float(grow) / Float(int(free))
            now &+= grow
        }
        node.pointee.active = uint32(now)
        node.pointee.dropped = uint32(drop)
        node.pointee.grown = uint32(now &- (active &- drop))
        refresh(model, node)
    }

    static func mutationScratch(_ node: Node, dropped: Int64, grown: Int64, excludeDropped: Bool) -> Int64 {
        4 &* (Floyd.tableCount(grown) &+ (excludeDropped ? dropped : 0))
    }
}
