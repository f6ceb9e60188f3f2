// SPDX-License-Identifier: Apache-2.0
// Dropout: training zeroes each value with probability `rate` and divides the others by 1 - rate. The
// mask is a pure function of (seed, layer, training pass, position) and drawn again in backward.

import CMest
import CMestKernels

enum Dropout: Layer {
    static let traits = LayerTraits(inPlace: true, inPlaceBackward: true)

    static func describe(_ node: inout Node, _ layer: mest_layer, _ plan: Plan, _ message: Message) throws(Status) {
        if !(layer.rate >= 0 && layer.rate < 1) {
            throw plan.layer(int(node.index), message).text(": rate is ").real(layer.rate).text("; use 0 to below 1").as(.argument)
        }
        node.takeShape(of: plan.nodes[int(node.from)])
        node.rate = layer.rate
    }

    private static func key(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) -> UInt64 {
        streamKey(model.config.seed, .dropout, layer: int(node.pointee.index), number: pass.number)
    }

    static func forward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        let n = node.pointee
        let x = model.inputRaw(node)
        let y = model.raw(n.output)
        if pass.training && !n.frozen && n.rate > 0 {
            mestk_dropout(model.kernels, model.shape(node), key(model, node, pass), n.rate, x, y, 0)
        } else if !n.inPlace {
            var v = model.operand(int(n.from))
            mestk_evaluate(model.kernels, model.shape(node), &v, y)
        }
    }

    static func backward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        guard let dx = model.inputGradient(node) else { return }
        let n = node.pointee
        let dy = model.raw(n.gradient)
        if n.rate > 0 {
            mestk_dropout(
                model.kernels, model.shape(node), key(model, node, pass), n.rate, dy, dx, model.adds(n.accumulatesFrom))
        } else if !n.gradientInPlace {
            var v = model.gradientOperand(int(n.index))
            if n.accumulatesFrom { v.r = UnsafeRawPointer(dx) }
            mestk_evaluate(model.kernels, model.shape(node), &v, dx)
        }
    }
}
