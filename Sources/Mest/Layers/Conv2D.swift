// SPDX-License-Identifier: Apache-2.0
// Conv2D: cross-correlation with zero padding; weights [outputs][inputs][kernel_h][kernel_w], sparse
// or dense, as a matrix of outputs x (inputs * kernel). Where groups say so: DepthwiseConv2D.swift.

import CMest
import CMestKernels

enum Conv2D: Layer {
    static let traits = LayerTraits(backwardReadsInput: true)

    static func describe(_ node: inout Node, _ layer: mest_layer, _ plan: Plan, _ message: Message) throws(Status) {
        try describeWindow(&node, layer, strideDefault: 1, plan, message)
        if layer.dilation_h > 1 || layer.dilation_w > 1 {
            throw plan.layer(int(node.index), message).text(": dilation above 1 is not in this version").as(.unsupported)
        }
        if layer.groups > 1 { return try DepthwiseConv2D.describe(&node, layer, plan, message) }
        let inputs = plan.nodes[int(node.from)].channels
        let taps = node.geometry.kernel_h &* node.geometry.kernel_w
        try plan.describeMatrix(&node, layer, inputs: inputs, taps: taps, message)
        node.geometry.out.channels = node.channels
        // The kernels address the packed strip of one thread with 31 bits.
        var geometry = node.geometry
        let strip = max(mestk_conv_forward_scratch(&geometry, 1, 0), mestk_conv_backward_scratch(&geometry, 1, 1, 0))
        if strip > int64(Int32.max) {
            throw plan.layer(int(node.index), message).text(": a strip of ").integer(strip)
                .text(" packed values is larger than 2^31 - 1; use a smaller picture, kernel or batch").as(.unsupported)
        }
    }

    static func scratch(_ node: Node, _ plan: Plan) -> Int64 {
        if node.isDepthwise { return DepthwiseConv2D.scratch(node, plan) }
        var geometry = node.geometry
        let copied = node.sparse && !node.isThin && (node.unit == 1 || isRunScheme(node.scheme))
        return mestk_conv_forward_scratch(&geometry, plan.threads, copied ? node.weight.capacity : 0) &* 4
    }

    static func backwardScratch(_ node: Node, _ plan: Plan) -> Int64 {
        if node.isDepthwise { return DepthwiseConv2D.backwardScratch(node, plan) }
        var geometry = node.geometry
        let chunks = int32(plan.config.gradient_chunks)
        return mestk_conv_backward_scratch(&geometry, plan.threads, chunks, node.weight.capacity) &* 4
    }

    /// What the outputs begin with, and where the sums go that a batch norm behind needs.
    static func surroundings(
        _ model: Model, _ n: Node, _ pass: Pass
    ) -> (start: UnsafeMutablePointer<Float>?, sums: UnsafeMutablePointer<Double>?) {
        let bias = model.optional(n.bias.value)
        if n.normedBy < 0 { return (bias, nil) }
        // Stored relative to the running mean: CMestKernels/include/norm.h.
        let norm = model.nodes[int(n.normedBy)]
        let centred = model.floats(n.start), centre = model.floats(norm.runningMean)
        for c in 0..<int(norm.channels) { centred[c] = (bias.map { $0[c] } ?? 0) - centre[c] }
        return (centred, pass.training && !pass.recomputing && !norm.frozen ? model.at(norm.sums, Double.self) : nil)
    }

    static func forward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        let (start, sums) = surroundings(model, node.pointee, pass)
        if node.pointee.isDepthwise { return DepthwiseConv2D.forward(model, node, pass, start, sums) }
        withScheme(node.pointee, ConvForward(model: model, node: node, pass: pass, start: start, sums: sums))
    }

    static func backward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        if node.pointee.isDepthwise { return DepthwiseConv2D.backward(model, node, pass) }
        withScheme(node.pointee, ConvBackward(model: model, node: node, pass: pass))
    }
}

/// Kernel, stride, padding and the output's size: shared by convolution and pools.
func describeWindow(
    _ node: inout Node, _ layer: mest_layer, strideDefault: UInt32, _ plan: Plan, _ message: Message
) throws(Status) {
    let i = int(node.index)
    let input = plan.nodes[int(node.from)]
    let kernelH = layer.kernel_h
    let kernelW = layer.kernel_w == 0 ? kernelH : layer.kernel_w
    let strideH = layer.stride_h == 0 ? (strideDefault == 0 ? kernelH : strideDefault) : layer.stride_h
    let strideW = layer.stride_w == 0 ? (layer.stride_h == 0 ? (strideDefault == 0 ? kernelW : strideDefault) : strideH) : layer.stride_w
    if kernelH == 0 || kernelH > 255 || kernelW > 255 || strideH > 255 || strideW > 255 {
        throw plan.layer(i, message).text(": kernel ").integer(kernelH).text(" x ").integer(kernelW)
            .text(", stride ").integer(strideH).text(" x ").integer(strideW).text("; use 1 to 255").as(.argument)
    }
    if layer.pad_h >= kernelH || layer.pad_w >= kernelW {
        throw plan.layer(i, message).text(": padding ").integer(layer.pad_h).text(" x ").integer(layer.pad_w)
            .text(" must be smaller than the kernel ").integer(kernelH).text(" x ").integer(kernelW).as(.argument)
    }
    let spanH = input.height &+ 2 &* int32(layer.pad_h) &- int32(kernelH)
    let spanW = input.width &+ 2 &* int32(layer.pad_w) &- int32(kernelW)
    if spanH < 0 || spanW < 0 {
        throw plan.layer(i, message).text(": kernel ").integer(kernelH).text(" x ").integer(kernelW)
            .text(" is larger than its padded input ").integer(input.height).text(" x ").integer(input.width).as(.shape)
    }
    node.takeShape(of: input)
    node.height = spanH / int32(strideH) &+ 1
    node.width = spanW / int32(strideW) &+ 1
    node.geometry = mestk_conv(
        in: input.shape(lanes: plan.lanes, blocks: plan.blocks),
        out: node.shape(lanes: plan.lanes, blocks: plan.blocks),
        kernel_h: int32(kernelH), kernel_w: int32(kernelW),
        stride_h: int32(strideH), stride_w: int32(strideW),
        pad_h: int32(layer.pad_h), pad_w: int32(layer.pad_w))
}
