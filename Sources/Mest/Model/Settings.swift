// SPDX-License-Identifier: Apache-2.0
// Settings: checks what the fields of a mest_config say together and replaces every zero that means a default.

import CMest

/// The config with its defaults resolved.
func resolve(_ given: mest_config, _ message: Message) throws(Status) -> mest_config {
    var config = given
    try checkFields(config, message)
    resolveDefaults(&config)
    try resolveMethod(&config, message)
    try resolveTime(&config, message)
    try resolveFreezing(&config, message)
    try resolveRemoval(config, message)
    try resolveSieve(&config, message)
    try resolveRecovery(&config, message)
    return config
}

/// What zero means, of what needs no other chapter below.
private func resolveDefaults(_ config: inout mest_config) {
    if config.micro_batches == 0 { config.micro_batches = 1 }
    if config.gradient_chunks == 0 { config.gradient_chunks = 16 }
    if config.density == 0 { config.density = 1 }
    if config.scheme == MEST_SCHEME_DEFAULT { config.scheme = int32(MEST_SCHEME_UNSTRUCTURED) }
    if config.schedule_gamma == 0 { config.schedule_gamma = 0.1 }
    if config.importance_beta == 0 { config.importance_beta = 0.9 }
    if config.steps_per_epoch == 0 { config.steps_per_epoch = updates(for: config.samples, config) }
}

/// How often and how much connections move.
private func resolveMethod(_ config: inout mest_config, _ message: Message) throws(Status) {
    if config.method == MEST_METHOD_LOTTERY {
        if config.mutation_every <= config.warmup_epochs {
            throw message.start("method LOTTERY: set mutation_every, the epochs of a round, above warmup_epochs (")
                .integer(config.warmup_epochs).text(")").as(.argument)
        }
        if config.initial_density > 0 && config.initial_density < 1 {
            throw message.start("method LOTTERY begins dense: leave initial_density 0").as(.argument)
        }
        // Rounds are counted one by one.
        if config.mutation_rate > 0 && config.mutation_rate < 0.001 {
            throw message.start("method LOTTERY: mutation_rate is ").real(config.mutation_rate)
                .text(", which would take endless rounds; use 0.001 to below 1").as(.argument)
        }
    }
    if config.mutation_every == 0 {
        switch int(config.method) {
        case MEST_METHOD_SET, MEST_METHOD_GMP, MEST_METHOD_DSR, MEST_METHOD_SRIGL: config.mutation_every = 1
        default: config.mutation_every = 5
        }
    }
    if config.mutation_rate == 0 {
        switch int(config.method) {
        case MEST_METHOD_SET, MEST_METHOD_RIGL, MEST_METHOD_SRIGL: config.mutation_rate = 0.3
        case MEST_METHOD_DSR: config.mutation_rate = 0.1
        default: config.mutation_rate = 0.2
        }
    }
    if config.mutation_updates == 0 {
        let published: UInt32 = config.method == MEST_METHOD_GSE ? 1000 : 100
        config.mutation_updates = config.growsByGradient ? min(published, max(1, config.steps_per_epoch)) : published
    }
    if config.initial_density == 0 && config.method != MEST_METHOD_GRASP { config.initial_density = 1 }
    if config.mutation_flags & UInt32(MEST_MUTATION_GLOBAL) != 0 && config.ranksItsOwnWay {
        throw message.start("MEST_MUTATION_GLOBAL: method ").text(methodName(config.method) ?? "")
            .text(" says itself who leaves; use it with VANILLA, EM, EMS or GMP").as(.argument)
    }
    let byLastGradient = config.importance_lambda > 0 && config.importance_gradient == MEST_GRADIENT_LAST
    if config.growsByGradient && byLastGradient {
        throw message.start("method ").text(methodName(config.method) ?? "")
            .text(" moves connections while the last gradient is computed; set importance_gradient to EMA or MOMENTUM, or importance_lambda to 0")
            .as(.argument)
    }
    if config.growsByGradient && config.steps_per_epoch == 0 {
        throw message.start("method ").text(methodName(config.method) ?? "")
            .text(": set steps_per_epoch or samples, which tell how far an epoch has come").as(.argument)
    }
}

extension mest_config {
    /// Who leaves is not just the least important of the layer, or of all layers.
    var ranksItsOwnWay: Bool {
        method == MEST_METHOD_SET || method == MEST_METHOD_DSR || method == MEST_METHOD_SRIGL || growsByGradient
    }
}

/// As messages name it: MEST_METHOD_* without the prefix; nil where this version has no such method.
func methodName(_ method: Int32) -> StaticString? {
    switch int(method) {
    case MEST_METHOD_STATIC: return "STATIC"
    case MEST_METHOD_VANILLA: return "VANILLA"
    case MEST_METHOD_EM: return "EM"
    case MEST_METHOD_EMS: return "EMS"
    case MEST_METHOD_SET: return "SET"
    case MEST_METHOD_GMP: return "GMP"
    case MEST_METHOD_RIGL: return "RIGL"
    case MEST_METHOD_DSR: return "DSR"
    case MEST_METHOD_LOTTERY: return "LOTTERY"
    case MEST_METHOD_SNIP: return "SNIP"
    case MEST_METHOD_GRASP: return "GRASP"
    case MEST_METHOD_GSE: return "GSE"
    case MEST_METHOD_SRIGL: return "SRIGL"
    default: return nil
    }
}

/// Batches that `samples` samples make.
func batches(for samples: UInt32, _ config: mest_config) -> UInt32 {
    uint32((int64(samples) &+ int64(config.batch) &- 1) / int64(config.batch))
}

/// Updates that they take: the last may have fewer micro-batches.
func updates(for samples: UInt32, _ config: mest_config) -> UInt32 {
    uint32((int64(batches(for: samples, config)) &+ int64(config.micro_batches) &- 1) / int64(config.micro_batches))
}

private func resolveTime(_ config: inout mest_config, _ message: Message) throws(Status) {
    if config.schedule == MEST_SCHEDULE_STEP && config.schedule_every == 0 {
        throw message.start("schedule is STEP: set schedule_every, in epochs").as(.argument)
    }
    if config.epochs > 0 && config.warmup_epochs > config.epochs {
        throw message.start("warmup_epochs is ").integer(config.warmup_epochs).text(", epochs only ")
            .integer(config.epochs).text(": the learning rate would never be reached").as(.argument)
    }
    if config.schedule == MEST_SCHEDULE_COSINE && config.epochs <= config.warmup_epochs {
        throw message.start("schedule is COSINE: set epochs above warmup_epochs (").integer(config.warmup_epochs)
            .text(")").as(.argument)
    }
    if config.schedule_flags & UInt32(MEST_SCHEDULE_BY_UPDATE) != 0 && config.steps_per_epoch == 0 {
        throw message.start("MEST_SCHEDULE_BY_UPDATE: set steps_per_epoch or samples").as(.argument)
    }
    if config.mutation_epochs.0 == 0 { config.mutation_epochs.0 = uint32(int64(config.epochs) &* 9 / 16) }
    if config.mutation_epochs.1 == 0 { config.mutation_epochs.1 = uint32(int64(config.epochs) &* 3 / 4) }
    let decays = config.decays
    if decays && config.mutation_epochs.1 == 0 {
        throw message.start("the method decays: set epochs (at least 2) or mutation_epochs").as(.argument)
    }
    let settles = config.method == MEST_METHOD_EMS || config.method == MEST_METHOD_GMP
    if settles && config.epochs > 0 && config.mutation_epochs.1 >= config.epochs {
        throw message.start("the method reaches its density at epoch ").integer(config.mutation_epochs.1)
            .text(", but epochs is ").integer(config.epochs).text("; lower mutation_epochs[1]").as(.argument)
    }
    if decays && config.mutation_epochs.0 > config.mutation_epochs.1 {
        throw message.start("mutation_epochs must not fall: ").integer(config.mutation_epochs.0).text(", ")
            .integer(config.mutation_epochs.1).as(.argument)
    }
}

private func resolveFreezing(_ config: inout mest_config, _ message: Message) throws(Status) {
    if !config.freezes {
        if config.freeze_epochs.0 | config.freeze_epochs.1 == 0 { return }
        throw message.start("freeze_epochs: set freeze_share, the share of the multiply-adds that freezes").as(.argument)
    }
    if config.method == MEST_METHOD_LOTTERY {
        throw message.start("freeze_share: method LOTTERY sets all layers back to their first values; use another, or 0")
            .as(.argument)
    }
    if config.epochs == 0 && (config.freeze_epochs.0 == 0 || config.freeze_epochs.1 == 0) {
        throw message.start("freeze_share: set epochs, or both freeze_epochs").as(.argument)
    }
    if config.freeze_epochs.0 == 0 { config.freeze_epochs.0 = max(1, config.epochs / 4) }
    if config.freeze_epochs.1 == 0 {
        config.freeze_epochs.1 = max(config.freeze_epochs.0, uint32(int64(config.epochs) &* 5 / 8))
    }
    if config.freeze_epochs.0 > config.freeze_epochs.1 {
        throw message.start("freeze_epochs must not fall: ").integer(config.freeze_epochs.0).text(", ")
            .integer(config.freeze_epochs.1).as(.argument)
    }
    if config.epochs > 0 && config.freeze_epochs.1 >= config.epochs {
        throw message.start("freeze_share is reached at epoch ").integer(config.freeze_epochs.1).text(", but epochs is ")
            .integer(config.epochs).text("; lower freeze_epochs[1]").as(.argument)
    }
}

private func resolveRemoval(_ config: mest_config, _ message: Message) throws(Status) {
    let counts = config.samples > 0 && config.loss == MEST_LOSS_CROSS_ENTROPY
    if config.forgetting_flags != 0 && !counts {
        throw message.start("forgetting_flags: set samples, the size of the training set, and loss CROSS_ENTROPY")
            .as(.argument)
    }
    if config.remove_class_cap > 0 && !counts {
        throw message.start("remove_class_cap: set samples, the size of the training set, and loss CROSS_ENTROPY")
            .as(.argument)
    }
    if config.phase1_epochs == 0 {
        if config.remove_rule == MEST_REMOVE_NONE { return }
        throw message.start("remove_rule: set phase1_epochs, the epoch at whose start samples leave").as(.argument)
    }
    if config.samples == 0 {
        throw message.start("phase1_epochs: set samples, the size of the training set").as(.argument)
    }
    if config.loss != MEST_LOSS_CROSS_ENTROPY {
        throw message.start("phase1_epochs: forgetting needs labels, loss CROSS_ENTROPY").as(.argument)
    }
    if config.epochs > 0 && config.phase1_epochs >= config.epochs {
        throw message.start("phase1_epochs is ").integer(config.phase1_epochs).text(", epochs only ")
            .integer(config.epochs).text(": no sample would ever leave").as(.argument)
    }
    switch int(config.remove_rule) {
    case MEST_REMOVE_NONE: throw message.start("phase1_epochs: set remove_rule, which samples leave").as(.argument)
    case MEST_REMOVE_NUMBER where config.remove_number == 0:
        throw message.start("remove_rule is NUMBER: set remove_number").as(.argument)
    case MEST_REMOVE_NUMBER where config.remove_number >= config.samples && config.keep_lowest == 0:
        throw message.start("remove_number is ").integer(config.remove_number).text(", of ").integer(config.samples)
            .text(" samples: none would stay").as(.argument)
    case MEST_REMOVE_FRACTION where config.remove_fraction == 0:
        throw message.start("remove_rule is FRACTION: set remove_fraction").as(.argument)
    default: return
    }
}

private func resolveSieve(_ config: inout mest_config, _ message: Message) throws(Status) {
    if !config.sieves {
        if config.sieve_every == 0 && config.sieve_share == 0 { return }
        throw message.start("sieve_every, sieve_share: set sieve_absent, the share of samples that is out").as(.argument)
    }
    if config.samples == 0 {
        throw message.start("sieve_absent: set samples, the size of the training set").as(.argument)
    }
    if config.loss != MEST_LOSS_CROSS_ENTROPY {
        throw message.start("sieve_absent: forgetting needs labels, loss CROSS_ENTROPY").as(.argument)
    }
    if config.phase1_epochs > 0 {
        throw message.start("sieve_absent and phase1_epochs both say who is in the training set; use one of them")
            .as(.argument)
    }
    if config.remove_class_cap > 0 {
        throw message.start("remove_class_cap bounds what leaves once, and sieving never ends; leave it 0").as(.unsupported)
    }
    let absent = config.absentSamples
    if absent == 0 || absent >= int64(config.samples) {
        throw message.start("sieve_absent is ").real(config.sieve_absent).text(", of ").integer(config.samples)
            .text(" samples ").integer(absent).text("; at least one must be out, and one in").as(.argument)
    }
    if config.sieve_every == 0 { config.sieve_every = 5 }
    if config.sieve_share == 0 { config.sieve_share = 0.1 }
}

private func resolveRecovery(_ config: inout mest_config, _ message: Message) throws(Status) {
    if !(config.recover_rate >= 0 && config.recover_rate <= 1) {
        throw message.start("recover_rate is ").real(config.recover_rate).text("; use above 0 to 1, or 0 for 0.5").as(.argument)
    }
    if config.recover_epochs == 0 {
        if config.recover_rate == 0 { return }
        throw message.start("recover_rate: set recover_epochs, how often a good state is kept").as(.argument)
    }
    if config.recover_rate == 0 { config.recover_rate = 0.5 }
}

/// In (0, 1], to the millionth.
func validDensity(_ value: Float) -> Bool { value >= 0.000001 && value <= 1 }
