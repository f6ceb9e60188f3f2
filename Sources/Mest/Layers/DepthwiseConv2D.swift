// SPDX-License-Identifier: Apache-2.0
// DepthwiseConv2D: a Conv2D with as many groups as channels, every channel on its own; weights
// [channels][kernel_h][kernel_w], as a matrix of channels x kernel, always dense: there are few of them, and
// an index would be as large. What goes before and after it is fused as for Conv2D.

import CMest
import CMestKernels

enum DepthwiseConv2D {
    /// Behind Conv2D.describe, which has the window.
    static func describe(_ node: inout Node, _ layer: mest_layer, _ plan: Plan, _ message: Message) throws(Status) {
        let i = int(node.index)
        let inputs = plan.nodes[int(node.from)].channels
        if layer.groups != uint32(inputs) || layer.channels != layer.groups {
            throw plan.layer(i, message).text(": groups is ").integer(layer.groups).text(" with ").integer(inputs)
                .text(" input and ").integer(layer.channels)
                .text(" output channels; use 1, or that many groups, inputs and outputs (depthwise)").as(.unsupported)
        }
        try plan.describeMatrix(&node, layer, inputs: 1, taps: node.geometry.kernel_h &* node.geometry.kernel_w, message)
        if layer.density != 0 && layer.density != 1 {
            throw plan.layer(i, message).text(": density is ").real(layer.density)
                .text(", but a depthwise convolution is dense; use 0 or 1").as(.unsupported)
        }
        if int(layer.scheme) > MEST_SCHEME_UNSTRUCTURED {
            throw plan.layer(i, message).text(": scheme is ").text(schemeName(layer.scheme))
                .text(", but a depthwise convolution is dense; leave scheme unset").as(.unsupported)
        }
        node.density = .one
        node.isDepthwise = true
        node.geometry.out.channels = node.channels
    }

    static func scratch(_ node: Node, _ plan: Plan) -> Int64 {
        var geometry = node.geometry
        return mestk_depthwise_forward_scratch(&geometry, plan.threads) &* 4
    }

    static func backwardScratch(_ node: Node, _ plan: Plan) -> Int64 {
        var geometry = node.geometry
        return mestk_depthwise_backward_scratch(&geometry, plan.threads, int32(plan.config.gradient_chunks)) &* 4
    }

    static func forward(
        _ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass, _ start: UnsafeMutablePointer<Float>?,
        _ sums: UnsafeMutablePointer<Double>?
    ) {
        let n = node.pointee
        var x = model.operand(int(n.from))
        mestk_depthwise_forward(
            model.kernels, model.geometry(node), model.floats(n.weight.value), start, &x, model.raw(n.output), pass.count,
            sums, model.floats(n.scratch))
    }

    static func backward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        let n = node.pointee
        var x = model.operand(int(n.from)), dy = model.gradientOperand(int(n.index))
        var dx = model.completes(int(n.from), by: int(n.index), accumulate: n.accumulatesFrom)
        mestk_depthwise_backward(
            model.kernels, model.geometry(node), model.floats(n.weight.value), &x, &dy, pass.count, &dx,
            model.floats(n.weight.gradient), model.optional(n.bias.gradient), int32(model.config.gradient_chunks),
            model.floats(n.backwardScratch))
    }
}
