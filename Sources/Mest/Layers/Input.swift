// SPDX-License-Identifier: Apache-2.0
// Input: the caller's samples [sample][channel][row][column], gathered into the compute layout.

import CMest
import CMestKernels

enum Input: Layer {
    static let traits = LayerTraits()

    static func describe(_ node: inout Node, _ layer: mest_layer, _ plan: Plan, _ message: Message) throws(Status) {
        if layer.channels == 0 || layer.channels > 65536 || layer.height > 65536 || layer.width > 65536 {
            throw plan.layer(0, message).text(": use channels 1 to 65536, height and width up to 65536").as(.argument)
        }
        node.channels = int32(layer.channels)
        node.height = layer.height == 0 ? 1 : int32(layer.height)
        node.width = layer.width == 0 ? 1 : int32(layer.width)
        // Pictures may be stored as bf16; features, of which there are few, are floats.
        if plan.config.activations == MEST_ACTIVATIONS_BF16 && node.pixels > 1 { node.format = int32(MESTK_BF16) }
    }

    static func forward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        guard let x = model.state.pointee.batchInput else { return }
        mestk_gather(model.kernels, model.shape(node), x, pass.count, model.raw(node.pointee.output))
    }

    static func backward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {}
}
