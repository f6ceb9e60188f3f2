// SPDX-License-Identifier: Apache-2.0
// GraSP (Wang, Zhang, Grosse 2020) among random candidates: training begins with more connections than the target, and
// before the first step those leave without which the gradient's norm falls least, or even grows. Score of a weight:
// w * (H g), H the Hessian of the loss, g its gradient, on that step's batch; the largest stay. H g is a difference
// of two gradients, on both sides of the weights along g.

import CMest
import CMestKernels

extension Plan {
    /// Of the candidates: initial_density, or four times the target.
    func candidateDensity(_ target: Ratio) -> Ratio {
        let given = config.initial_density > 0 ? Ratio(config.initial_density).billionths : 4 &* target.billionths
        return Ratio(billionths: max(target.billionths, min(given, Ratio.one.billionths)))
    }
}

extension Model {
    /// What cross-entropy divides the outputs by, as the authors do.
    var temperature: Float { 200 }

    /// Norm of the step along g, as a share of that of the weights. A shorter one crosses so few of ReLU's kinks that
    /// chance decides which; on a longer one the curvature changes.
    private var reach: Double { 0.0625 }

    /// The weights wait where momentum will be.
    func goAhead() throws(Status) {
        let length = try stepLength()
        forEachWeight { weight, j in
            weight.momentum[j] = weight.value[j]
            weight.value[j] += length * weight.gradient[j]
        }
    }

    /// What is gathered there adds to the negative of what was gathered ahead.
    func goBehind() {
        forEachWeight { weight, j in
            weight.gradient[j] = -weight.gradient[j]
            weight.value[j] = weight.momentum[j] - (weight.value[j] - weight.momentum[j])
        }
    }

    /// The weights are again as they were, to the bit.
    func comeBack() {
        forEachWeight { weight, j in
            weight.value[j] = weight.momentum[j]
            weight.momentum[j] = 0
        }
        state.pointee.step.stage = .here
    }

    /// Scores of the connections, instead of their gradients.
    func scoreCandidates() throws(Status) {
        var finite = true
        forEachWeight { weight, j in
            weight.gradient[j] *= -weight.value[j]
            finite = finite && weight.gradient[j].isFinite
        }
        if !finite { throw notFinite() }
        for i in 0..<count where nodes[i].sparse { nodes[i].scored = int32(nodes[i].units) }
    }

    func keepChosen(_ node: UnsafeMutablePointer<Node>, _ cut: inout Cut) {
        let store = Unstructured.store(self, node), rows = store.rows
        let score = floats(node.pointee.weight.gradient)
        let before = rows.count
        var cutting = cut
        rows.keep { _, j, _ in cutting.takes(falling(score[j])) }
        cut = cutting
        store.refresh()
        node.pointee.dropped = uint32(before &- rows.count)
        node.pointee.grown = 0
    }

    private struct Weights {
        let value, gradient, momentum: UnsafeMutablePointer<Float>
    }

    private func forEachWeight(_ body: (Weights, Int) -> Void) {
        for i in 0..<count where nodes[i].sparse {
            let weight = nodes[i].weight
            let arrays = Weights(
                value: floats(weight.value), gradient: floats(weight.gradient), momentum: floats(weight.momentum))
            for j in 0..<int(nodes[i].units) { body(arrays, j) }
        }
    }

    /// So many gradients along; 0 where there is none.
    private func stepLength() throws(Status) -> Float {
        var weights = 0.0, gradients = 0.0
        for i in 0..<count where nodes[i].sparse {
            let n = nodes[i]
            weights += mestk_sum_of_squares(kernels, weightCount(n), floats(n.weight.value))
            gradients += mestk_sum_of_squares(kernels, weightCount(n), floats(n.weight.gradient))
        }
        if !gradients.isFinite { throw notFinite() }
        if gradients == 0 { return 0 }
        return mestk_float_double(reach * mestk_sqrt_double(weights / gradients))
    }
}
