// SPDX-License-Identifier: Apache-2.0
// Linear: y = W x + b over features (1 x 1 pixels); W [outputs][inputs], sparse or dense.

import CMest
import CMestKernels

enum Linear: Layer {
    static let traits = LayerTraits(backwardReadsInput: true, storesFirstGradient: true)

    static func describe(_ node: inout Node, _ layer: mest_layer, _ plan: Plan, _ message: Message) throws(Status) {
        let input = plan.nodes[int(node.from)]
        if input.pixels != 1 {
            throw plan.layer(int(node.index), message).text(" takes features, its input has ").integer(input.height)
                .text(" x ").integer(input.width).text(" pixels; put FLATTEN or GLOBAL_AVG_POOL before it").as(.shape)
        }
        if input.format != int32(MESTK_F32) {
            throw plan.layer(int(node.index), message)
                .text(" reads a picture of one pixel, stored as bf16; put FLATTEN before it").as(.shape)
        }
        try plan.describeMatrix(&node, layer, inputs: input.channels, taps: 1, message)
    }

    static func forward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        withScheme(node.pointee, LinearForward(model: model, node: node))
    }

    static func backward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        withScheme(node.pointee, LinearBackward(model: model, node: node, pass: pass))
    }
}
