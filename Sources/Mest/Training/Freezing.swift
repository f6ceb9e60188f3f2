// SPDX-License-Identifier: Apache-2.0
// Freezing (SpFDE: Yuan et al. 2022): front layers that have learned stop training, one after the other, while
// those behind them go on. The frozen ones are the first layers of the description: all that they read is
// frozen too, so they compute what prediction does, and no gradient is wanted in front of them.

import CMest
import CMestKernels

extension Model {
    /// At the start of an epoch, when connections have moved. Gradients of what freezes are none from then on.
    func freeze(upTo end: Int) {
        let before = int(state.pointee.frozen)
        if end <= before { return }
        for i in before..<end {
            zeroGradient(nodes[i].weight)
            zeroGradient(nodes[i].bias)
            nodes[i].found = 0
        }
        state.pointee.plan.freeze(upTo: end)
        state.pointee.frozen = uint32(end)
        log(MEST_LOG_INFO) {
            $0.text("epoch ").integer(state.pointee.epoch).text(": ").integer(end).text(" of ").integer(count)
                .text(" layers are frozen")
        }
    }
}
