// SPDX-License-Identifier: Apache-2.0
// Sections: what a checkpoint has, in its order: the one table. What is derived is not saved: the second order of
// an index, what exists of thin layers, copies that kernels read, all that lives during one call.
//
// To add state: an array is a line in `connections`, `tensors` or `samples` below and a case of Section, its
// number never used before; a number is a line at the end of `settings`, `describe`, `position` or `count`. Then a
// checkpoint of before, which lacks it, keeps what the new model has; where that would be wrong, raise
// Header.format and tell the two apart. Never reorder, never remove.

import CMest
import CMestKernels

enum Section: UInt32 {
    case config = 1, position, layer
    case channels = 10, index
    case weight = 20, weightMomentum, weightAverage, weightGradient, bias, biasMomentum, biasGradient
    case runningMean = 30, runningVariance
    case forgettings = 40, previous, learned, seen, removed, marginSum, marginCount, label, rank, queue
    case end = 99

    /// As messages name it.
    var word: StaticString {
        switch self {
        case .config: return "CONFIG"
        case .position: return "POSITION"
        case .layer: return "LAYER"
        case .channels: return "CHANNELS"
        case .index: return "INDEX"
        case .weight: return "WEIGHT"
        case .weightMomentum: return "WEIGHT_MOMENTUM"
        case .weightAverage: return "WEIGHT_AVERAGE"
        case .weightGradient: return "WEIGHT_GRADIENT"
        case .bias: return "BIAS"
        case .biasMomentum: return "BIAS_MOMENTUM"
        case .biasGradient: return "BIAS_GRADIENT"
        case .runningMean: return "RUNNING_MEAN"
        case .runningVariance: return "RUNNING_VAR"
        case .forgettings, .previous, .learned, .seen, .removed, .marginSum, .marginCount, .label, .rank, .queue:
            return "FORGETTING"
        case .end: return "END"
        }
    }
}

extension Archive {
    /// All of it. state: where training stands; a copy, when reading. Nodes hold what is `saved` of each.
    @inline(never)
    mutating func walk(_ plan: Plan, _ state: inout ModelState) throws(Status) {
        let nodes = plan.nodes
        try fields(.config) { archive throws(Status) in try archive.settings(plan.config, plan.count) }
        try fields(.position) { archive throws(Status) in try archive.position(&state, plan) }
        for i in 0..<plan.count {
            try fields(.layer, layer: i) { archive throws(Status) in
                try archive.describe(plan, nodes[i])
                try archive.count(nodes + i)
            }
        }
        if mode == .loading { plan.takeCounts() }
        for i in 0..<plan.count {
            try connections(plan, nodes[i], i)
            try tensors(plan, nodes[i], i, gathers: state.gathered > 0)
        }
        try samples(plan)
        try begin(.end, bytes: 0)
        try end()
        if reads && !isComplete { throw damaged() }
    }
}

// MARK: - Fields

extension Archive {
    /// The config as the plan resolved it. Not in it: what changes no bit, and what a plan does not depend on.
    @inline(never)
    private mutating func settings(_ c: mest_config, _ layers: Int) throws(Status) {
        try same("layers", uint32(layers))
        try same("inference_only", c.inference_only, hint: c.inference_only == 0 ? ""
            : "; load it into one that trains, and copy: mest_model_csr_get(), mest_model_tensor_get()")
        try same("samples", c.samples)
        try same("forgetting_flags", c.forgetting_flags)
        try setting("seed (lower half)", UInt32(truncatingIfNeeded: c.seed))
        try setting("seed (upper half)", UInt32(truncatingIfNeeded: c.seed &>> 32))
        try setting("batch", c.batch)
        microBatches = try setting("micro_batches", c.micro_batches)
        try setting("gradient_chunks", c.gradient_chunks)
        try setting("loss", c.loss)
        try setting("label_smoothing", c.label_smoothing)
        try setting("learning_rate", c.learning_rate)
        try setting("momentum", c.momentum)
        try setting("weight_decay", c.weight_decay)
        try setting("clip_norm", c.clip_norm)
        try setting("optimizer_flags", Int32(bitPattern: c.optimizer_flags))
        try setting("epochs", c.epochs)
        try setting("steps_per_epoch", c.steps_per_epoch)
        try setting("schedule", c.schedule)
        try setting("schedule_flags", c.schedule_flags)
        try setting("schedule_every", c.schedule_every)
        try setting("schedule_gamma", c.schedule_gamma)
        try setting("learning_rate_min", c.learning_rate_min)
        try setting("warmup_epochs", c.warmup_epochs)
        try setting("density", c.density)
        try setting("distribution", c.distribution)
        try setting("allow_empty_rows", c.allow_empty_rows)
        try setting("method", c.method, named: methodName)
        try setting("mutation_decay", c.mutation_decay)
        try setting("mutation_every", c.mutation_every)
        try setting("mutation_updates", c.mutation_updates)
        try setting("mutation_epochs[0]", c.mutation_epochs.0)
        try setting("mutation_epochs[1]", c.mutation_epochs.1)
        try setting("mutation_rate", c.mutation_rate)
        try setting("mutation_extra", c.mutation_extra)
        try setting("initial_density", c.initial_density)
        try setting("mutation_flags", c.mutation_flags)
        try setting("importance_gradient", c.importance_gradient)
        try setting("importance_lambda", c.importance_lambda)
        try setting("importance_beta", c.importance_beta)
        try setting("phase1_epochs", c.phase1_epochs)
        try setting("remove_rule", c.remove_rule)
        try setting("remove_count", c.remove_count)
        try setting("remove_number", c.remove_number)
        try setting("remove_fraction", c.remove_fraction)
        try setting("keep_lowest", c.keep_lowest)
        try setting("remove_class_cap", c.remove_class_cap)
        try setting("activations", c.activations)
        try setting("scheme", c.scheme, named: schemeName)
        try setting("scheme_flags", c.scheme_flags)
        try setting("initial", c.initial)
        try setting("freeze_share", c.freeze_share)
        try setting("freeze_epochs[0]", c.freeze_epochs.0)
        try setting("freeze_epochs[1]", c.freeze_epochs.1)
        try same("sieve_absent", c.sieve_absent)
        try setting("sieve_every", c.sieve_every)
        try setting("sieve_share", c.sieve_share)
        try setting("recover_epochs", c.recover_epochs)
        try setting("recover_rate", c.recover_rate)
    }

    @inline(never)
    private mutating func describe(_ plan: Plan, _ n: Node) throws(Status) {
        let g = n.geometry
        try same("kind", UInt32(bitPattern: n.kind.rawValue))
        try same("from", UInt32(bitPattern: n.from))
        try same("with", UInt32(bitPattern: n.with))
        try same("channels", uint32(plan.channels(n) { $0.declared }))
        try same("height", uint32(n.height))
        try same("width", uint32(n.width))
        try same("kernel_h", uint32(g.kernel_h))
        try same("kernel_w", uint32(g.kernel_w))
        try same("stride_h", uint32(g.stride_h))
        try same("stride_w", uint32(g.stride_w))
        try same("pad_h", uint32(g.pad_h))
        try same("pad_w", uint32(g.pad_w))
        try same("groups", n.isDepthwise ? uint32(plan.channels(n) { $0.declared }) : 1)
        try same("flags", n.flags)
        try same("bias", uint32(n.bias.exists ? 1 : 0))
        try same("scheme", n.sparse ? n.scheme : 0, named: schemeName)
        try setting("density", n.hasMatrix ? n.density.float : 0)
        try setting("momentum", n.momentum)
        try setting("epsilon", n.epsilon)
        try setting("rate", n.rate)
    }

    /// Where training stands. Bounds: counts and times fit 31 bits, so that they fit Int on 32-bit targets.
    @inline(never)
    private mutating func position(_ s: inout ModelState, _ plan: Plan) throws(Status) {
        let config = plan.config
        let most = UInt32(Int32.max)
        try flag(&s.began)
        try number(&s.epoch, atMost: most)
        try number(&s.stepsInEpoch, atMost: most)
        try number(&s.stepsPerEpoch, atMost: most)
        try number(&s.updates)
        try number(&s.passes)
        try number(&s.gathered, atMost: microBatches &- 1)
        // A gathered gradient is divided by their number.
        if s.gathered > 0 { compare("micro_batches", config.micro_batches, microBatches) }
        try number(&s.batchesInEpoch, atMost: most)
        try flag(&s.callerBegins)
        try number(&s.events)
        try number(&s.lastLoss)
        try number(&s.mutations)
        try number(&s.mutationEpoch, atMost: most)
        try number(&s.threshold)
        try number(&s.phase, atMost: 2)
        try number(&s.trainingSamples, atMost: config.samples)
        try number(&s.forgotten)
        try number(&s.forgottenInEpoch)
        try number(&s.presentations)
        try number(&s.presentationsSaved)
        try flag(&s.orderGiven)
        try number(&s.bytesWritten)
        try flag(&s.chosen)
        if !s.chosen && !plan.choosesOnce { noteDamage() }
        try number(&s.frozen, atMost: uint32(plan.count))
        if !s.chosen && s.frozen > 0 { noteDamage() }
        try number(&s.sievings, atMost: most)
        try number(&s.returns, atMost: MEST_MOST_RETURNS)
        try number(&s.rateScale)
        if !(s.rateScale > 0 && s.rateScale <= 1) { noteDamage() }
        try flag(&s.epochIsNext)
        // Those that are out wait in a queue, which has room for so many.
        if config.sieves && s.began && int64(config.samples &- s.trainingSamples) > config.absentSamples { noteDamage() }
    }

    /// How much of a layer there is, and what the last mutation did.
    @inline(never)
    private mutating func count(_ node: UnsafeMutablePointer<Node>) throws(Status) {
        let n = node.pointee
        var all: UInt32 = 0, room: UInt32 = 0, channels = uint32(n.thin.saved)
        if n.sparse && !n.isThin {
            let units = units(of: n)
            all = uint32(min(units.positions &* units.pools, int64(Int32.max)))
            room = uint32(n.weight.capacity / int64(n.unit))
        }
        try number(&node.pointee.saved, of: all, room: room)
        try number(&channels, of: n.thin.most > 0 ? uint32(n.thin.declared) : 0, room: uint32(n.thin.most))
        if n.thin.most > 0 && channels == 0 { noteDamage() }
        node.pointee.thin.saved = int32(channels)
        var (dropped, grown, unexplored, channelsLeft) = (n.dropped, n.grown, n.unexplored, n.thin.unexplored)
        try number(&dropped)
        try number(&grown)
        try number(&unexplored)
        try number(&channelsLeft)
        if mode != .loading { return }
        (node.pointee.dropped, node.pointee.grown) = (dropped, grown)
        (node.pointee.unexplored, node.pointee.thin.unexplored) = (unexplored, channelsLeft)
    }
}

// MARK: - Arrays

extension Archive {
    /// Which connections or channels exist, row by row: how many, then their columns ascending, of kernels also
    /// the pattern. What could not have been saved is damage: a wrong index would lead out of the block.
    @inline(never)
    private mutating func connections(_ plan: Plan, _ n: Node, _ i: Int) throws(Status) {
        if n.thin.most > 0 {
            var last = -1
            try array(.channels, layer: i, n.thin.ids, int64(n.thin.saved), of: UInt16.self) {
                let ascends = int($0) > last && int($0) < int(n.thin.declared)
                last = int($0)
                return ascends
            }
        }
        if n.sparse && !n.isThin { try index(n, i) }
    }

    @inline(never)
    private mutating func index(_ n: Node, _ i: Int) throws(Status) {
        let units = units(of: n)
        let lines = isRunScheme(n.scheme) ? int64(n.rows) : units.lines
        let rows = int(lines), columns = int(units.positions &* units.pools / lines)
        let hasPatterns = n.connections.pattern.exists
        try begin(.index, layer: i, bytes: lines &* 4 &+ int64(n.saved) &* (hasPatterns ? 3 : 2))
        if mode == .counting { return }
        let start = at(n.connections.rowStart, UInt32.self)
        let column = at(n.connections.column, UInt16.self)
        let pattern = hasPatterns ? at(n.connections.pattern, UInt8.self) : nil
        let loads = mode == .loading
        var found: UInt32 = 0
        if loads { start[0] = 0 }
        for r in 0..<rows {
            let inRow = try word(start[r &+ 1] &- start[r])
            if inRow > n.saved &- found { throw damaged() }
            if units.pools > 1 && int64(inRow) &* units.pools != int64(n.saved) { throw damaged() }
            var last = -1, inGroup = 0
            for j in int(found)..<int(found &+ inRow) {
                let c = try half(column[j])
                if int(c) <= last || int(c) >= columns { throw damaged() }
                inGroup = last >= 0 && int(c) / 4 == last / 4 ? inGroup &+ 1 : 1
                if units.grouped && inGroup > 2 { throw damaged() }
                last = int(c)
                if loads { column[j] = c }
                guard let pattern else { continue }
                let p = try byte(pattern[j])
                if p > 7 { throw damaged() }
                if loads { pattern[j] = p }
            }
            found &+= inRow
            if loads { start[r &+ 1] = found }
        }
        if found != n.saved { throw damaged() }
        try end()
    }

    /// Parameters, optimizer state, statistics.
    @inline(never)
    private mutating func tensors(_ plan: Plan, _ n: Node, _ i: Int, gathers: Bool) throws(Status) {
        let weights = plan.savedWeights(n), channels = plan.channels(n) { $0.saved }
        let gradient = plan.training && (gathers || n.sparse && plan.importanceReadsGradient)
        try floats(.weight, layer: i, n.weight.value, weights)
        try floats(.weightMomentum, layer: i, n.weight.momentum, weights)
        try floats(.weightAverage, layer: i, n.weight.average, weights)
        if gradient { try floats(.weightGradient, layer: i, n.weight.gradient, weights) }
        try floats(.bias, layer: i, n.bias.value, channels)
        try floats(.biasMomentum, layer: i, n.bias.momentum, channels)
        if gathers { try floats(.biasGradient, layer: i, n.bias.gradient, channels) }
        try floats(.runningMean, layer: i, n.runningMean, channels)
        try floats(.runningVariance, layer: i, n.runningVariance, channels)
    }

    /// What is known of each sample.
    @inline(never)
    private mutating func samples(_ plan: Plan) throws(Status) {
        let places = plan.counts, samples = int64(plan.config.samples)
        let bits = (samples &+ 7) / 8
        let classes = UInt16(truncatingIfNeeded: plan.last.pointee.channels)
        try array(.forgettings, places.count, samples, of: UInt8.self) { $0 <= Forgetting.most }
        try array(.previous, places.previous, bits, of: UInt8.self) { _ in true }
        try array(.learned, places.learned, bits, of: UInt8.self) { _ in true }
        try array(.seen, places.seen, bits, of: UInt8.self) { _ in true }
        try array(.removed, places.removed, bits, of: UInt8.self) { _ in true }
        try floats(.marginSum, places.marginSum, samples)
        try array(.marginCount, places.marginCount, samples, of: UInt16.self) { _ in true }
        try array(.label, places.label, samples, of: UInt16.self) { $0 < classes || $0 == Classes.unknown }
        try array(.rank, places.rank, samples, of: UInt32.self) { $0 <= SampleOrder.unlisted }
        try array(.queue, places.queue, plan.config.absentSamples, of: UInt32.self) { $0 < plan.config.samples }
    }
}

// MARK: - How much is saved

extension Plan {
    /// Mutation looks at the gradient of the update before it.
    var importanceReadsGradient: Bool {
        config.importance_lambda > 0 && config.importance_gradient == MEST_GRADIENT_LAST
            && config.method != MEST_METHOD_STATIC
    }

    func savedWeights(_ n: Node) -> Int64 {
        if !n.weight.exists { return 0 }
        if n.kind == .batchNorm { return channels(n) { $0.saved } }
        if n.isThin { return weights(n) { $0.saved } }
        return n.sparse ? int64(n.saved) &* int64(n.unit) : n.weight.capacity
    }

    /// What exists is what a checkpoint saves.
    func countPresent() {
        for i in 0..<count {
            nodes[i].saved = nodes[i].sparse && !nodes[i].isThin ? nodes[i].units : 0
            nodes[i].thin.saved = nodes[i].thin.alive
        }
    }

    /// What a checkpoint has is what exists now.
    func takeCounts() {
        for i in 0..<count {
            if nodes[i].sparse && !nodes[i].isThin { nodes[i].units = nodes[i].saved }
            nodes[i].thin.alive = nodes[i].thin.saved
        }
        fitChannels(nodes, count)
    }

    /// Bytes of the largest checkpoint.
    func largestCheckpoint() throws(Status) -> Int64 {
        for i in 0..<count {
            let n = nodes[i]
            nodes[i].saved = n.sparse && !n.isThin ? uint32(n.weight.capacity / int64(n.unit)) : 0
            nodes[i].thin.saved = nodes[i].thin.most
        }
        var state = ModelState(plan: self, env: mest_env(), kernels: mestk_context(), ownsBlock: false)
        state.gathered = config.micro_batches > 1 ? 1 : 0
        return try checkpointBytes(&state)
    }

    /// Of what is `saved` now.
    func checkpointBytes(_ state: inout ModelState) throws(Status) -> Int64 {
        var counter = Archive()
        var header = Header(sequence: 0, size: 0)
        try counter.header(&header)
        try counter.walk(self, &state)
        return int64(counter.bytes)
    }
}
