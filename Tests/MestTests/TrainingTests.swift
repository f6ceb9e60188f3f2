// SPDX-License-Identifier: Apache-2.0
// Schedules and distributions: golden checks G8 and G9 of the specification.

import CMest
import CMestKernels
import Testing

@testable import Mest

private func resolved(_ set: (inout mest_config) -> Void) -> Plan {
    var config = mest_config()
    config.batch = 64
    config.epochs = 160
    config.learning_rate = 0.1
    set(&config)
    let buffer = UnsafeMutablePointer<CChar>.allocate(capacity: Message.bytes)
    defer { buffer.deallocate() }
    return Plan(nodes: UnsafeMutablePointer.allocate(capacity: 1), count: 0, config: try! resolve(config, Message(buffer: buffer)))
}

@Suite struct LearningRates {
    @Test(arguments: [
        (0, 0.1), (1, 0.0999904), (40, 0.0853553), (80, 0.05000002), (90, 0.0402455), (120, 0.0146447), (159, 9.678e-6),
    ] as [(UInt32, Double)])
    func cosineGolden(epoch: UInt32, wanted: Double) {
        let plan = resolved { $0.schedule = Int32(MEST_SCHEDULE_COSINE); $0.learning_rate_min = 4e-8 }
        let rate = Double(plan.learningRate(epoch: epoch, update: 0, steps: 782))
        #expect(abs(rate - wanted) < 1e-4 * wanted)
    }

    @Test func stepAndConstant() {
        let step = resolved { $0.schedule = Int32(MEST_SCHEDULE_STEP); $0.schedule_every = 80 }
        #expect(step.learningRate(epoch: 79, update: 0, steps: 1) == 0.1)
        #expect(abs(step.learningRate(epoch: 80, update: 0, steps: 1) - 0.01) < 1e-8)
        #expect(resolved { _ in }.learningRate(epoch: 500, update: 3, steps: 9) == 0.1)
    }

    @Test func warmupRisesLinearlyThenCosine() {
        let plan = resolved {
            $0.schedule = Int32(MEST_SCHEDULE_COSINE); $0.warmup_epochs = 5
            $0.schedule_flags = UInt32(MEST_SCHEDULE_BY_UPDATE); $0.steps_per_epoch = 10
        }
        #expect(abs(plan.learningRate(epoch: 0, update: 0, steps: 10) - 0.1 / 50) < 1e-8)
        #expect(abs(plan.learningRate(epoch: 2, update: 4, steps: 10) - 0.05) < 1e-7)
        #expect(plan.learningRate(epoch: 5, update: 0, steps: 10) == 0.1)
        #expect(plan.learningRate(epoch: 159, update: 9, steps: 10) < 1e-5)
    }

    /// G8: RigL's alpha .3 over T_end 1000 updates, here 100 an epoch; and as the part of alpha, by epochs.
    @Test(arguments: [
        (0, 0.3), (100, 0.292658), (250, 0.256066), (500, 0.15), (750, 0.043934), (900, 0.007342), (1000, 0),
    ] as [(UInt32, Double)])
    func mutationCosineGolden(t: UInt32, alpha: Double) {
        let rigl = resolved {
            $0.method = Int32(MEST_METHOD_RIGL); $0.mutation_rate = 0.3; $0.epochs = 12; $0.steps_per_epoch = 100
            $0.mutation_epochs = (5, 10)
        }
        let share = rigl.movedShare(epoch: t / 100, update: t % 100, steps: 100)
        #expect(abs(Double(share.billionths) / 1e9 - alpha) < 1e-6)
        let part = alpha / 0.3
        let plan = resolved {
            $0.method = Int32(MEST_METHOD_EM); $0.mutation_decay = Int32(MEST_DECAY_COSINE); $0.mutation_epochs = (1000, 1000)
        }
        #expect(abs(Double(plan.mutationDecay(t).billionths) / 1e9 - part) < 2e-6)
    }
}

@Suite struct Distributions {
    /// Plans convolutions of (rows, inputs, kernel) under ERK and gives back their densities.
    private func erk(_ layers: [(rows: Int32, inputs: Int32, kernel: Int32, linear: Bool)], density: Float) -> [Double] {
        var config = resolved { $0.density = density; $0.distribution = Int32(MEST_DISTRIBUTION_ERK) }.config
        config.density = density
        let nodes = UnsafeMutablePointer<Node>.allocate(capacity: layers.count)
        defer { nodes.deallocate() }
        for (i, layer) in layers.enumerated() {
            var node = Node(kind: layer.linear ? .linear : .conv2D, index: Int32(i))
            node.rows = layer.rows
            node.taps = layer.kernel * layer.kernel
            node.columns = layer.inputs * node.taps
            node.density = .zero
            node.geometry.kernel_h = layer.kernel
            node.geometry.kernel_w = layer.kernel
            (nodes + i).initialize(to: node)
        }
        var plan = Plan(nodes: nodes, count: layers.count, config: config)
        plan.distributeDensity()
        return layers.indices.map { Double(nodes[$0].density.billionths) / 1e9 }
    }

    /// Golden check G9: the thirty block convolutions of ResNet-32 at density .1.
    @Test func golden30() {
        var layers: [(Int32, Int32, Int32, Bool)] = Array(repeating: (32, 32, 3, false), count: 10)
        layers += [(64, 32, 3, false)] + Array(repeating: (64, 64, 3, false), count: 9)
        layers += [(128, 64, 3, false)] + Array(repeating: (128, 128, 3, false), count: 9)
        let density = erk(layers, density: 0.1)
        for (i, wanted) in [(0, 0.306748), (10, 0.223488), (11, 0.146801), (20, 0.108457), (21, 0.071757)] {
            #expect(abs(density[i] - wanted) < 2e-6)
        }
        // The factor of all, and the share of multiply-adds: at 32 x 32, 16 x 16 and 8 x 8 pixels.
        var macs = 0.0, dense = 0.0
        for (i, layer) in layers.enumerated() {
            let positions = Double(layer.0 * layer.1 * 9), pixels = layer.0 == 32 ? 1024.0 : layer.0 == 64 ? 256 : 64
            #expect(abs(density[i] * positions / Double(layer.0 + layer.1 + 6) - 40.385627) < 1e-4)
            macs += density[i] * positions * pixels
            dense += positions * pixels
        }
        #expect(abs(macs / dense - 0.1793) < 5e-5)
    }

    /// Golden check G9: all layers; small ones become dense.
    @Test func goldenAll() {
        var layers: [(Int32, Int32, Int32, Bool)] = [(32, 3, 3, false)] + Array(repeating: (32, 32, 3, false), count: 10)
        layers += [(64, 32, 3, false), (64, 32, 1, false)] + Array(repeating: (64, 64, 3, false), count: 9)
        layers += [(128, 64, 3, false), (128, 64, 1, false)] + Array(repeating: (128, 128, 3, false), count: 9)
        layers += [(10, 128, 1, true)]
        let density = erk(layers, density: 0.1)
        #expect(density[0] == 1 && density[12] == 1 && density.last == 1)
        #expect(abs(density[23] - 0.902702) < 2e-6)
        #expect(abs(density[1] - 0.289526) < 2e-6)
        #expect(abs(density[24] - 0.067728) < 2e-6)
    }
}
