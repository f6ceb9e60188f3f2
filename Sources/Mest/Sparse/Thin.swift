// SPDX-License-Identifier: Apache-2.0
// Thin: a matrix whose outputs, inputs or both lack channels, FILTER and CHANNEL. Stored and computed as a
// dense one of the channels that exist; only who looks from outside sees the matrix as described, with empty
// rows and columns. Its connections move with the group's channels: Channels.swift.

import CMest
import CMestKernels

enum Thin: Scheme {
    /// Of a group as Plan.pool makes it. A matrix has no units of its own, and `declared` is 0 but at a group's first node.
    static func units(_ node: Node) -> Units {
        let n = int64(node.thin.declared)
        return Units(positions: n, most: n, lines: 1, channels: true)
    }

    /// The ids lie with the group's first layer.
    static func reserveIndex(_ node: inout Node, training: Bool, _ cursor: inout Cursor) {
        node.thin.ids = cursor.take(int64(node.thin.most) &* 2, if: node.thin.most > 0)
    }

    static func initialise(_ model: Model, _ node: UnsafeMutablePointer<Node>) { Dense.initialise(model, node) }
    static func weights(_ model: Model, _ node: UnsafeMutablePointer<Node>) -> mestk_weights { Dense.weights(model, node) }
    /// Nobody asks: Model.mutate moves groups, each once, not the matrices that have their channels.
    static func mutate(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ amount: Amount, key: UInt64) {}

    static func connections(_ model: Model, _ node: UnsafeMutablePointer<Node>, row: Int, _ body: (Int, Int) -> Void) {
        let n = node.pointee
        guard let r = ChannelIds(model, n).stored(row) else { return }
        let inputs = ChannelIds(ofInputs: n, model)
        let taps = int(n.taps)
        for c in 0..<int(n.inputs) {
            let column = inputs.described(c) &* taps
            let place = (r &* int(n.inputs) &+ c) &* taps
            for t in 0..<taps { body(column &+ t, place &+ t) }
        }
    }

    /// Every row that has any connection has all inputs that any has: then these are the channels from now on.
    static func replace(_ model: Model, _ node: UnsafeMutablePointer<Node>, by csr: mest_csr) throws(Status) {
        let n = node.pointee
        let set = try ThinSet(model, n, csr)
        if n.group >= 0 { Channels(model, model.nodes + int(n.group)).adopt { set.outputs($0) } }
        if let g = set.inputGroup { Channels(model, model.nodes + g).adopt { set.inputs($0) } }
        var i = 0
        for r in 0..<int(n.rows) {
            connections(model, node, row: r) { _, place in
                model.floats(n.weight.value)[place] = csr.value[i]
                if n.weight.gradient.exists { model.floats(n.weight.gradient)[place] = 0 }
                if n.weight.average.exists { model.floats(n.weight.average)[place] = 0 }
                if n.weight.momentum.exists { model.floats(n.weight.momentum)[place] = csr.momentum.map { $0[i] } ?? 0 }
                i &+= 1
            }
        }
    }
}

/// A set of connections as the channels it has: of outputs, and of inputs.
private struct ThinSet {
    private let csr: mest_csr
    private let rows: Int
    private let span: Int        // rows of an output channel
    private let wide: Int        // columns of an input channel
    private var full = 0         // a row that has connections
    private(set) var inputGroup: Int?

    init(_ model: Model, _ n: Node, _ csr: mest_csr) throws(Status) {
        let from = model.nodes[int(n.from)]
        self.csr = csr
        rows = int(n.rows)
        span = int(n.span)
        wide = n.isDepthwise ? int(n.taps) : int(n.taps &* from.span)
        inputGroup = n.isDepthwise || from.group < 0 ? nil : int(from.group)
        while full < rows && length(full) == 0 { full &+= 1 }
        if full == rows { throw model.doesNotFit(n, 0, "and all others are empty") }
        for r in 0..<rows {
            if (length(r) > 0) != (length(r / span &* span) > 0) { throw model.doesNotFit(n, r, "has a part of a channel") }
            if length(r) > 0 && !isLike(r) { throw model.doesNotFit(n, r, "has other columns than rows before it") }
        }
        if length(full) % wide != 0 { throw model.doesNotFit(n, full, "has a part of a channel") }
        for j in 0..<length(full) where column(j) != input(j / wide) &* wide &+ j % wide {
            throw model.doesNotFit(n, full, "has a part of a channel")
        }
        var count = 0
        outputs { _ in count &+= 1 }
        try check(model, n, n.group, count, described: rows / span, "output")
        try check(model, n, int32(inputGroup ?? -1), inputCount, described: int(n.columns) / wide, "input")
        if n.group >= 0 && int(n.group) == inputGroup, let r = unlikeColumn() {
            throw model.doesNotFit(n, r, "and its column are one channel; one of them exists")
        }
    }

    private func length(_ r: Int) -> Int { int(csr.row_start[r &+ 1] &- csr.row_start[r]) }

    /// Of the rows that have connections.
    private func column(_ j: Int) -> Int { int(csr.column[int(csr.row_start[full]) &+ j]) }
    private func input(_ c: Int) -> Int { column(c &* wide) / wide }
    private var inputCount: Int { length(full) / wide }

    private func isLike(_ r: Int) -> Bool {
        if length(r) != length(full) { return false }
        for j in 0..<length(r) where int(csr.column[int(csr.row_start[r]) &+ j]) != column(j) { return false }
        return true
    }

    /// Where inputs and outputs are one group, and so a row is a channel: the first that only one side has. Inputs ascend.
    private func unlikeColumn() -> Int? {
        var c = 0
        for r in 0..<rows {
            let isRead = c < inputCount && input(c) == r
            if isRead != (length(r) > 0) { return r }
            if isRead { c &+= 1 }
        }
        return nil
    }

    /// As many as there is room for; all, where the side is not thin.
    private func check(
        _ model: Model, _ n: Node, _ g: Int32, _ count: Int, described: Int, _ what: StaticString
    ) throws(Status) {
        if g < 0 && count < described { throw model.doesNotFit(n, full, "or another lacks channels, but all exist") }
        if g >= 0 && count > int(model.nodes[int(g)].thin.most) {
            throw model.state.pointee.plan.layer(int(n.index), model.message).text(": the csr has ").integer(count).text(" ")
                .text(what).text(" channels, there is room for ").integer(model.nodes[int(g)].thin.most)
                .text(": create the model with a higher density").as(.argument)
        }
    }

    func outputs(_ body: (Int) -> Void) {
        for r in 0..<rows where r % span == 0 && length(r) > 0 { body(r / span) }
    }

    func inputs(_ body: (Int) -> Void) {
        for c in 0..<inputCount { body(input(c)) }
    }
}

/// Between the channels that are stored and those of the description.
struct ChannelIds {
    private let ids: UnsafeMutablePointer<UInt16>?  // nil: all exist
    private let alive: Int
    private let span: Int

    /// Of a node's output.
    init(_ model: Model, _ n: Node) {
        span = int(n.span)
        if n.group < 0 {
            (ids, alive) = (nil, 0)
        } else {
            let thin = model.nodes[int(n.group)].thin
            (ids, alive) = (model.at(thin.ids, UInt16.self), int(thin.alive))
        }
    }

    /// Of what a row of a matrix reads; a depthwise convolution's are its own.
    init(ofInputs n: Node, _ model: Model) {
        self.init(model, n.isDepthwise ? model.nodes[0] : model.nodes[int(n.from)])
    }

    func described(_ c: Int) -> Int {
        guard let ids else { return c }
        return int(ids[c / span]) &* span &+ c % span
    }

    /// nil: it does not exist.
    func stored(_ c: Int) -> Int? {
        guard let ids else { return c }
        let id = c / span
        var (low, high) = (0, alive)
        while low < high {
            let middle = (low &+ high) / 2
            if int(ids[middle]) < id { low = middle &+ 1 } else { high = middle }
        }
        return low < alive && int(ids[low]) == id ? low &* span &+ c % span : nil
    }
}
