// SPDX-License-Identifier: Apache-2.0
// BatchNorm: per channel over samples and pixels (Ioffe & Szegedy 2015). Training uses the batch's
// statistics and leaves them in batchMean and batchVariance; commit() moves the running ones towards
// them once the step is known to succeed. Frozen, it takes the running ones, as prediction does.

import CMest
import CMestKernels

enum BatchNorm: Layer {
    static let traits = LayerTraits(inPlaceBackward: true, backwardReadsInput: true)

    static func describe(_ node: inout Node, _ layer: mest_layer, _ plan: Plan, _ message: Message) throws(Status) {
        if !(layer.momentum >= 0 && layer.momentum <= 1) || !(layer.epsilon >= 0 && layer.epsilon.isFinite) {
            throw plan.layer(int(node.index), message).text(": use momentum 0 to 1 and epsilon above 0").as(.argument)
        }
        if layer.flags & ~UInt32(MEST_FLAG_NO_AFFINE) != 0 {
            throw plan.layer(int(node.index), message).text(": flags are ").integer(layer.flags)
                .text("; BATCH_NORM has MEST_FLAG_NO_AFFINE alone").as(.argument)
        }
        node.takeShape(of: plan.nodes[int(node.from)])
        node.statistics = node.channels
        node.momentum = layer.momentum == 0 ? 0.1 : layer.momentum
        node.epsilon = layer.epsilon == 0 ? 1e-5 : layer.epsilon
        node.flags = layer.flags
        if layer.flags & UInt32(MEST_FLAG_NO_AFFINE) == 0 {
            node.weight.capacity = int64(node.channels)
            node.bias.capacity = int64(node.channels)
        }
    }

    static func forward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        let n = node.pointee
        let i = int(n.index)
        let pivot = model.floats(n.runningMean)
        var mean = pivot
        var variance = model.floats(n.runningVariance)
        let ofBatch = pass.training && !n.frozen
        if ofBatch && pass.recomputing {
            mean = model.floats(n.batchMean)
            variance = model.floats(n.batchVariance)
        } else if ofBatch {
            let sums = model.at(n.sums, Double.self)
            if centre(model, n) == nil {
                mestk_norm_moments(model.kernels, model.shape(node), pass.count, model.inputRaw(node), pivot, sums)
            }
            mean = model.floats(n.batchMean)
            variance = model.floats(n.batchVariance)
            mestk_norm_statistics(model.shape(node), pass.count, sums, pivot, mean, variance)
        }
        mestk_norm_constants(
            n.channels, mean, variance, n.epsilon, model.optional(n.weight.value), model.optional(n.bias.value),
            centre(model, n), model.constant(i, .a), model.constant(i, .b))
        if n.isVirtual { return }
        var v = mestk_operand()
        v.x = UnsafeRawPointer(model.inputRaw(node))
        v.a = UnsafePointer(model.constant(i, .a))
        v.b = UnsafePointer(model.constant(i, .b))
        mestk_evaluate(model.kernels, model.shape(node), &v, model.raw(n.output))
    }

    /// What was taken off the values that are stored: by the convolution before.
    private static func centre(_ model: Model, _ n: Node) -> UnsafeMutablePointer<Float>? {
        model.nodes[int(n.from)].normedBy == n.index ? model.floats(n.runningMean) : nil
    }

    static func backward(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        let n = node.pointee
        let i = int(n.index)
        if n.summedBy == n.index {
            var y = mestk_operand()
            var gradient = model.completes(i, by: i, accumulate: false)
            mestk_finish_gradient(model.kernels, model.shape(node), &y, &gradient)
        }
        mestk_norm_gradient(
            model.shape(node), pass.count, model.at(n.backwardSums, Double.self), model.floats(n.batchMean),
            model.floats(n.batchVariance), n.epsilon, model.optional(n.weight.value), centre(model, n),
            model.gradientConstant(i, .a), model.gradientConstant(i, .b), model.gradientConstant(i, .c),
            model.optional(n.weight.gradient), model.optional(n.bias.gradient))
        if model.nodes[int(n.from)].gradientVirtual { return }
        guard let dx = model.inputGradient(node) else { return }
        var v = model.normGradient(i)
        mestk_norm_backward(model.kernels, model.shape(node), pass.count, &v, dx, model.adds(n.accumulatesFrom))
    }

    /// Whether the statistics of the last training pass may be kept.
    static func isFinite(_ model: Model, _ node: UnsafeMutablePointer<Node>) -> Bool {
        let n = node.pointee
        return mestk_first_not_finite(model.floats(n.batchMean), int64(n.statistics)) < 0
            && mestk_first_not_finite(model.floats(n.batchVariance), int64(n.statistics)) < 0
    }

    /// running = (1 - momentum) * running + momentum * batch; the variance unbiased, n / (n - 1).
    static func commit(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        let n = node.pointee
        let samples = int64(pass.count) &* n.pixels
        let unbiased = samples > 1 ? Float(int(samples)) / Float(int(samples &- 1)) : 1
        let mean = model.floats(n.runningMean), batchMean = model.floats(n.batchMean)
        let variance = model.floats(n.runningVariance), batchVariance = model.floats(n.batchVariance)
        for c in 0..<int(n.statistics) {
            mean[c] = (1 - n.momentum) * mean[c] + n.momentum * batchMean[c]
            variance[c] = (1 - n.momentum) * variance[c] + n.momentum * (batchVariance[c] * unbiased)
        }
    }
}
