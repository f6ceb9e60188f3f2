// SPDX-License-Identifier: Apache-2.0
// Importance of a connection: |w| + lambda * g (paper eq. 1), g from the last update's gradient, its
// running mean, or the momentum buffer; of a unit of several: the Euclidean norm of theirs. Computed when
// asked, stored nowhere.

import CMest
import CMestKernels

struct Importance {
    private let value: UnsafeMutablePointer<Float>
    private let source: UnsafeMutablePointer<Float>?
    private let weightFactor: Float
    private let gradientFactor: Float
    private let width: Int

    init(_ model: Model, _ node: UnsafeMutablePointer<Node>) {
        let config = model.config
        let weight = node.pointee.weight
        value = model.floats(weight.value)
        width = int(node.pointee.unit)
        var factor = config.importance_lambda
        switch int(config.importance_gradient) {
        case MEST_GRADIENT_EMA: source = factor > 0 ? model.optional(weight.average) : nil
        case MEST_GRADIENT_MOMENTUM:
            source = factor > 0 ? model.optional(weight.momentum) : nil
            factor *= 1 - config.momentum
        default: source = factor > 0 ? model.optional(weight.gradient) : nil
        }
        var ofWeight: Float = 1
        if config.mutation_flags & UInt32(MEST_MUTATION_NORMALISED) != 0 {
            let stored = model.weightCount(node.pointee)
            let n = int64(node.pointee.active)
            ofWeight = Importance.inverseMean(model, value, stored, n)
            factor = config.importance_lambda * (source.map { Importance.inverseMean(model, $0, stored, n) } ?? 0)
        }
        weightFactor = ofWeight
        gradientFactor = factor
    }

    /// Of unit j; >= 0, so its bits order as it does.
    subscript(_ j: Int) -> Float {
        if width == 1 { return ofWeight(j) }
        var sum = 0.0
        for i in 0..<width {
            let part = Double(ofWeight(j &* width &+ i))
            sum += part * part
        }
        return mestk_float_double(mestk_sqrt_double(sum))
    }

    @inline(__always)
    func ofWeight(_ i: Int) -> Float {
        let weight = weightFactor * value[i].magnitude
        guard let source else { return weight }
        return weight + gradientFactor * source[i].magnitude
    }

    /// n: of the stored values, how many exist; the others are 0.
    private static func inverseMean(
        _ model: Model, _ x: UnsafeMutablePointer<Float>, _ stored: Int64, _ n: Int64
    ) -> Float {
        let sum = mestk_sum_of_magnitudes(model.kernels, stored, x)
        return sum > 0 ? mestk_float_double(mestk_double_u64(uint64(n)) / sum) : 0
    }
}
