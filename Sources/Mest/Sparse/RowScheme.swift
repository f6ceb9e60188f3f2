// SPDX-License-Identifier: Apache-2.0
// RowScheme: what the sparse schemes have in common. Their units lie in SparseRows, in the order of
// CMestKernels/include/weights.h, with a second order of the same units by input channel for the backward
// pass. Room for `capacity` units, taken once. A scheme says what a unit is; Store, one for all schemes,
// keeps the units.
//
// Bytes a unit of w weights: value, gradient, momentum 12 w; column 2, key 2, position 4 (in inference:
// value 4 w, column 2), patterns one more; and 4 a row, 4 an input channel.

import CMest
import CMestKernels

protocol RowScheme: Scheme {
    static var form: Int { get }  // MESTK_FORM_*

    /// What the index counts in: rows or blocks of them; input channels or runs of them; entries a channel may have.
    static func grid(_ node: Node) -> Grid

    /// UNSUPPORTED for a set of connections that the scheme does not have.
    static func fits(_ model: Model, _ node: Node, _ csr: mest_csr) throws(Status)

    /// Writes the index of a set that fits.
    static func index(_ rows: SparseRows, _ model: Model, _ csr: mest_csr)
}

struct Grid {
    var rows: Int32
    var channels: Int32
    var taps: Int32
    var inRuns: Int32 = 0  // input channels, where they are counted in runs
    var columns: Int { int(channels) &* int(taps) }
}

extension RowScheme {
    static var form: Int { MESTK_FORM_SINGLE }

    static func grid(_ node: Node) -> Grid { Grid(rows: node.rows, channels: node.columns / node.taps, taps: node.taps) }

    static func fits(_ model: Model, _ node: Node, _ csr: mest_csr) throws(Status) {}

    static func index(_ rows: SparseRows, _ model: Model, _ csr: mest_csr) {
        for r in 0...rows.rows { rows.start[r] = csr.row_start[r] }
        for j in 0..<int(csr.count) { rows.column[j] = csr.column[j] }
    }

    static func store(_ model: Model, _ node: UnsafeMutablePointer<Node>) -> Store {
        Store(model: model, node: node, grid: grid(node.pointee), units: units(node.pointee))
    }

    static func reserveIndex(_ node: inout Node, training: Bool, _ cursor: inout Cursor) {
        let n = node.weight.capacity / int64(node.unit)
        let grid = grid(node)
        node.connections.rowStart = cursor.take((int64(grid.rows) &+ 1) &* 4)
        node.connections.column = cursor.take(n &* 2)
        node.connections.pattern = cursor.take(n, if: form == MESTK_FORM_PATTERN)
        if !training { return }
        node.connections.channelStart = cursor.take((int64(grid.channels) &+ 1) &* 4)
        node.connections.key = cursor.take(n &* 2)
        node.connections.position = cursor.take(n &* 4)
    }

    static func weights(_ model: Model, _ node: UnsafeMutablePointer<Node>) -> mestk_weights {
        let n = node.pointee
        var weights = Dense.weights(model, node)
        weights.form = int32(form)
        weights.row_start = UnsafePointer(model.at(n.connections.rowStart, UInt32.self))
        weights.column = UnsafePointer(model.at(n.connections.column, UInt16.self))
        weights.group = form == MESTK_FORM_PATTERN ? 1 : n.unit
        if n.connections.pattern.exists {
            weights.pattern = UnsafePointer(model.at(n.connections.pattern, UInt8.self))
            weights.pattern_taps = mestk_patterns(model.code8)
        }
        if n.connections.key.exists {
            weights.channel_start = UnsafePointer(model.at(n.connections.channelStart, UInt32.self))
            weights.key = UnsafePointer(model.at(n.connections.key, UInt16.self))
            weights.position = UnsafePointer(model.at(n.connections.position, UInt32.self))
        }
        return weights
    }

    static func initialise(_ model: Model, _ node: UnsafeMutablePointer<Node>) { store(model, node).initialise() }

    static func mutate(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ amount: Amount, key: UInt64) {
        store(model, node).mutate(amount, key: key)
    }

    static func refresh(_ model: Model, _ node: UnsafeMutablePointer<Node>) { store(model, node).refresh() }

    static func connections(_ model: Model, _ node: UnsafeMutablePointer<Node>, row: Int, _ body: (Int, Int) -> Void) {
        store(model, node).rows.connections(row, taps: mestk_patterns(model.code8), body)
    }

    static func replace(_ model: Model, _ node: UnsafeMutablePointer<Node>, by csr: mest_csr) throws(Status) {
        try fits(model, node.pointee, csr)
        let store = store(model, node)
        index(store.rows, model, csr)
        store.takeValues(csr)
    }
}

// MARK: - The store

struct Store {
    let model: Model
    let node: UnsafeMutablePointer<Node>
    let grid: Grid
    let units: Units

    /// The units and everything that moves with one.
    var rows: SparseRows {
        let n = node.pointee
        return SparseRows(
            rows: int(grid.rows), columns: grid.columns,
            start: model.at(n.connections.rowStart, UInt32.self), column: model.at(n.connections.column, UInt16.self),
            value: model.floats(n.weight.value), gradient: model.optional(n.weight.gradient),
            momentum: model.optional(n.weight.momentum), average: model.optional(n.weight.average),
            width: int(n.unit),
            pattern: n.connections.pattern.exists ? model.at(n.connections.pattern, UInt8.self) : nil,
            runs: grid.inRuns > 0 ? SparseRows.Runs(taps: int(grid.taps), channels: int(grid.inRuns)) : nil)
    }

    /// Rebuilds the order by input channel and counts the weights; after every change of connections.
    func refresh() {
        let rows = rows
        let places = node.pointee.connections
        node.pointee.units = uint32(rows.count)
        node.pointee.active = uint32(rows.weights(phantoms: int(units.phantoms)))
        if !places.key.exists { return }
        mestk_index_by_channel(
            grid.rows, grid.channels, grid.taps, rows.start, rows.column, model.at(places.channelStart, UInt32.self),
            model.at(places.key, UInt16.self), model.at(places.position, UInt32.self))
    }

    /// Units uniform over what the scheme allows; w ~ N(0, 2 / fan) with the row's own number of
    /// connections as fan: sparse Kaiming, so that a row keeps its variance whatever its density.
    @inline(never)
    func initialise() {
        if model.state.pointee.plan.beginsWithLargest { return initialiseLargest() }
        let rows = rows
        let n = node.pointee
        let pools = int(units.pools)
        var topology = SplitMix64(streamKey(model.config.seed, .topology, layer: int(n.index), number: 0))
        if units.grouped {
            rows.drawInGroups(count: int(n.units), slots: uint64(units.most), &topology)
        } else {
            rows.drawUniform(count: int(n.units) / pools, perRow: pools > 1, &topology)
        }
        if pools == 1 && model.config.allow_empty_rows == 0 && int(n.units) >= rows.rows { rows.fillEmptyRows(&topology) }
        rows.drawPatterns(&topology)

        let taps = mestk_patterns(model.code8)
        var random = SplitMix64(streamKey(model.config.seed, .value, layer: int(n.index), number: 0))
        for r in 0..<int(n.rows) {
            var fan = 0
            rows.connections(r, taps: taps) { _, _ in fan &+= 1 }
            if fan == 0 { continue }
            let deviation = mestk_sqrt(2 / Float(fan))
            rows.connections(r, taps: taps) { _, place in rows.value[place] = deviation * random.normal() }
        }
        refresh()
    }

    // MARK: Mutation (spec: drop the least important, grow uniformly at random at value 0)

    @inline(never)
    func mutate(_ amount: Amount, key: UInt64) {
        let rows = rows
        let phantoms = int(units.phantoms)
        let plan = model.state.pointee.plan
        let excludes = plan.excludesDropped
        let scratch = model.at(plan.workspace, UInt32.self)
        let ranked = int(plan.ranked(units))
        let before = rows.count
        var random = SplitMix64(key)

        // Dropped positions go to the front of the scratch when growth must avoid them.
        let drop = max(0, before / ranked &- int(amount.keep)), record = excludes ? scratch : nil
        if signed {
            dropSigned(rows, recordTo: record)
        } else if plan.ranksLayers {
            dropOfLayer(rows, drop, recordTo: record)
        } else if phantoms > 0 {
            dropAmongEquals(rows, drop, &random, recordTo: record)
        } else if drop > 0 {
            let importance = Importance(model, node)
            rows.drop(drop, perRow: ranked > 1, recordTo: record) { importance[$0] }
        }
        let weightsKept = rows.weights(phantoms: phantoms)
        node.pointee.dropped = node.pointee.active &- uint32(weightsKept)

        var avoided = excludes ? before &- rows.count : 0
        let drawn = scratch + avoided
        let after = amount.after &* int64(ranked) / units.pools
        // One round as a rule; more for a layer that was set to fewer connections than a mutation leaves.
        while true {
            let grown = grow(rows, to: after, avoiding: scratch, avoided, drawn: drawn, &random)
            if grown > 0 {
                rows.drawPatterns(&random)
                if signed { rows.fill(drawn, grown) { 0.1 * random.normal() } }
            } else if avoided > 0 {
                avoided = 0  // nothing else is free: what was just dropped may come back
            } else {
                break
            }
        }
        refresh()
        node.pointee.grown = node.pointee.active &- uint32(weightsKept)
    }

    /// SET looks at the sign of a weight, which units of several weights do not have.
    private var signed: Bool {
        model.config.method == MEST_METHOD_SET && units.weights == 1 && units.pools == 1
    }

    /// SET: of the positive weights and of the negative ones the share nearest to 0. recordTo: as SparseRows.drop.
    private func dropSigned(_ rows: SparseRows, recordTo record: UnsafeMutablePointer<UInt32>?) {
        let rate = Ratio(model.config.mutation_rate)
        var dropped = 0
        for sign in 0..<2 {
            func belongs(_ j: Int) -> Bool { rows.value[j] < 0 ? sign == 1 : sign == 0 }
            var n = 0
            for j in 0..<rows.count where belongs(j) { n &+= 1 }
            let drop = int(rate.floor(of: int64(n)))
            if drop == 0 { continue }
            rows.drop(drop, recordTo: record.map { $0 + dropped }) {
                belongs($0) ? rows.value[$0].magnitude : .infinity
            }
            dropped &+= drop
        }
        if let record { sort(record, dropped) }
    }

    /// Where the last block or run lacks weights: its norms are smaller and it would leave before all others, so it is
    /// ranked by itself. The same share of it leaves as of the others: within one unit, and on average exactly, else it
    /// would stay whole wherever its share of a mutation is below half a unit. recordTo: as SparseRows.drop.
    private func dropAmongEquals(
        _ rows: SparseRows, _ drop: Int, _ random: inout SplitMix64, recordTo record: UnsafeMutablePointer<UInt32>?
    ) {
        if drop == 0 { return }
        let importance = Importance(model, node)
        let count = uint64(rows.count)
        let ofLast = int(int64((uint64(drop) &* uint64(rows.countInLast) &+ random.below(count)) / count))
        rows.drop(ofLast, recordTo: record) { rows.isInLast($0) ? importance[$0] : .infinity }
        rows.drop(drop &- ofLast, recordTo: record.map { $0 + ofLast }) { rows.isInLast($0) ? .infinity : importance[$0] }
        if let record { sort(record, drop) }
    }

    /// SRIGL: the `drop` least important of the layer, but of no row its most important one, so that each keeps one.
    private func dropOfLayer(_ rows: SparseRows, _ drop: Int, recordTo record: UnsafeMutablePointer<UInt32>?) {
        if drop == 0 { return }
        let importance = Importance(model, node)
        let leaving = rows.least(drop, by: importance)
        var row = -1, most = 0, dropped = 0
        rows.keep { r, j, position in
            if r != row {
                (row, most) = (r, j)
                for i in j..<int(rows.start[r &+ 1]) where importance[i] >= importance[most] { most = i }
            }
            if j == most || !leaving.has(j) { return true }
            record?[dropped] = position
            dropped &+= 1
            return false
        }
    }

    /// Brings every pool up to `after` units, the new ones at value 0, as far as there is room and mostGrown goes.
    /// Returns how many came; their positions, ascending, are in `drawn`.
    private func grow(
        _ rows: SparseRows, to after: Int64, avoiding: UnsafeMutablePointer<UInt32>, _ avoided: Int,
        drawn: UnsafeMutablePointer<UInt32>, _ random: inout SplitMix64
    ) -> Int {
        let pools = int(units.pools)
        var count = 0, passed = 0
        var free: Int64 = 0  // positions in the pools so far
        for p in 0..<pools {
            let active = int64(pools == 1 ? rows.count : int(rows.start[p &+ 1] &- rows.start[p]))
            let end = int64(p &+ 1) &* units.positions, first = passed
            while passed < avoided && int64(avoiding[passed]) < end { passed &+= 1 }
            let freeHere = units.positions &- active &- int64(passed &- first)
            let room = min(freeHere, units.most &- active)
            let wanted = int(min(min(after &- active, room), node.pointee.mostGrown &- int64(count)))
            if wanted > 0 {
                let ranks = drawn + count
                // Of 2:4 the slots are drawn, of which a group has as many as it may have connections.
                Floyd.draw(wanted, below: uint64(units.grouped ? units.most &- active : freeHere), &random, table: ranks)
                for i in 0..<(free == 0 ? 0 : wanted) { ranks[i] &+= uint32(free) }
                count &+= wanted
            }
            free &+= freeHere
        }
        if count == 0 { return 0 }
        if units.grouped {
            rows.growInGroups(drawn, count, avoiding: avoiding, avoided, &random)
        } else {
            rows.grow(drawn, count, avoiding: avoiding, avoided)
        }
        let share = Float(int(units.span == 1 ? 1 : units.weights)) / Float(int(units.span))
        node.pointee.unexplored *= 1 - share * Float(count) / Float(int(free))
        return count
    }

    // MARK: Replacement

    /// After the index has changed: values and momentum of the new set, the rest 0.
    @inline(never)
    func takeValues(_ csr: mest_csr) {
        let rows = rows
        for i in 0..<(rows.count &* rows.width) {
            rows.value[i] = 0
            rows.gradient?[i] = 0
            rows.average?[i] = 0
            rows.momentum?[i] = 0
        }
        let taps = mestk_patterns(model.code8)
        var n = 0
        for r in 0..<int(node.pointee.rows) {
            rows.connections(r, taps: taps) { _, place in
                rows.value[place] = csr.value[n]
                if let momentum = csr.momentum { rows.momentum?[place] = momentum[n] }
                n &+= 1
            }
        }
        refresh()
    }
}

extension Model {
    var code8: Int32 { config.scheme_flags & UInt32(MEST_PATTERNS_CODE8) != 0 ? 1 : 0 }

    /// The same number of connections in every row?
    func checkBalance(_ node: Node, _ csr: mest_csr) throws(Status) {
        let first = csr.row_start[1] &- csr.row_start[0]
        for r in 0..<int(node.rows) where csr.row_start[r &+ 1] &- csr.row_start[r] != first {
            throw doesNotFit(node, r, "has another number of connections than row 0")
        }
    }

    func doesNotFit(_ node: Node, _ row: Int, _ why: StaticString) -> Status {
        state.pointee.plan.layer(int(node.index), message).text(": row ").integer(row).text(" of the csr ").text(why)
            .text(", which scheme ").text(schemeName(node.scheme)).text(" cannot hold").as(.unsupported)
    }
}
