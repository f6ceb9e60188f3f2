// SPDX-License-Identifier: Apache-2.0
// Learning rate: a pure function of the position in training, so that a resumed run needs no state.

import CMest
import CMestKernels

extension Plan {
    /// epoch: from 0.  update: updates already applied in it.  steps: updates the epoch has.
    func learningRate(epoch: UInt32, update: UInt32, steps: UInt32) -> Float {
        let epoch = scheduleEpoch(epoch)
        let byUpdate = config.schedule_flags & UInt32(MEST_SCHEDULE_BY_UPDATE) != 0 && steps > 0
        let unit = byUpdate ? 1 / Double(int(steps)) : 1
        let position = Double(int(epoch)) + (byUpdate ? Double(int(update)) * unit : 0)
        let base = Double(config.learning_rate)
        let warmup = Double(int(config.warmup_epochs))
        if position < warmup {
            // The first update already moves; the last of the warm-up has the full rate.
            return mestk_float_double(base * min(1, (position + unit) / warmup))
        }
        switch int(config.schedule) {
        case MEST_SCHEDULE_STEP:
            var rate = base, drops = epoch / config.schedule_every
            while drops > 0 && rate > 0 && rate < 1e38 {
                rate *= Double(config.schedule_gamma)
                drops &-= 1
            }
            return mestk_float_double(rate)
        case MEST_SCHEDULE_COSINE:
            let length = Double(int(scheduleEpochs)) - warmup
            let low = Double(config.learning_rate_min)
            let part = min(1, (position - warmup) / length)
            return mestk_float_double(low + (base - low) * (1 + mestk_cos_double(Double.pi * part)) / 2)
        default:
            return mestk_float_double(base)
        }
    }
}
