// SPDX-License-Identifier: Apache-2.0
// MaxPool, AvgPool, GlobalAvgPool.

import CMest
import CMestKernels

enum MaxPool: Layer {
    static let traits = LayerTraits(backwardReadsInput: true)

    static func describe(_ node: inout Node, _ layer: mest_layer, _ plan: Plan, _ message: Message) throws(Status) {
        try describeWindow(&node, layer, strideDefault: 0, plan, message)
    }

    static func forward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        mestk_max_pool_forward(model.kernels, model.geometry(node), model.inputRaw(node), model.raw(node.pointee.output))
    }

    static func backward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        guard let dx = model.inputGradient(node) else { return }
        mestk_max_pool_backward(
            model.kernels, model.geometry(node), model.inputRaw(node), model.raw(node.pointee.gradient), dx,
            model.adds(node.pointee.accumulatesFrom))
    }
}

enum AvgPool: Layer {
    static let traits = LayerTraits()

    static func describe(_ node: inout Node, _ layer: mest_layer, _ plan: Plan, _ message: Message) throws(Status) {
        try describeWindow(&node, layer, strideDefault: 0, plan, message)
    }

    static func forward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        mestk_avg_pool_forward(model.kernels, model.geometry(node), model.inputRaw(node), model.raw(node.pointee.output))
    }

    static func backward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        guard let dx = model.inputGradient(node) else { return }
        mestk_avg_pool_backward(
            model.kernels, model.geometry(node), model.raw(node.pointee.gradient), dx,
            model.adds(node.pointee.accumulatesFrom))
    }
}

enum GlobalAvgPool: Layer {
    static let traits = LayerTraits()

    static func describe(_ node: inout Node, _ layer: mest_layer, _ plan: Plan, _ message: Message) throws(Status) {
        node.channels = plan.nodes[int(node.from)].channels
    }

    static func forward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        mestk_global_pool_forward(
            model.kernels, model.inputShape(node), model.inputRaw(node), model.floats(node.pointee.output))
    }

    static func backward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        guard let dx = model.inputGradient(node) else { return }
        mestk_global_pool_backward(
            model.kernels, model.inputShape(node), model.floats(node.pointee.gradient), dx,
            model.adds(node.pointee.accumulatesFrom))
    }
}
