// SPDX-License-Identifier: Apache-2.0
// Recomputation of long chains: how many outputs of convolutions are held at once.

import CMest
import CMestKernels
import Testing

@testable import Mest

/// So many convolutions with batch norm and ReLU one after the other, as DS-CNN's.
private func chain(_ convolutions: Int) -> [mest_layer] {
    var layers = [layer(MEST_LAYER_INPUT) { $0.channels = 4; $0.height = 16; $0.width = 8 }]
    for _ in 0..<convolutions {
        layers.append(layer(MEST_LAYER_CONV2D) { $0.channels = 16; $0.kernel_h = 3; $0.pad_h = 1; $0.pad_w = 1; $0.flags = UInt32(MEST_FLAG_NO_BIAS) })
        layers.append(layer(MEST_LAYER_BATCH_NORM))
        layers.append(layer(MEST_LAYER_RELU))
    }
    return layers + [layer(MEST_LAYER_GLOBAL_AVG_POOL), layer(MEST_LAYER_LINEAR) { $0.channels = 4 }]
}

@Suite struct Recomputation {
    @Test(arguments: 1...30) func aChainHoldsFewOutputs(convolutions: Int) throws {
        try withPlan(chain(convolutions), { $0.batch = 1; $0.recompute = Int32(MEST_RECOMPUTE_BLOCK) }) { plan, tensors in
            let outputs = tensors.filter { $0.use == .output && plan.nodes[Int($0.node)].kind == .conv2D }
            let held = (0...Int32(2 * plan.count)).map { time in outputs.filter { $0.lives(at: time) }.count }.max()!
            #expect(outputs.count == convolutions)
            if convolutions < 6 { return #expect(held == convolutions) }
            // m of a chain of m (m + 1) / 2.
            let fits = (1...convolutions).first { $0 * ($0 + 1) / 2 >= convolutions }!
            #expect(held == fits, "\(convolutions) convolutions: \(held) are held, \(fits) would do")
        }
    }
}
