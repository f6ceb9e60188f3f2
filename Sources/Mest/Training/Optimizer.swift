// SPDX-License-Identifier: Apache-2.0
// Optimizer: SGD with momentum, Nesterov, weight decay and clipping by the global norm, over the
// parameters that exist and no others.

import CMest
import CMestKernels

extension Model {
    /// Euclidean norm of the whole gradient, tensor by tensor in order.
    func gradientNorm() -> Float {
        var sum = 0.0
        for i in 0..<state.pointee.plan.count {
            let n = nodes[i]
            if n.weight.exists { sum += mestk_sum_of_squares(weightCount(n), floats(n.weight.gradient)) }
            if n.bias.exists { sum += mestk_sum_of_squares(n.bias.capacity, floats(n.bias.gradient)) }
        }
        return mestk_float_double(mestk_sqrt_double(sum))
    }

    /// Applies the gathered gradient.
    func update(learningRate: Float, gradientNorm: Float) {
        let config = config
        var sgd = mestk_sgd(
            learning_rate: learningRate, momentum: config.momentum, weight_decay: config.weight_decay, scale: 1,
            nesterov: config.optimizer_flags & UInt32(MEST_SGD_NESTEROV) != 0 ? 1 : 0)
        if config.clip_norm > 0 { sgd.scale = min(1, config.clip_norm / (gradientNorm + 1e-6)) }
        var undecayed = sgd
        undecayed.weight_decay = 0

        for i in 0..<state.pointee.plan.count {
            let n = nodes[i]
            let isNorm = n.kind == .batchNorm
            let sparesNorm = isNorm && config.optimizer_flags & UInt32(MEST_NO_DECAY_NORM) != 0
            let sparesBias = !isNorm && config.optimizer_flags & UInt32(MEST_NO_DECAY_BIAS) != 0
            if n.weight.average.exists {
                mestk_gradient_average(
                    kernels, weightCount(n), config.importance_beta, floats(n.weight.gradient), floats(n.weight.average))
            }
            if n.weight.exists {
                mestk_sgd_update(
                    kernels, weightCount(n), sparesNorm ? undecayed : sgd, floats(n.weight.gradient),
                    floats(n.weight.value), floats(n.weight.momentum))
            }
            if n.bias.exists {
                mestk_sgd_update(
                    kernels, n.bias.capacity, sparesNorm || sparesBias ? undecayed : sgd, floats(n.bias.gradient),
                    floats(n.bias.value), floats(n.bias.momentum))
            }
        }
    }
}
