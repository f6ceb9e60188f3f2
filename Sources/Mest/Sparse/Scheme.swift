// SPDX-License-Identifier: Apache-2.0
// Scheme: which connections of a weight matrix may exist and how they are stored. A scheme owns the
// layout of its connections, their values and their state, the products over them, and the move of
// connections at a mutation. A new scheme is one new file and one line in withSparseScheme.

import CMest
import CMestKernels

/// What a scheme counts in. A unit is the smallest thing that may be dropped or grown: a weight, a
/// column of a block, a run of inputs, a kernel. The layer is one pool of units, or every row is a pool of
/// its own and all pools hold the same number.
struct Units {
    var weights: Int64 = 1   // values stored for a unit
    var pools: Int64 = 1
    var positions: Int64     // that units could take, in a pool
    var most: Int64          // units a pool may hold
    var lines: Int64         // rows of the index, or runs of inputs
    var phantoms: Int64 = 0  // rows or inputs that the last one lacks: their values are stored and stay 0
    /// Weights that a unit spans: 9 of a kernel, of which 4 are stored.
    var span: Int64 = 1
    var grouped = false      // at most 2 units in 4 neighbouring columns
    var channels = false     // units are channels, which weights have on both sides

    /// Density of units at a density of weights.
    func density(_ weights: Ratio) -> Ratio {
        if channels { return weights.squareRoot }
        return Ratio(billionths: min(Ratio.one.billionths, weights.billionths &* span / (span == 1 ? 1 : self.weights)))
    }

    /// Weights of units spread evenly over the lines, phantoms not counted.
    func expectedWeights(_ inPool: Int64) -> Int64 {
        let total = inPool &* pools
        return total &* weights &- (total &* phantoms &+ lines / 2) / lines
    }
}

/// What one mutation does to a pool of one layer; where layers are ranked (Plan.ranksLayers), to the layer.
struct Amount {
    var keep: Int64   // units that survive the drop, at most
    var after: Int64  // units after the growth
}

protocol Scheme {
    static func units(_ node: Node) -> Units

    /// The highest density of weights.
    static var densest: Ratio { get }

    /// Takes places for the connections.
    static func reserveIndex(_ node: inout Node, training: Bool, _ cursor: inout Cursor)

    /// Draws `node.units` units and their values.
    static func initialise(_ model: Model, _ node: UnsafeMutablePointer<Node>)

    /// The weights as the kernels see them.
    static func weights(_ model: Model, _ node: UnsafeMutablePointer<Node>) -> mestk_weights

    /// Drops the least important units (a remainder among its like) down to amount.keep a pool, grows up to amount.after.
    /// Importance: Importance.swift. Scratch: the workspace, as mutationScratch() planned.
    static func mutate(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ amount: Amount, key: UInt64)

    /// The connections of one row of the matrix, columns ascending: body(column, where its value lies).
    static func connections(_ model: Model, _ node: UnsafeMutablePointer<Node>, row: Int, _ body: (Int, Int) -> Void)

    /// Values that a set of connections takes: what must not exceed the capacity.
    static func room(for csr: mest_csr, _ node: Node) -> Int64

    /// Takes over a checked set of connections; gradients and averages start at 0. UNSUPPORTED when the
    /// scheme does not have such a set.
    static func replace(_ model: Model, _ node: UnsafeMutablePointer<Node>, by csr: mest_csr) throws(Status)

    /// After an index has been loaded: what is derived from it.
    static func refresh(_ model: Model, _ node: UnsafeMutablePointer<Node>)
}

extension Scheme {
    static var densest: Ratio { .one }
    static func room(for csr: mest_csr, _ node: Node) -> Int64 { int64(csr.count) }
    static func refresh(_ model: Model, _ node: UnsafeMutablePointer<Node>) {}
}

// MARK: - The table

protocol SchemeVisitor {
    associatedtype Result
    associatedtype Failure: Error
    func visit<S: Scheme>(_ scheme: S.Type) throws(Failure) -> Result
}

@inline(__always)
func withScheme<V: SchemeVisitor>(_ node: Node, _ visitor: V) throws(V.Failure) -> V.Result {
    node.sparse ? try withSparseScheme(node.scheme, visitor) : try visitor.visit(Dense.self)
}

/// scheme: MEST_SCHEME_*, known and resolved.
@inline(__always)
func withSparseScheme<V: SchemeVisitor>(_ scheme: Int32, _ visitor: V) throws(V.Failure) -> V.Result {
    switch int(scheme) {
    case MEST_SCHEME_BLOCK4, MEST_SCHEME_BLOCK8, MEST_SCHEME_BLOCK16: return try visitor.visit(Blocks.self)
    case MEST_SCHEME_ROW4, MEST_SCHEME_ROW8, MEST_SCHEME_ROW16: return try visitor.visit(Runs.self)
    case MEST_SCHEME_PATTERN: return try visitor.visit(Patterns.self)
    case MEST_SCHEME_NM24: return try visitor.visit(TwoOfFour.self)
    case MEST_SCHEME_FAN_IN: return try visitor.visit(FanIn.self)
    case MEST_SCHEME_FILTER, MEST_SCHEME_CHANNEL: return try visitor.visit(Thin.self)
    default: return try visitor.visit(Unstructured.self)
    }
}

/// Schemes that store a dense matrix of the channels that exist.
func isThinScheme(_ scheme: Int32) -> Bool {
    int(scheme) == MEST_SCHEME_FILTER || int(scheme) == MEST_SCHEME_CHANNEL
}

/// Schemes whose units are runs of inputs.
func isRunScheme(_ scheme: Int32) -> Bool { int(scheme) >= MEST_SCHEME_ROW4 && int(scheme) <= MEST_SCHEME_ROW16 }

/// As messages name it: MEST_SCHEME_* without the prefix.
func schemeName(_ scheme: Int32) -> StaticString {
    switch int(scheme) {
    case MEST_SCHEME_UNSTRUCTURED: return "UNSTRUCTURED"
    case MEST_SCHEME_BLOCK4: return "BLOCK4"
    case MEST_SCHEME_BLOCK8: return "BLOCK8"
    case MEST_SCHEME_BLOCK16: return "BLOCK16"
    case MEST_SCHEME_PATTERN: return "PATTERN"
    case MEST_SCHEME_NM24: return "NM24"
    case MEST_SCHEME_FAN_IN: return "FAN_IN"
    case MEST_SCHEME_FILTER: return "FILTER"
    case MEST_SCHEME_CHANNEL: return "CHANNEL"
    case MEST_SCHEME_ROW4: return "ROW4"
    case MEST_SCHEME_ROW8: return "ROW8"
    case MEST_SCHEME_ROW16: return "ROW16"
    default: return "DEFAULT"
    }
}

// MARK: - Questions to a scheme that is known at run time only

struct ReserveIndex: SchemeVisitor {
    let node: UnsafeMutablePointer<Node>
    let training: Bool
    let cursor: UnsafeMutablePointer<Cursor>
    func visit<S: Scheme>(_: S.Type) throws(Never) {
        S.reserveIndex(&node.pointee, training: training, &cursor.pointee)
    }
}

struct UnitsOf: SchemeVisitor {
    let node: Node
    func visit<S: Scheme>(_: S.Type) throws(Never) -> Units { S.units(node) }
}

struct Densest: SchemeVisitor {
    func visit<S: Scheme>(_: S.Type) throws(Never) -> Ratio { S.densest }
}

struct Initialise: SchemeVisitor {
    let model: Model
    let node: UnsafeMutablePointer<Node>
    func visit<S: Scheme>(_: S.Type) throws(Never) { S.initialise(model, node) }
}

struct Mutate: SchemeVisitor {
    let model: Model
    let node: UnsafeMutablePointer<Node>
    let amount: Amount
    let key: UInt64
    func visit<S: Scheme>(_: S.Type) throws(Never) { S.mutate(model, node, amount, key: key) }
}

struct RoomFor: SchemeVisitor {
    let csr: mest_csr
    let node: Node
    func visit<S: Scheme>(_: S.Type) throws(Never) -> Int64 { S.room(for: csr, node) }
}

struct Replace: SchemeVisitor {
    let model: Model
    let node: UnsafeMutablePointer<Node>
    let csr: mest_csr
    func visit<S: Scheme>(_: S.Type) throws(Status) { try S.replace(model, node, by: csr) }
}

struct Refresh: SchemeVisitor {
    let model: Model
    let node: UnsafeMutablePointer<Node>
    func visit<S: Scheme>(_: S.Type) throws(Never) { S.refresh(model, node) }
}

/// Copies the values of all connections, row by row, out of or into one of the weight's arrays.
@inline(never)
func copyValues(
    _ model: Model, _ node: UnsafeMutablePointer<Node>, stored: UnsafeMutablePointer<Float>,
    out: UnsafeMutablePointer<Float>? = nil, from: UnsafePointer<Float>? = nil
) {
    withScheme(node.pointee, CopyValues(model: model, node: node, stored: stored, out: out, from: from))
}

private struct CopyValues: SchemeVisitor {
    let model: Model
    let node: UnsafeMutablePointer<Node>
    let stored: UnsafeMutablePointer<Float>
    let out: UnsafeMutablePointer<Float>?
    let from: UnsafePointer<Float>?
    func visit<S: Scheme>(_: S.Type) throws(Never) {
        var n = 0
        for r in 0..<int(node.pointee.rows) {
            S.connections(model, node, row: r) { _, place in
                if let out { out[n] = stored[place] }
                if let from { stored[place] = from[n] }
                n &+= 1
            }
        }
    }
}

/// Writes where the connections are: row starts and columns.
struct CopyIndex: SchemeVisitor {
    let model: Model
    let node: UnsafeMutablePointer<Node>
    let start: UnsafeMutablePointer<UInt32>
    let column: UnsafeMutablePointer<UInt16>
    func visit<S: Scheme>(_: S.Type) throws(Never) {
        var n = 0
        for r in 0..<int(node.pointee.rows) {
            start[r] = uint32(n)
            S.connections(model, node, row: r) { c, _ in
                column[n] = UInt16(truncatingIfNeeded: c)
                n &+= 1
            }
        }
        start[int(node.pointee.rows)] = uint32(n)
    }
}

/// Of a thin matrix there are none: its units are those of its groups, units(of: Plan.pool(g)).
@inline(never)
func units(of node: Node) -> Units { withScheme(node, UnitsOf(node: node)) }

// MARK: - Products

struct LinearForward: SchemeVisitor {
    let model: Model
    let node: UnsafeMutablePointer<Node>
    func visit<S: Scheme>(_: S.Type) throws(Never) {
        var weights = S.weights(model, node)
        mestk_linear_forward(
            model.kernels, model.blocks, model.lanes, &weights, model.optional(node.pointee.bias.value),
            model.input(node), model.floats(node.pointee.output))
    }
}

struct LinearBackward: SchemeVisitor {
    let model: Model
    let node: UnsafeMutablePointer<Node>
    let pass: Pass
    func visit<S: Scheme>(_: S.Type) throws(Never) {
        var weights = S.weights(model, node)
        let n = node.pointee
        mestk_linear_backward(
            model.kernels, model.blocks, model.lanes, &weights, model.input(node), model.floats(n.gradient),
            model.optional(model.nodes[int(n.from)].gradient), model.adds(n.accumulatesFrom), model.floats(n.weight.gradient),
            model.optional(n.bias.gradient), model.adds(pass.adds))
    }
}

struct ConvForward: SchemeVisitor {
    let model: Model
    let node: UnsafeMutablePointer<Node>
    let pass: Pass
    let start: UnsafeMutablePointer<Float>?
    let sums: UnsafeMutablePointer<Double>?
    func visit<S: Scheme>(_: S.Type) throws(Never) {
        var weights = S.weights(model, node)
        var x = model.operand(int(node.pointee.from))
        mestk_conv_forward(
            model.kernels, model.geometry(node), &weights, start, &x, model.raw(node.pointee.output), pass.count, sums,
            model.floats(node.pointee.scratch))
    }
}

struct ConvBackward: SchemeVisitor {
    let model: Model
    let node: UnsafeMutablePointer<Node>
    let pass: Pass
    func visit<S: Scheme>(_: S.Type) throws(Never) {
        var weights = S.weights(model, node)
        let n = node.pointee
        var x = model.operand(int(n.from)), dy = model.gradientOperand(int(n.index))
        var dx = model.completes(int(n.from), by: int(n.index), accumulate: n.accumulatesFrom)
        mestk_conv_backward(
            model.kernels, model.geometry(node), &weights, &x, &dy, pass.count, &dx, model.floats(n.weight.gradient),
            model.optional(n.bias.gradient), int32(model.config.gradient_chunks), model.floats(n.backwardScratch))
    }
}
