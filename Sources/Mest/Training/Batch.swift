// SPDX-License-Identifier: Apache-2.0
// Batch: what a batch must be before anything is computed from it.

import CMest
import CMestKernels

extension Model {
    /// limit: most samples at once.
    func check(_ batch: mest_batch, limit: UInt32, training: Bool) throws(Status) {
        if batch.count == 0 || batch.count > limit {
            throw message.start("batch.count is ").integer(batch.count).text("; use 1 to ").integer(limit).as(.argument)
        }
        guard let x = batch.x else { throw message.start("batch.x is NULL").as(.argument) }
        let inputs = nodes[0].elements
        try checkFinite(x, int64(batch.count) &* inputs, perSample: inputs, "batch.x")
        let outputs = state.pointee.plan.last.pointee.channels
        if config.loss == MEST_LOSS_CROSS_ENTROPY {
            guard let labels = batch.labels else {
                throw message.start("batch.labels is NULL; cross-entropy needs a class for each sample").as(.argument)
            }
            for i in 0..<int(batch.count) where labels[i] < 0 || labels[i] >= outputs {
                throw message.start("label of sample ").integer(i).text(" is ").integer(labels[i]).text("; use 0 to ")
                    .integer(outputs &- 1).as(.argument)
            }
        } else {
            guard let targets = batch.targets else {
                throw message.start("batch.targets is NULL; mean squared error needs ").integer(outputs)
                    .text(" values for each sample").as(.argument)
            }
            try checkFinite(targets, int64(batch.count) &* int64(outputs), perSample: int64(outputs), "batch.targets")
        }
        if training, let ids = batch.ids { try checkIds(ids, int(batch.count)) }
    }

    private func checkIds(_ ids: UnsafePointer<UInt32>, _ count: Int) throws(Status) {
        if config.samples == 0 {
            throw message.start("batch.ids: set config.samples to count forgetting, or pass no ids").as(.argument)
        }
        for i in 0..<count where ids[i] >= config.samples {
            throw message.start("id of sample ").integer(i).text(" is ").integer(ids[i])
                .text("; use 0 to samples - 1 = ").integer(config.samples &- 1).as(.argument)
        }
    }

    /// perSample: of what has samples.
    func checkFinite(
        _ x: UnsafePointer<Float>, _ count: Int64, perSample: Int64? = nil, _ name: StaticString
    ) throws(Status) {
        let bad = mestk_first_not_finite(x, count)
        if bad < 0 { return }
        let text = message.start(name).text(": value ").integer(bad % (perSample ?? count))
        if let perSample { _ = text.text(" of sample ").integer(bad / perSample) }
        throw text.text(" is ").real(x[int(bad)]).text("; values must be finite").as(.argument)
    }
}
