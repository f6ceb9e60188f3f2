// SPDX-License-Identifier: Apache-2.0
// Trains a sparse network to read handwritten digits.  Standard input: lines of 64 pixels 0..16 and the digit.
import CMest

struct MestError: Error { let status: mest_status, message: String }

/// What every call goes through.  model: that of the call, nil where it had none.
func check(_ status: mest_status, _ model: OpaquePointer? = nil) throws {
    if status != MEST_OK { throw MestError(status: status, message: String(cString: mest_last_error(model))) }
}

/// The size that every struct of mest.h begins with.
func size<Struct>(_: Struct.Type) -> UInt32 { UInt32(MemoryLayout<Struct>.size) }

func layer(_ kind: Int, _ channels: UInt32 = 0, density: Float = 0) -> mest_layer {
    var layer = mest_layer()
    layer.struct_size = size(mest_layer.self)
    layer.kind = Int32(kind)
    layer.channels = channels
    layer.density = density
    return layer
}

struct Samples {
    var x: [Float] = [], labels: [Int32] = []

    init?() {
        while let line = readLine() {
            let numbers = line.split(separator: ",").compactMap { Int32($0) }
            guard numbers.count == 65, 0..<10 ~= numbers[64] else { return nil }
            x += numbers.prefix(64).map { Float($0) / 8 - 1 }
            labels.append(numbers[64])
        }
    }

    /// These samples as a mest_batch, whose memory lives as long as `body` runs.  Their numbers are their ids.
    func batch(_ numbers: Range<Int>, _ body: (UnsafePointer<mest_batch>) throws -> Void) rethrows {
        let ids = numbers.map { UInt32($0) }
        try x.withUnsafeBufferPointer { x in
            try labels.withUnsafeBufferPointer { labels in
                try ids.withUnsafeBufferPointer { ids in
                    var batch = mest_batch()
                    batch.struct_size = size(mest_batch.self)
                    batch.count = UInt32(numbers.count)
                    batch.x = x.baseAddress! + numbers.lowerBound * 64
                    batch.labels = labels.baseAddress! + numbers.lowerBound
                    batch.ids = ids.baseAddress
                    try body(&batch)
                }
            }
        }
    }
}

let tested = 297
guard let samples = Samples(), samples.labels.count > tested else {
    fatalError("usage: gzip -dc examples/data/digits.csv.gz | digits")
}
let training = samples.labels.count - tested

var config = mest_config()
try check(mest_config_init(&config, size(mest_config.self)))
config.seed = 1
config.batch = 32
config.samples = UInt32(training)
config.epochs = 20
config.learning_rate = 0.1
config.momentum = 0.9
config.schedule = Int32(MEST_SCHEDULE_COSINE)
config.density = 0.1  // one tenth of the connections exist ...
config.method = Int32(MEST_METHOD_EMS)  // ... and move while it trains
config.mutation_every = 2

let layers = [
    layer(MEST_LAYER_INPUT, 64), layer(MEST_LAYER_LINEAR, 256), layer(MEST_LAYER_RELU),
    layer(MEST_LAYER_LINEAR, 10, density: 1),
]
var plan = mest_plan_report()
plan.struct_size = size(mest_plan_report.self)
try check(mest_plan(&config, layers, UInt32(layers.count), &plan, nil))
print("plan: \(plan.active) of \(plan.parameters) weights, \(plan.total_bytes) bytes in all")

var model: OpaquePointer?
try check(mest_model_create(&config, layers, UInt32(layers.count), nil, &model))
defer { mest_model_destroy(model) }

for epoch in 0..<Int(config.epochs) {
    var loss: Float = 0
    for first in stride(from: 0, to: training, by: 32) {
        var report = mest_step_report()
        report.struct_size = size(mest_step_report.self)
        try samples.batch(first..<min(first + 32, training)) { try check(mest_model_step(model, $0, &report), model) }
        loss += report.loss * Float(report.count)
    }
    print("epoch \(epoch)  loss \(loss / Float(training))")
}

var result = mest_evaluation()
result.struct_size = size(mest_evaluation.self)
try samples.batch(training..<training + tested) { try check(mest_model_evaluate(model, $0, &result), model) }
print("test: \(result.correct) of \(tested) correct")
if result.correct < 255 { fatalError("fewer than expected") }
