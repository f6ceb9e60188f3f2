// SPDX-License-Identifier: Apache-2.0
// Plan: tensors that live at the same time never overlap, over random networks; and the numbers of
// the paper's ResNet-32 (specification 4.2).

import CMest
import CMestKernels
import Testing

@testable import Mest

func layer(_ kind: Int, from: Int32 = 0, with: Int32 = 0, _ set: (inout mest_layer) -> Void = { _ in }) -> mest_layer {
    var layer = mest_layer()
    layer.struct_size = UInt32(MemoryLayout<mest_layer>.size)
    layer.kind = Int32(kind)
    layer.from = from
    layer.with = with
    set(&layer)
    return layer
}

/// Plans and hands the plan with its tensors to the body.
func withPlan(
    _ layers: [mest_layer], _ set: (inout mest_config) -> Void = { _ in }, _ body: (Plan, [Tensor]) -> Void
) throws {
    var config = mest_config()
    config.batch = 20
    set(&config)
    let message = Message(buffer: UnsafeMutablePointer<CChar>.allocate(capacity: Message.bytes))
    defer { message.buffer.deallocate() }
    let scratch = UnsafeMutableRawPointer.allocate(byteCount: Plan.scratchBytes(layers.count), alignment: 64)
    defer { scratch.deallocate() }
    let plan = try layers.withUnsafeBufferPointer {
        try Plan.make(config, CallersArray($0.baseAddress!), layers.count, scratch: scratch, message)
    }
    let tensors = UnsafeMutableRawPointer(plan.nodes + layers.count).assumingMemoryBound(to: Tensor.self)
    body(plan, (0..<plan.tensorCount).map { tensors[$0] })
}

@Suite struct Workspaces {
    @Test(arguments: 1...200) func livingTensorsDoNotOverlap(seed: UInt64) throws {
        var random = SplitMix64(seed)
        let layers = randomNetwork(&random)
        try withPlan(layers, { vary(&$0, seed); $0.inference_only = seed % 4 == 1 ? 1 : 0 }) { plan, tensors in
            #expect(!tensors.isEmpty)
            var high: Int64 = 0
            for (i, a) in tensors.enumerated() {
                #expect(a.offset >= 0 && a.offset % 64 == 0)
                high = max(high, a.offset + a.bytes)
                for b in tensors[(i + 1)...] where a.meets(b) {
                    #expect(
                        a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset,
                        "seed \(seed): \(a.use) of \(a.node) and \(b.use) of \(b.node)")
                }
            }
            #expect(high == plan.bytes.workspace)
            for i in 0..<plan.count {
                let part = plan.report(plan.nodes[i])
                let named = Int(part.output_layer)
                switch Int(part.output) {
                case MEST_OUTPUT_STORED: #expect(named == -1)
                case MEST_OUTPUT_IN_PLACE: #expect(named >= 0 && named < i && plan.nodes[named].output.exists)
                case MEST_OUTPUT_RECOMPUTED: #expect(named >= i && plan.nodes[named].trains)
                default: #expect(named > i && !plan.nodes[named].isVirtual)
                }
                let own = Int(part.output) == MEST_OUTPUT_STORED || Int(part.output) == MEST_OUTPUT_RECOMPUTED
                #expect(own == (part.activation_bytes > 0))
                #expect(own == tensors.contains { Int($0.node) == i && $0.use == .output })
            }
            #expect(high <= tensors.reduce(0) { $0 + $1.bytes })
        }
    }
}

@Suite struct Numbers {
    /// The paper's ResNet-32, 32/64/128 channels, on 32 x 32 x 3.
    private var resnet32: [mest_layer] {
        var layers = [layer(MEST_LAYER_INPUT) { $0.channels = 3; $0.height = 32; $0.width = 32 }]
        func conv(_ channels: UInt32, _ kernel: UInt32, _ stride: UInt32, from: Int32 = 0, density: Float) {
            layers.append(layer(MEST_LAYER_CONV2D, from: from) {
                $0.channels = channels; $0.kernel_h = kernel; $0.stride_h = stride
                $0.pad_h = kernel / 2; $0.pad_w = kernel / 2
                $0.flags = UInt32(MEST_FLAG_NO_BIAS); $0.density = density
            })
            layers.append(layer(MEST_LAYER_BATCH_NORM))
        }
        conv(32, 3, 1, density: 1)
        layers.append(layer(MEST_LAYER_RELU))
        for stage in 0..<3 {
            for block in 0..<5 {
                let channels = UInt32(32 << stage)
                let source = Int32(layers.count - 1)
                let stride: UInt32 = stage > 0 && block == 0 ? 2 : 1
                var shortcut = source
                if stride == 2 {
                    conv(channels, 1, 2, density: 1)
                    shortcut = Int32(layers.count - 1)
                }
                conv(channels, 3, stride, from: source, density: 0)
                layers.append(layer(MEST_LAYER_RELU))
                conv(channels, 3, 1, density: 0)
                layers.append(layer(MEST_LAYER_ADD, with: shortcut))
                layers.append(layer(MEST_LAYER_RELU))
            }
        }
        layers.append(layer(MEST_LAYER_GLOBAL_AVG_POOL))
        layers.append(layer(MEST_LAYER_LINEAR) { $0.channels = 10; $0.density = 1 })
        return layers
    }

    @Test func parametersAndMultiplyAdds() throws {
        try withPlan(resnet32, { $0.density = 0.1; $0.batch = 64 }) { plan, _ in
            let report = plan.report()
            #expect(report.parameters == 1_860_522)
            #expect(report.dense_macs == 275_612_928)
            // Specification 4.2: 201,642 with 184,320 in the sparse layers; each rounds to its nearest: 184,324.
            #expect(report.active == 201_646)
            let sparse = (0..<plan.count).filter { plan.nodes[$0].sparse }
            #expect(sparse.count == 30)
            #expect(sparse.reduce(0) { $0 + plan.nodes[$1].positions } == 1_843_200)
        }
    }

    @Test func bytesAConnection() throws {
        // One layer large enough that rows and alignment vanish beside the connections.
        let layers = [layer(MEST_LAYER_INPUT) { $0.channels = 4096 }, layer(MEST_LAYER_LINEAR) { $0.channels = 4096; $0.flags = 1 }]
        try withPlan(layers, { $0.density = 0.1; $0.batch = 1 }) { plan, _ in
            let bytes = plan.bytes.weights + plan.bytes.gradients + plan.bytes.state + plan.bytes.index
            let connections = Int64(plan.report().active)
            #expect(connections == 1_677_722)
            #expect(bytes - connections * 20 < 64 * 8 + 2 * 4 * 4097)
            #expect(bytes >= connections * 20)
        }
    }
}
