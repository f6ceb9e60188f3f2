// SPDX-License-Identifier: Apache-2.0
// Predict and evaluate: the network in inference mode over any number of samples, batch by batch.

import CMest
import CMestKernels

extension Model {
    func predict(
        _ x: UnsafePointer<Float>, count: UInt64, probabilities: Bool, out: UnsafeMutablePointer<Float>
    ) throws(Status) {
        let inputs = nodes[0].elements
        let outputs = int64(state.pointee.plan.last.pointee.channels)
        try checkFinite(x, int64(count) &* inputs, perSample: inputs, "x")
        var done: Int64 = 0
        while done < int64(count) {
            try poll(MEST_STAGE_PREDICT, done: uint64(done), total: count)
            let n = min(int64(config.batch), int64(count) &- done)
            let pass = Pass(training: false, count: int32(n), number: 0)
            try forward(x + int(done &* inputs), pass)
            let y = floats(state.pointee.plan.last.pointee.output)
            let to = out + int(done &* outputs)
            if probabilities {
                mestk_softmax(self.outputs(pass), y, to)
            } else {
                mestk_scatter(kernels, shape(state.pointee.plan.last), y, int32(n), to)
            }
            done &+= n
        }
    }

    func evaluate(_ batch: mest_batch) throws(Status) -> mest_evaluation {
        try check(batch, limit: UInt32(Int32.max), training: false)
        let inputs = nodes[0].elements
        let outputs = int64(state.pointee.plan.last.pointee.channels)
        var result = mest_evaluation()
        result.struct_size = uint32(MemoryLayout<mest_evaluation>.size)
        result.count = batch.count
        var sum = 0.0
        var done: Int64 = 0
        while done < int64(batch.count) {
            try poll(MEST_STAGE_EVALUATE, done: uint64(done), total: uint64(batch.count))
            let n = min(int64(config.batch), int64(batch.count) &- done)
            let pass = Pass(training: false, count: int32(n), number: 0)
            var part = batch
            part.count = uint32(n)
            part.x = batch.x + int(done &* inputs)
            part.labels = batch.labels.map { $0 + int(done) }
            part.targets = batch.targets.map { $0 + int(done &* outputs) }
            try forward(part.x, pass)
            let (loss, correct) = self.loss(part, pass, smoothing: 0)
            sum += Double(loss) * Double(int(n))
            result.correct &+= correct
            done &+= n
        }
        result.loss = mestk_float_double(sum / Double(int(batch.count)))
        return result
    }
}
