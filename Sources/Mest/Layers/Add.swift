// SPDX-License-Identifier: Apache-2.0
// Add, the residual connection: y = from + with. The gradient goes to both unchanged.

import CMest
import CMestKernels

enum Add: Layer {
    static let traits = LayerTraits(inPlace: true, inPlaceBackward: true)

    static func describe(_ node: inout Node, _ layer: mest_layer, _ plan: Plan, _ message: Message) throws(Status) {
        let a = plan.nodes[int(node.from)], b = plan.nodes[int(node.with)]
        if a.channels != b.channels || a.height != b.height || a.width != b.width {
            throw plan.layer(int(node.index), message).text(" adds ").integer(a.channels).text(" x ").integer(a.height)
                .text(" x ").integer(a.width).text(" and ").integer(b.channels).text(" x ").integer(b.height).text(" x ")
                .integer(b.width).text("; the shapes must be equal").as(.shape)
        }
        node.takeShape(of: a)
    }

    static func forward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        let n = node.pointee
        if n.constants.exists {
            let b = model.floats(n.constants)
            let first = model.constant(int(n.from), .b), second = model.constant(int(n.with), .b)
            for c in 0..<int(n.channels) { b[c] = first[c] + second[c] }
        }
        if n.isVirtual { return }
        var v = model.sum(int(n.index))
        mestk_evaluate(model.kernels, model.shape(node), &v, model.raw(n.output))
    }

    static func backward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        let n = node.pointee
        if let da = model.inputGradient(node), !n.gradientInPlace {
            passOn(model, node, to: da, adds: n.accumulatesFrom)
        }
        if let db = model.optionalRaw(model.nodes[int(n.with)].gradient), !n.withInPlace {
            passOn(model, node, to: db, adds: n.accumulatesWith)
        }
    }

    private static func passOn(
        _ model: Model, _ node: UnsafeMutablePointer<Node>, to gradient: UnsafeMutableRawPointer, adds: Bool
    ) {
        var dy = mestk_operand()
        dy.x = UnsafeRawPointer(model.raw(node.pointee.gradient))
        if adds { dy.r = UnsafeRawPointer(gradient) }
        mestk_evaluate(model.kernels, model.shape(node), &dy, gradient)
    }
}
