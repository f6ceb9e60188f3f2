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
        if node.pointee.isVirtual { return }
        var x = model.operand(int(node.pointee.from))
        x.relu = 1
        mestk_evaluate(model.kernels, model.shape(node), &x, model.raw(node.pointee.output))
    }

    static func backward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        let n = node.pointee
        guard n.finishedBy < 0, let dx = model.inputGradient(node) else { return }
        var y = model.operand(int(n.index))
        if n.gradientInPlace {
            var gradient = model.completes(int(n.index), by: int(n.index), accumulate: false)
            mestk_finish_gradient(model.kernels, model.shape(node), &y, &gradient)
        } else {
            mestk_relu_backward(
                model.kernels, model.shape(node), &y, model.raw(n.gradient), dx, model.adds(n.accumulatesFrom))
        }
    }
}
