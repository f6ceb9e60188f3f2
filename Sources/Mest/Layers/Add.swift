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
        mestk_add(
            model.kernels, mestk_floats(model.shape(node)), model.input(node),
            model.floats(model.nodes[int(n.with)].output), model.floats(n.output))
    }

    static func backward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        let n = node.pointee
        let dy = model.floats(n.gradient)
        let floats = mestk_floats(model.shape(node))
        if let da = model.inputGradient(node), !n.gradientInPlace {
            mestk_copy(model.kernels, floats, dy, da, model.adds(n.accumulatesFrom))
        }
        if let db = model.optional(model.nodes[int(n.with)].gradient) {
            mestk_copy(model.kernels, floats, dy, db, model.adds(n.accumulatesWith))
        }
    }
}
