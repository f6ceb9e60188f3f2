// SPDX-License-Identifier: Apache-2.0
// Scheme: which connections of a weight matrix may exist and how they are stored. A scheme owns the
// layout of its connections, their values and their state, the products over them, and the move of
// connections at a mutation. A new scheme is one new file and one line in withScheme.

import CMest
import CMestKernels

/// What one mutation does to one layer.
struct Amount {
    var keep: Int64   // connections that survive the drop, at most
    var after: Int64  // connections after the growth
}

protocol Scheme {
    /// Connections there must be room for, given the most that will exist.
    static func capacity(_ node: Node, connections: Int64) -> Int64

    /// Takes places for the connections.
    static func reserveIndex(_ node: inout Node, training: Bool, _ cursor: inout Cursor)

    /// Draws `node.active` connections and their values.
    static func initialise(_ model: Model, _ node: UnsafeMutablePointer<Node>)

    /// The weights as the kernels see them.
    static func weights(_ model: Model, _ node: UnsafeMutablePointer<Node>) -> mestk_weights

    /// Drops the least important connections down to amount.keep, grows up to amount.after.
    /// Importance: Mutation/Importance.swift. Scratch: the workspace, as scratchBytes() planned.
    static func mutate(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ amount: Amount, key: UInt64)

    /// Bytes of workspace that mutate() needs to drop and grow this many connections.
    static func mutationScratch(_ node: Node, dropped: Int64, grown: Int64, excludeDropped: Bool) -> Int64
}

// MARK: - The table

protocol SchemeVisitor {
    associatedtype Result
    func visit<S: Scheme>(_ scheme: S.Type) -> Result
}

@inline(__always)
func withScheme<V: SchemeVisitor>(_ node: Node, _ visitor: V) -> V.Result {
    node.sparse ? visitor.visit(Unstructured.self) : visitor.visit(Dense.self)
}

// MARK: - Questions to a scheme that is known at run time only

struct ReserveIndex: SchemeVisitor {
    let node: UnsafeMutablePointer<Node>
    let training: Bool
    let cursor: UnsafeMutablePointer<Cursor>
    func visit<S: Scheme>(_: S.Type) { S.reserveIndex(&node.pointee, training: training, &cursor.pointee) }
}

struct Capacity: SchemeVisitor {
    let node: Node
    let connections: Int64
    func visit<S: Scheme>(_: S.Type) -> Int64 { S.capacity(node, connections: connections) }
}

struct Initialise: SchemeVisitor {
    let model: Model
    let node: UnsafeMutablePointer<Node>
    func visit<S: Scheme>(_: S.Type) { S.initialise(model, node) }
}

struct Mutate: SchemeVisitor {
    let model: Model
    let node: UnsafeMutablePointer<Node>
    let amount: Amount
    let key: UInt64
    func visit<S: Scheme>(_: S.Type) { S.mutate(model, node, amount, key: key) }
}

struct MutationScratch: SchemeVisitor {
    let node: Node
    let dropped: Int64
    let grown: Int64
    let excludeDropped: Bool
    func visit<S: Scheme>(_: S.Type) -> Int64 {
        S.mutationScratch(node, dropped: dropped, grown: grown, excludeDropped: excludeDropped)
    }
}

// MARK: - Products

struct LinearForward: SchemeVisitor {
    let model: Model
    let node: UnsafeMutablePointer<Node>
    func visit<S: Scheme>(_: S.Type) {
        var weights = S.weights(model, node)
        mestk_linear_forward(
            model.kernels, model.blocks, model.lanes, &weights, model.optional(node.pointee.bias.value),
            model.input(node), model.floats(node.pointee.output))
    }
}

struct LinearBackward: SchemeVisitor {
    let model: Model
    let node: UnsafeMutablePointer<Node>
    func visit<S: Scheme>(_: S.Type) {
        var weights = S.weights(model, node)
        let n = node.pointee
        mestk_linear_backward(
            model.kernels, model.blocks, model.lanes, &weights, model.input(node), model.floats(n.gradient),
            model.optional(model.nodes[int(n.from)].gradient), model.adds(n.accumulatesFrom), model.floats(n.weight.gradient),
            model.optional(n.bias.gradient))
    }
}

struct ConvForward: SchemeVisitor {
    let model: Model
    let node: UnsafeMutablePointer<Node>
    let pass: Pass
    let start: UnsafeMutablePointer<Float>?
    let sums: UnsafeMutablePointer<Double>?
    func visit<S: Scheme>(_: S.Type) {
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
    func visit<S: Scheme>(_: S.Type) {
        var weights = S.weights(model, node)
        let n = node.pointee
        var x = model.operand(int(n.from)), dy = model.gradientOperand(int(n.index))
        var dx = model.completes(int(n.from), by: int(n.index), accumulate: n.accumulatesFrom)
        mestk_conv_backward(
            model.kernels, model.geometry(node), &weights, &x, &dy, pass.count, &dx, model.floats(n.weight.gradient),
            model.optional(n.bias.gradient), int32(model.config.gradient_chunks), model.floats(n.backwardScratch))
    }
}
