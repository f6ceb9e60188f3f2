// SPDX-License-Identifier: Apache-2.0
// Layer: what every layer file provides, and the one table that knows them all. A new layer is one
// new file and one line in withLayer (and its number in Kind and mest.h).

import CMest
import CMestKernels

/// What the plan must know of a layer to share memory.
struct LayerTraits {
    var inPlace = false               // forward may write its output over its input
    var inPlaceBackward = false       // backward may write the input's gradient over the output's
    var backwardReadsInput = false    // so the input must live until then
    var storesFirstGradient = false   // the first micro-batch of an update overwrites the gradients
    var backwardReadsOutput = false
}

protocol Layer {
    /// Checks the description against its input and fills shape, geometry and parameter capacities.
    static func describe(
        _ node: inout Node, _ layer: mest_layer, _ plan: Plan, _ message: Message
    ) throws(Status)

    static var traits: LayerTraits { get }

    /// Bytes of scratch during forward and backward.
    static func scratch(_ node: Node, _ plan: Plan) -> Int64
    static func backwardScratch(_ node: Node, _ plan: Plan) -> Int64

    static func forward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass)

    /// Adds to the gradients of the layer's parameters (or stores them: traits) and passes the gradient on to its inputs.
    static func backward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass)
}

extension Layer {
    static func scratch(_ node: Node, _ plan: Plan) -> Int64 { 0 }
    static func backwardScratch(_ node: Node, _ plan: Plan) -> Int64 { 0 }
}

/// One pass through the network.
struct Pass {
    var training: Bool
    var count: Int32      // samples in the batch
    var number: UInt64    // of the training pass, keys what is random in it
    var recomputing = false  // in backward, what was given up: no statistics, they exist
    var adds = false         // to the gradients of passes before
    var moves = false        // connections will, by this gradient
    var inParts = false      // sparse layers compute as the dense ones of their first values
    var temperature: Float = 1  // what cross-entropy divides the outputs by
}

// MARK: - The table

protocol LayerVisitor {
    associatedtype Result
    associatedtype Failure: Error
    func visit<L: Layer>(_ layer: L.Type) throws(Failure) -> Result
}

@inline(__always)
func withLayer<V: LayerVisitor>(_ kind: Kind, _ visitor: V) throws(V.Failure) -> V.Result {
    switch kind {
    case .input: return try visitor.visit(Input.self)
    case .linear: return try visitor.visit(Linear.self)
    case .conv2D: return try visitor.visit(Conv2D.self)
    case .batchNorm: return try visitor.visit(BatchNorm.self)
    case .relu: return try visitor.visit(ReLU.self)
    case .maxPool: return try visitor.visit(MaxPool.self)
    case .avgPool: return try visitor.visit(AvgPool.self)
    case .globalAvgPool: return try visitor.visit(GlobalAvgPool.self)
    case .add: return try visitor.visit(Add.self)
    case .flatten: return try visitor.visit(Flatten.self)
    case .dropout: return try visitor.visit(Dropout.self)
    }
}

// MARK: - Questions to a layer whose kind is known at run time only

struct Describe: LayerVisitor {
    let plan: Plan
    let node: UnsafeMutablePointer<Node>
    let layer: mest_layer
    let message: Message
    func visit<L: Layer>(_: L.Type) throws(Status) { try L.describe(&node.pointee, layer, plan, message) }
}

private struct Traits: LayerVisitor {
    func visit<L: Layer>(_: L.Type) throws(Never) -> LayerTraits { L.traits }
}

private struct Scratch: LayerVisitor {
    let node: Node
    let plan: Plan
    let backward: Bool
    func visit<L: Layer>(_: L.Type) throws(Never) -> Int64 { backward ? L.backwardScratch(node, plan) : L.scratch(node, plan) }
}

private struct Forward: LayerVisitor {
    let model: Model
    let node: UnsafeMutablePointer<Node>
    let pass: Pass
    func visit<L: Layer>(_: L.Type) throws(Never) { L.forward(model, node, pass) }
}

private struct Backward: LayerVisitor {
    let model: Model
    let node: UnsafeMutablePointer<Node>
    let pass: Pass
    func visit<L: Layer>(_: L.Type) throws(Never) { L.backward(model, node, pass) }
}

func layerTraits(_ node: Node) -> LayerTraits { withLayer(node.kind, Traits()) }

func layerScratch(_ node: Node, _ plan: Plan) -> Int64 {
    withLayer(node.kind, Scratch(node: node, plan: plan, backward: false))
}

func layerBackwardScratch(_ node: Node, _ plan: Plan) -> Int64 {
    withLayer(node.kind, Scratch(node: node, plan: plan, backward: true))
}

func layerForward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
    withLayer(node.pointee.kind, Forward(model: model, node: node, pass: pass))
}

func layerBackward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
    withLayer(node.pointee.kind, Backward(model: model, node: node, pass: pass))
}
