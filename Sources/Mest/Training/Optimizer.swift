// SPDX-License-Identifier: Apache-2.0
// Optimizer: SGD with momentum, Nesterov, weight decay and clipping by the global norm, over the
// parameters that exist and are not frozen, and no others.

import CMest
import CMestKernels

/// An update that may be applied: its numbers are known to be finite.
struct Update {
    var learningRate: Float
    var norm: Float     // of the mean gradient, before clipping
    var scale: Float    // of the gathered gradient: clipping, and the mean over fewer micro-batches
}

extension Model {
    /// Checks the gathered gradient. Micro-batches were each divided by config.micro_batches.
    func prepareUpdate(microBatches: UInt32) throws(Status) -> Update {
        let mean = Float(int(config.micro_batches)) / Float(int(microBatches))
        let norm = mean * gradientNorm()
        if !norm.isFinite { throw diverged("gradient") }
        let clip = config.clip_norm > 0 ? min(1, config.clip_norm / (norm + 1e-6)) : 1
        let update = Update(learningRate: learningRate, norm: norm, scale: mean * clip)
        // Far from overflow, momentum included: weights stay finite.
        if !(update.learningRate * (norm * clip + decayNorm(update.learningRate)) < 1e30) { throw diverged("update") }
        return update
    }

    /// Norm of weight_decay * weights where that could let them grow; 0 where it only shrinks them.
    private func decayNorm(_ learningRate: Float) -> Float {
        if learningRate * config.weight_decay < 0.5 * (1 - config.momentum) { return 0 }
        var sum = 0.0
        for i in 0..<count where !nodes[i].frozen {
            let n = nodes[i]
            if n.weight.exists { sum += mestk_sum_of_squares(kernels, weightCount(n), floats(n.weight.value)) }
            if n.bias.exists { sum += mestk_sum_of_squares(kernels, biasCount(n), floats(n.bias.value)) }
        }
        return config.weight_decay * mestk_float_double(mestk_sqrt_double(sum))
    }

    func diverged(_ what: StaticString) -> Status {
        message.start("not finite: ").text(what)
            .text("; the step was not applied. Create the model with a lower learning_rate or with clip_norm").as(.diverged)
    }

    /// Euclidean norm of the whole gradient, tensor by tensor in order.
    private func gradientNorm() -> Float {
        var sum = 0.0
        for i in 0..<count where !nodes[i].frozen {
            let n = nodes[i]
            if n.weight.exists { sum += mestk_sum_of_squares(kernels, weightCount(n), floats(n.weight.gradient)) }
            if n.bias.exists { sum += mestk_sum_of_squares(kernels, biasCount(n), floats(n.bias.gradient)) }
        }
        return mestk_float_double(mestk_sqrt_double(sum))
    }

    private func countUpdate() {
        state.pointee.updates &+= 1
        state.pointee.stepsInEpoch &+= 1
        state.pointee.gathered = 0
    }

    /// Connections move in place of the update, which counts all the same.
    func applyMove() {
        moveByGradient()
        countUpdate()
        tellMoves()
    }

    /// Applies the gathered gradient.
    func apply(_ update: Update) {
        let config = config
        let sgd = mestk_sgd(
            learning_rate: update.learningRate, momentum: config.momentum, weight_decay: config.weight_decay,
            scale: update.scale, nesterov: config.optimizer_flags & UInt32(MEST_SGD_NESTEROV) != 0 ? 1 : 0)
        var undecayed = sgd
        undecayed.weight_decay = 0
        countUpdate()
        for i in 0..<count where !nodes[i].frozen {
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
                    kernels, biasCount(n), sparesNorm || sparesBias ? undecayed : sgd, floats(n.bias.gradient),
                    floats(n.bias.value), floats(n.bias.momentum))
            }
        }
    }
}
