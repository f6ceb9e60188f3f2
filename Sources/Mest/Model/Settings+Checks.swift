// SPDX-License-Identifier: Apache-2.0
// Settings: what may stand in each field of a mest_config by itself.

import CMest
import CMestKernels

/// Each field by itself.
func checkFields(_ config: mest_config, _ message: Message) throws(Status) {
    let check = ConfigCheck(message: message)
    try check.range(config.batch, 1, 65536, "batch")
    try check.range(config.micro_batches, 0, 65536, "micro_batches")
    try check.range(config.threads, 0, uint32(MESTK_MOST_THREADS), "threads")
    try check.range(config.gradient_chunks, 0, 64, "gradient_chunks")
    try check.range(config.inference_only, 0, 1, "inference_only")
    try check.range(config.allow_empty_rows, 0, 1, "allow_empty_rows")
    // Counts and times fit 31 bits, so that they fit Int on 32-bit targets.
    let most = UInt32(Int32.max)
    try check.range(config.samples, 0, most, "samples")
    try check.range(config.epochs, 0, most, "epochs")
    try check.range(config.steps_per_epoch, 0, most, "steps_per_epoch")
    try check.range(config.warmup_epochs, 0, most, "warmup_epochs")
    try check.range(config.schedule_every, 0, most, "schedule_every")
    try check.range(config.mutation_every, 0, most, "mutation_every")
    try check.range(config.mutation_epochs.0, 0, most, "mutation_epochs[0]")
    try check.range(config.mutation_epochs.1, 0, most, "mutation_epochs[1]")
    try check.range(config.sieve_every, 0, most, "sieve_every")
    try check.range(config.recover_epochs, 0, most, "recover_epochs")
    try check.range(config.freeze_epochs.0, 0, most, "freeze_epochs[0]")
    try check.range(config.freeze_epochs.1, 0, most, "freeze_epochs[1]")
    try check.range(config.reserved, 0, 0, "reserved")
    try checkChoices(config, check)
    try checkNumbers(config, check)
}

private func checkChoices(_ config: mest_config, _ check: ConfigCheck) throws(Status) {
    try check.choice(config.simd, MEST_SIMD_NEON, "simd", "MEST_SIMD_*")
    try check.choice(config.loss, MEST_LOSS_MSE, "loss", "MEST_LOSS_*")
    try check.choice(config.schedule, MEST_SCHEDULE_COSINE, "schedule", "MEST_SCHEDULE_*")
    try check.choice(config.scheme, MEST_SCHEME_ROW16, "scheme", "MEST_SCHEME_*")
    try check.choice(config.distribution, MEST_DISTRIBUTION_ERK, "distribution", "MEST_DISTRIBUTION_*")
    try check.known(methodName(config.method) != nil, config.method, "method", "MEST_METHOD_*")
    try check.choice(config.mutation_decay, MEST_DECAY_COSINE, "mutation_decay", "MEST_DECAY_*")
    try check.choice(config.importance_gradient, MEST_GRADIENT_MOMENTUM, "importance_gradient", "MEST_GRADIENT_*")
    try check.choice(config.remove_rule, MEST_REMOVE_FRACTION, "remove_rule", "MEST_REMOVE_*")
    try check.choice(config.activations, MEST_ACTIVATIONS_BF16, "activations", "MEST_ACTIVATIONS_*")
    try check.choice(config.recompute, MEST_RECOMPUTE_ELEMENTWISE, "recompute", "MEST_RECOMPUTE_*")
    try check.choice(config.initial, MEST_INITIAL_MAGNITUDE, "initial", "MEST_INITIAL_*")
    try check.bits(config.optimizer_flags, 7, "optimizer_flags", "MEST_SGD_* and MEST_NO_DECAY_*")
    try check.bits(config.schedule_flags, 1, "schedule_flags", "MEST_SCHEDULE_BY_UPDATE")
    try check.bits(config.forgetting_flags, 3, "forgetting_flags", "MEST_FORGETTING_MARGIN, _ORDER")
    try check.bits(config.scheme_flags, 1, "scheme_flags", "MEST_PATTERNS_*")
    try check.bits(config.mutation_flags, 15, "mutation_flags", "MEST_MUTATION_EXCLUDE_DROPPED, _ROUND_COMPAT, _NORMALISED, _GLOBAL")
}

private func checkNumbers(_ config: mest_config, _ check: ConfigCheck) throws(Status) {
    try check.share(config.label_smoothing, "label_smoothing")
    try check.share(config.momentum, "momentum")
    try check.notNegative(config.learning_rate, "learning_rate")
    try check.notNegative(config.learning_rate_min, "learning_rate_min")
    try check.notNegative(config.weight_decay, "weight_decay")
    try check.notNegative(config.clip_norm, "clip_norm")
    try check.notNegative(config.schedule_gamma, "schedule_gamma")
    try check.notNegative(config.importance_lambda, "importance_lambda")
    try check.share(config.importance_beta, "importance_beta")
    try check.share(config.mutation_rate, "mutation_rate")
    try check.share(config.mutation_extra, "mutation_extra")
    try check.share(config.remove_fraction, "remove_fraction")
    try check.share(config.remove_class_cap, "remove_class_cap")
    try check.share(config.freeze_share, "freeze_share")
    try check.share(config.sieve_absent, "sieve_absent")
    try check.share(config.sieve_share, "sieve_share")
    try check.density(config.density, "density")
    try check.density(config.initial_density, "initial_density")
}

/// Range checks with one wording.
private struct ConfigCheck {
    let message: Message

    func range(_ value: UInt32, _ low: UInt32, _ high: UInt32, _ field: StaticString) throws(Status) {
        if value < low || value > high {
            let text = message.start("config.").text(field).text(" is ").integer(value).text("; use ").integer(low)
            throw (low == high ? text : text.text(" to ").integer(high)).as(.argument)
        }
    }

    func choice(_ value: Int32, _ high: Int, _ field: StaticString, _ words: StaticString) throws(Status) {
        try known(value >= 0 && int(value) <= high, value, field, words)
    }

    func known(_ known: Bool, _ value: Int32, _ field: StaticString, _ words: StaticString) throws(Status) {
        if !known { throw unknown(int64(value), field, words) }
    }

    func bits(_ value: UInt32, _ known: UInt32, _ field: StaticString, _ words: StaticString) throws(Status) {
        if value & ~known != 0 { throw unknown(int64(value), field, words) }
    }

    private func unknown(_ value: Int64, _ field: StaticString, _ words: StaticString) -> Status {
        message.start("config.").text(field).text(" is ").integer(value)
            .text(", which this version does not know; use ").text(words).as(.argument)
    }

    func share(_ value: Float, _ field: StaticString) throws(Status) {
        if !(value >= 0 && value < 1) { throw wrong(value, field, "; use 0 to below 1") }
    }

    func notNegative(_ value: Float, _ field: StaticString) throws(Status) {
        if !(value >= 0 && value.isFinite) { throw wrong(value, field, "; use a number from 0 on") }
    }

    func density(_ value: Float, _ field: StaticString) throws(Status) {
        if value != 0 && !validDensity(value) { throw wrong(value, field, "; use 0.000001 to 1") }
    }

    private func wrong(_ value: Float, _ field: StaticString, _ advice: StaticString) -> Status {
        message.start("config.").text(field).text(" is ").real(value).text(advice).as(.argument)
    }
}
