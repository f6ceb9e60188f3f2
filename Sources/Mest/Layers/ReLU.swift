// SPDX-License-Identifier: Apache-2.0
// ReLU: y = max(x, 0), in place where nobody else reads x. Backward reads the sign of y.

import CMest
import CMestKernels

enum ReLU: Layer {
    static let traits = LayerTraits(inPlace: true, inPlaceBackward: true, backwardReadsOutput: true)

    static func describe(_ node: inout Node, _ layer: mest_layer, _ plan: Plan, _ message: Message) throws(Status) {
        node.takeShape(of: plan.nodes[int(node.from)])
    }

    static func forward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        mestk_relu_forward(
            model.kernels, mestk_floats(model.shape(node)), model.input(node), model.floats(node.pointee.output))
    }

    static func backward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        guard let dx = model.inputGradient(node) else { return }
        mestk_relu_backward(
            model.kernels, mestk_floats(model.shape(node)), model.floats(node.pointee.output),
            model.floats(node.pointee.gradient), dx, model.adds(node.pointee.accumulatesFrom))
    }
}
