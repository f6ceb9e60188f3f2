// SPDX-License-Identifier: Apache-2.0
// Flatten: [channels][height][width] to channels * height * width features, in that order.

import CMest
import CMestKernels

enum Flatten: Layer {
    static let traits = LayerTraits()

    static func describe(_ node: inout Node, _ layer: mest_layer, _ plan: Plan, _ message: Message) throws(Status) {
        node.channels = int32(plan.nodes[int(node.from)].elements)
    }

    static func forward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        mestk_flatten_forward(
            model.kernels, model.inputShape(node), model.inputRaw(node), model.floats(node.pointee.output))
    }

    static func backward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        guard let dx = model.inputGradient(node) else { return }
        mestk_flatten_backward(
            model.kernels, model.inputShape(node), model.floats(node.pointee.gradient), dx,
            model.adds(node.pointee.accumulatesFrom))
    }
}
