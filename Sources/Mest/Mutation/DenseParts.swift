// SPDX-License-Identifier: Apache-2.0
// A sparse layer as the dense one of its first values, some outputs at a time forward, some inputs at a time backward,
// so that its weights and their gradient never exist as a whole. Some rows of a dense matrix, or the columns of some
// inputs, are a dense matrix again: the kernels are the layer's own, and the channels of that part are copied out of
// the tensors and back. Outputs and the gradients of inputs and weights are each one sum over what the part has whole:
// the bits are those of the dense network, however large a part is.

import CMest
import CMestKernels

/// Where some outputs of a layer are computed; offsets from its scratch.
struct ForwardPart {
    let rows: Int32
    let value, output, sums, kernel, end: Int64
}

/// Where the gradients of some inputs and of their weights are; offsets from the layer's backward scratch.
struct BackwardPart {
    let inputs: Int32
    let value, gradient, x, r, dx, candidates, kernel, end: Int64
}

// MARK: - Plan

extension Plan {
    func inputShape(_ node: Node) -> mestk_shape { nodes[int(node.from)].shape(lanes: lanes, blocks: blocks) }

    /// About as many positions as the target has connections; of a full batch.
    func forwardPart(_ node: Node) -> ForwardPart {
        let rows = int32(int(min(int64(node.rows), max(1, targetUnits(node) / int64(node.columns)))))
        var output = node.shape(lanes: lanes, blocks: blocks)
        output.channels = rows
        var cursor = Cursor(offset: 0)
        let value = cursor.take(int64(rows) &* int64(node.columns) &* 4).offset
        let place = cursor.take(mestk_bytes(output)).offset
        let sums = cursor.take(node.normedBy >= 0 ? int64(mestk_strips(output)) &* int64(rows) &* 16 : 0).offset
        let kernel = cursor.offset
        if node.kind == .conv2D {
            var geometry = node.geometry
            geometry.out.channels = rows
            _ = cursor.take(mestk_conv_forward_scratch(&geometry, threads, 0) &* 4)
        }
        return ForwardPart(rows: rows, value: value, output: place, sums: sums, kernel: kernel, end: cursor.offset)
    }

    func backwardPart(_ node: Node) -> BackwardPart {
        let height = int64(node.rows) &* int64(node.taps)  // positions of an input
        let inputs = int32(int(min(int64(node.inputs), max(1, targetUnits(node) / height))))
        var input = inputShape(node)
        input.channels = inputs
        let from = nodes[int(node.from)]
        let positions = int64(inputs) &* height
        var cursor = Cursor(offset: 0)
        let value = cursor.take(positions &* 4).offset
        let gradient = cursor.take(positions &* 4).offset
        let x = cursor.take(mestk_bytes(input)).offset
        let r = cursor.take(from.isVirtual ? mestk_bytes(input) : 0).offset
        let dx = cursor.take(from.trains ? mestk_bytes(input) : 0).offset
        let candidates = cursor.take(Candidates.bytes(node.weight.capacity, tight: true)).offset
        let kernel = cursor.offset
        if node.kind == .conv2D {
            var geometry = node.geometry
            geometry.in.channels = inputs
            let chunks = int32(config.gradient_chunks)
            _ = cursor.take(mestk_conv_backward_scratch(&geometry, threads, chunks, positions) &* 4)
        }
        return BackwardPart(
            inputs: inputs, value: value, gradient: gradient, x: x, r: r, dx: dx, candidates: candidates, kernel: kernel,
            end: cursor.offset)
    }

    func forwardPartScratch(_ node: Node) -> Int64 { scoresAll && node.sparse ? forwardPart(node).end : 0 }
    func backwardPartScratch(_ node: Node) -> Int64 { scoresAll && node.sparse ? backwardPart(node).end : 0 }
}

// MARK: - Forward

extension Model {
    func forwardInParts(_ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        let n = node.pointee, part = state.pointee.plan.forwardPart(n)
        let output = raw(n.scratch) + int(part.output)
        var start = optional(n.bias.value), sums: UnsafeMutablePointer<Double>?
        if n.kind == .conv2D { (start, sums) = Conv2D.surroundings(self, n, pass) }
        var values = FirstValues(self, n)
        var first: Int32 = 0
        while first < n.rows {
            let rows = min(part.rows, n.rows &- first)
            let value = room(n.scratch, part.value, Float.self)
            values.fill(value, from: int64(first) &* int64(n.columns), int(rows &* n.columns))
            var weights = matrix(rows, n.inputs, n.taps, value)
            let begin = start.map { UnsafePointer($0 + int(first)) }
            if n.kind == .conv2D {
                var geometry = n.geometry
                geometry.out.channels = rows
                var x = operand(int(n.from))
                let partSums = sums == nil ? nil : room(n.scratch, part.sums, Double.self)
                mestk_conv_forward(
                    kernels, &geometry, &weights, begin, &x, output, pass.count, partSums,
                    room(n.scratch, part.kernel, Float.self))
                if let sums, let partSums { putSums(partSums, rows, into: sums, n, first) }
            } else {
                mestk_linear_forward(
                    kernels, blocks, lanes, &weights, begin, input(node), output.assumingMemoryBound(to: Float.self))
            }
            mestk_put_channels(kernels, shape(node), raw(n.output), first, rows, output)
            first &+= rows
        }
    }

    /// [strip][row][2] of some rows.
    private func putSums(
        _ part: UnsafeMutablePointer<Double>, _ rows: Int32, into sums: UnsafeMutablePointer<Double>, _ n: Node,
        _ first: Int32
    ) {
        for strip in 0..<int(mestk_strips(n.shape(lanes: lanes, blocks: blocks))) {
            let to = sums + 2 &* (strip &* int(n.rows) &+ int(first))
            for i in 0..<(2 &* int(rows)) { to[i] = part[strip &* 2 &* int(rows) &+ i] }
        }
    }

    private func room<T>(_ scratch: Place, _ offset: Int64, _ type: T.Type) -> UnsafeMutablePointer<T> {
        at(Place(offset: scratch.offset &+ offset), type)
    }

    private func matrix(_ rows: Int32, _ inputs: Int32, _ taps: Int32, _ value: UnsafePointer<Float>) -> mestk_weights {
        var weights = mestk_weights()
        weights.rows = rows
        weights.channels = inputs
        weights.taps = taps
        weights.group = 1
        weights.value = value
        return weights
    }
}

// MARK: - Backward

extension Model {
    /// The gradient of the layer's input; and score(value, gradient, position) of every weight.
    func backwardInParts(
        _ node: UnsafeMutablePointer<Node>, _ pass: Pass, score: (Float, Float, Int64) -> Void
    ) {
        let n = node.pointee, part = state.pointee.plan.backwardPart(n)
        let value = room(n.backwardScratch, part.value, Float.self)
        let gradient = room(n.backwardScratch, part.gradient, Float.self)
        var values = FirstValues(self, n)
        var first: Int32 = 0
        while first < n.inputs {
            let inputs = min(part.inputs, n.inputs &- first)
            let width = int(inputs &* n.taps), column = int64(first) &* int64(n.taps)
            for r in 0..<int(n.rows) {
                values.fill(value + r &* width, from: int64(r) &* int64(n.columns) &+ column, width)
            }
            backward(node, first, inputs, part, pass)
            for r in 0..<int(n.rows) {
                let position = int64(r) &* int64(n.columns) &+ column
                for c in 0..<width { score(value[r &* width &+ c], gradient[r &* width &+ c], position &+ int64(c)) }
            }
            first &+= inputs
        }
        if n.kind == .conv2D {
            // What the convolution's epilogue does where it has the whole tensor.
            let from = int(n.from)
            var x = operand(from), gradient = completes(from, by: int(n.index), accumulate: n.accumulatesFrom)
            if gradient.dx != nil { mestk_finish_gradient(kernels, shape(nodes + from), &x, &gradient) }
        }
    }

    /// dw of the inputs first ..< first + inputs, [row][column of the part], into the scratch; their dx.
    private func backward(
        _ node: UnsafeMutablePointer<Node>, _ first: Int32, _ inputs: Int32, _ part: BackwardPart, _ pass: Pass
    ) {
        let n = node.pointee, whole = inputShape(node)
        let value = room(n.backwardScratch, part.value, Float.self)
        let gradient = room(n.backwardScratch, part.gradient, Float.self)
        var weights = matrix(n.rows, inputs, n.taps, value)
        var x = operand(int(n.from))
        take(&x.x, part.x, n, whole, first, inputs)
        take(&x.r, part.r, n, whole, first, inputs)
        let dx = inputGradient(node)
        let partDx = dx == nil ? nil : raw(n.backwardScratch) + int(part.dx)
        if let dx, let partDx, n.accumulatesFrom { mestk_take_channels(kernels, whole, dx, first, inputs, partDx) }
        if n.kind == .conv2D {
            if let a = x.a { x.a = a + int(first) }
            if let b = x.b { x.b = b + int(first) }
            if let c = x.c { x.c = c + int(first) }
            var geometry = n.geometry
            geometry.in.channels = inputs
            var dy = gradientOperand(int(n.index)), plain = mestk_gradient()
            plain.dx = partDx
            plain.accumulate = adds(n.accumulatesFrom)
            for i in 0..<int(n.rows &* inputs &* n.taps) { gradient[i] = 0 }
            mestk_conv_backward(
                kernels, &geometry, &weights, &x, &dy, pass.count, &plain, gradient, nil, int32(config.gradient_chunks),
                room(n.backwardScratch, part.kernel, Float.self))
        } else {
            mestk_linear_backward(
                kernels, blocks, lanes, &weights, x.x.assumingMemoryBound(to: Float.self), floats(n.gradient),
                partDx?.assumingMemoryBound(to: Float.self), adds(n.accumulatesFrom), gradient, nil, 0)
        }
        if let dx, let partDx { mestk_put_channels(kernels, whole, dx, first, inputs, partDx) }
    }

    /// Some channels of a tensor that an operand reads, if it does.
    private func take(
        _ tensor: inout UnsafeRawPointer?, _ offset: Int64, _ n: Node, _ whole: mestk_shape, _ first: Int32,
        _ channels: Int32
    ) {
        guard let from = tensor else { return }
        let to = raw(n.backwardScratch) + int(offset)
        mestk_take_channels(kernels, whole, from, first, channels, to)
        tensor = UnsafeRawPointer(to)
    }
}
