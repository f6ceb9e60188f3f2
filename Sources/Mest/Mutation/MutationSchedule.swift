// SPDX-License-Identifier: Apache-2.0
// When connections move and how many, by method: vanilla, Elastic Mutation (EM), Soft memory-bound EM (EM&S),
// decaying by staircase or cosine; SET; SRigL; gradual pruning (GMP). Counts rounded exactly or as the authors' code does.

import CMest
import CMestKernels

/// Densities that a mutation drops to and grows to.
struct MutationLevels {
    var low: Ratio
    var high: Ratio
}

extension mest_config {
    /// Methods that come to rest at mutation_epochs[1].
    var decays: Bool {
        method == MEST_METHOD_EM || method == MEST_METHOD_EMS || method == MEST_METHOD_GMP || method == MEST_METHOD_DSR
            || method == MEST_METHOD_SRIGL || growsByGradient
    }

    /// Methods after whose first step connections stay.
    var rests: Bool { method == MEST_METHOD_STATIC || method == MEST_METHOD_SNIP || method == MEST_METHOD_GRASP }
}

extension Plan {
    /// Whether connections move at the start of this epoch: every mutation_every epochs, epoch 0
    /// included; and when the decay has ended, whatever mutation_every says, so that EM&S and GMP come down
    /// to their target. SET, SRIGL: between epochs.
    func mutates(at epoch: UInt32) -> Bool {
        if config.rests || growsByGradient { return false }
        if (config.method == MEST_METHOD_SET || ranksLayers) && epoch == 0 { return false }
        if sharesOut { return epoch > 0 && epoch < config.mutation_epochs.1 && epoch % config.mutation_every == 0 }
        if config.method == MEST_METHOD_LOTTERY {
            return epoch > 0 && epoch % config.mutation_every == 0 && prunes(after: epoch &- 1)
        }
        let settles = config.decays && epoch == config.mutation_epochs.1
        return settles || epoch % config.mutation_every == 0
    }

    /// 1 at the start, 0 when the topology has settled.
    func mutationDecay(_ epoch: UInt32) -> Ratio {
        if !config.decays || sharesOut { return .one }
        let (first, last) = config.mutation_epochs
        if epoch >= last { return .zero }
        if config.mutation_decay == MEST_DECAY_COSINE {
            let position = Double(int(epoch)) / Double(int(last))
            return Ratio(mestk_float_double(0.5 * (1 + mestk_cos_double(Double.pi * position))))
        }
        return epoch >= first ? Ratio(billionths: 500_000_000) : .one
    }

    /// RigL, GSE, SRigL: share of the connections that moves, falling like half a cosine to 0 at mutation_epochs[1].
    func movedShare(epoch: UInt32, update: UInt32 = 0, steps: UInt32 = 1) -> Ratio {
        let position = (Double(int(epoch)) + Double(int(update)) / Double(int(max(1, steps)))) / Double(int(config.mutation_epochs.1))
        if position > 1 { return .zero }
        return Ratio(config.mutation_rate * mestk_float_double(0.5 * (1 + mestk_cos_double(Double.pi * position))))
    }

    /// EM: drop below the target, grow back to it. EM&S: grow beyond the target, drop back to it.
    func levels(_ node: Node, epoch: UInt32) -> MutationLevels {
        let target = node.density
        if config.method == MEST_METHOD_GMP {
            let now = pruned(node, epoch: epoch)
            return MutationLevels(low: now, high: now)
        }
        if config.method == MEST_METHOD_LOTTERY {
            let now = lotteryDensity(node, epoch: epoch)
            return MutationLevels(low: now, high: now)
        }
        let decay = mutationDecay(epoch)
        if config.method == MEST_METHOD_EMS {
            return MutationLevels(low: target, high: target + extra(target, withScheme(node, Densest())) * decay)
        }
        return MutationLevels(low: target - Ratio(config.mutation_rate) * decay * target, high: target)
    }

    /// GMP: d = target + (initial - target) (1 - t)^3, t from 0 to 1 at mutation_epochs[1].
    private func pruned(_ node: Node, epoch: UInt32) -> Ratio {
        let last = config.mutation_epochs.1
        if epoch >= last { return node.density }
        let left = Double(int(last &- epoch)) / Double(int(last))
        let above = initialDensity(node) - node.density
        return node.density + above * Ratio(mestk_float_double(left * left * left))
    }

    /// Density of a sparse layer when training begins.
    func initialDensity(_ node: Node) -> Ratio {
        if config.method == MEST_METHOD_GRASP { return candidateDensity(node.density) }
        if config.method != MEST_METHOD_GMP && config.method != MEST_METHOD_LOTTERY { return node.density }
        let densest = withScheme(node, Densest())
        return Ratio(billionths: max(node.density.billionths, min(Ratio(config.initial_density).billionths, densest.billionths)))
    }

    /// Density above the target: the config's, else 0.05 as the authors' scripts use at 90 and 95 %
    /// sparsity; beyond 95 % they have none, and half the target keeps the peak at 1.5 times it.
    private func extra(_ target: Ratio, _ densest: Ratio) -> Ratio {
        let room = max(0, (densest - target).billionths)
        if config.mutation_extra > 0 {
            return Ratio(billionths: min(room, Ratio(config.mutation_extra).billionths))
        }
        let usual: Int64 = 50_000_000
        return Ratio(billionths: min(room, target.billionths >= usual ? usual : target.billionths / 2))
    }

    /// SRIGL: the rows of a layer have as many connections each, but are ranked as one pool.
    var ranksLayers: Bool { config.method == MEST_METHOD_SRIGL }

    /// Pools of a layer that are ranked apart.
    func ranked(_ units: Units) -> Int64 { ranksLayers ? 1 : units.pools }

    /// What a mutation at this epoch does to a pool with `active` units; where layers are ranked, to a layer.
    func amount(_ node: Node, epoch: UInt32, active: Int64) -> Amount {
        if ranksLayers {
            let leaving = movedShare(epoch: epoch).floor(of: active)
            return Amount(keep: active &- leaving, after: initialUnits(node) &* units(of: node).pools)
        }
        let levels = levels(node, epoch: epoch)
        let units = units(of: node)
        let n = units.positions
        let (low, high) = (units.density(levels.low), units.density(levels.high))
        var keep = kept(units, low)
        if levels.low == levels.high {
            // Settled. A layer that was set to fewer connections than its target still gets them (the
            // authors' rounding leaves one missing, and so it stays).
            return Amount(keep: keep, after: roundsCompat ? min(active, keep) : keep)
        }
        if roundsCompat {
            let survivors = min(active, keep)
            let after = survivors &+ Plan.grownCompat(n, high, zeros: n &- survivors)
            return Amount(keep: keep, after: min(after, units.most))
        }
        var after = min(units.most, Plan.rounded(n, high))
        if (units.pools > 1 || units.channels) && keep >= after {
            // Rows and groups of channels are small pools: at least one unit of each moves.
            if config.method == MEST_METHOD_EMS {
                after = min(units.most, keep &+ 1)
            } else {
                keep = max(1, after &- 1)
            }
        }
        return Amount(keep: keep, after: max(min(active, keep), after))
    }

    /// Methods whose connections are above the target at times: a layer that freezes comes down to it first.
    var settlesWhenFrozen: Bool { config.method == MEST_METHOD_EMS || config.method == MEST_METHOD_GMP }

    /// What that does to a pool with `active` units: nothing grows that would never learn.
    func settledAmount(_ node: Node, active: Int64) -> Amount? {
        if !settlesWhenFrozen { return nil }
        let keep = amount(node, epoch: config.mutation_epochs.1, active: active).keep
        return Amount(keep: keep, after: min(active, keep))
    }

    private var roundsCompat: Bool { config.mutation_flags & UInt32(MEST_MUTATION_ROUND_COMPAT) != 0 }

    /// Units of a pool at a density of units.
    private func kept(_ units: Units, _ density: Ratio) -> Int64 {
        if !roundsCompat { return min(units.most, Plan.rounded(units.positions, density)) }
        let n = units.positions
        // Of a single unit the authors' count is 0: a layer of nothing.
        return min(units.most, max(1, units.pools > 1 ? Plan.keptBalancedCompat(n, density) : Plan.keptCompat(n, density)))
    }

    /// Units at density d: at least 1.
    static func rounded(_ n: Int64, _ density: Ratio) -> Int64 { max(1, density.round(of: n)) }

    /// The authors' code: "strictly above the percentile", N - floor(s * (N - 1)) - 1.
    static func keptCompat(_ n: Int64, _ density: Ratio) -> Int64 {
        n &- (Ratio.one - density).floor(of: n &- 1) &- 1
    }

    /// The authors' code where every filter drops as many kernels: N - trunc(s * N).
    static func keptBalancedCompat(_ n: Int64, _ density: Ratio) -> Int64 { n &- (Ratio.one - density).floor(of: n) }

    /// The authors' code: trunc(zeros - s * N).
    static func grownCompat(_ n: Int64, _ density: Ratio, zeros: Int64) -> Int64 {
        let billionths = zeros &* 1_000_000_000 &- (Ratio.one - density).billionths &* n
        return max(0, billionths / 1_000_000_000)
    }

    /// Units of a pool at the start, at the target.
    func initialUnits(_ node: Node) -> Int64 {
        let units = units(of: node)
        return node.sparse ? max(1, kept(units, units.density(initialDensity(node)))) : units.positions
    }

    /// Units of a pool at the target.
    func targetUnits(_ node: Node) -> Int64 {
        let units = units(of: node)
        return max(1, kept(units, units.density(node.density)))
    }

    /// Weights at the target, rounded exactly.
    func targetWeights(_ node: Node) -> Int64 {
        if node.isThin { return weights(node) { $0.target } }
        let units = units(of: node)
        if !node.sparse { return units.positions }
        return units.expectedWeights(min(units.most, Plan.rounded(units.positions, units.density(node.density))))
    }

    /// Most units a pool will ever have: growth is largest at epoch 0.
    func mostUnits(_ node: Node) -> Int64 {
        let start = initialUnits(node)
        if scoresAll && node.sparse { return room(node, level: roomLevel) }
        if !node.sparse || config.rests || ranksLayers { return start }
        let units = units(of: node)
        if sharesOut { return min(units.most, 2 &* start) }
        let high = min(units.most, Plan.rounded(units.positions, units.density(levels(node, epoch: 0).high)))
        return max(max(start, high), amount(node, epoch: 0, active: start).after)
    }

    /// Most units of `active` in a pool that leave where others come. SET counts by the sign.
    private func mostReplaced(_ node: Node, _ active: Int64) -> Int64 {
        let share = config.method == MEST_METHOD_SET ? Ratio(config.mutation_rate).floor(of: active) : 0
        return max(share, active &- amount(node, epoch: 0, active: active).keep)
    }

    /// Most units that a mutation within the schedule grows in a layer whose pools have at most `most`. One that
    /// was set to fewer connections grows in several rounds of this size.
    func mostGrown(_ node: Node, _ most: Int64) -> Int64 {
        if !node.sparse || config.rests { return 0 }
        let pools = units(of: node).pools
        let ranked = ranked(units(of: node))
        func grown(_ inPool: Int64) -> Int64 {
            let active = inPool &* (pools / ranked)
            return amount(node, epoch: 0, active: active).after &- (active &- mostReplaced(node, active))
        }
        return max(max(grown(initialUnits(node)), grown(most)), 1) &* ranked
    }

    /// Whether growth must know what has left. GMP and LOTTERY grow nothing, and any number may leave.
    var excludesDropped: Bool {
        config.mutation_flags & UInt32(MEST_MUTATION_EXCLUDE_DROPPED) != 0 && config.method != MEST_METHOD_GMP
            && config.method != MEST_METHOD_LOTTERY
    }

    /// Workspace that the largest mutation of the largest layer needs: the table that the growth of the
    /// last pool is drawn in, behind what the others draw, behind the dropped positions.
    /// Channels also move when connections are set, whatever the mutation.
    func mutationScratch() -> Int64 {
        var channels: Int64 = 0
        for i in 0..<count { channels = max(channels, Channels.scratchBytes(nodes[i].thin)) }
        if config.rests || !training { return aligned(channels) }
        var most = channels
        for i in 0..<count where nodes[i].sparse && !nodes[i].isThin {
            let ranked = ranked(units(of: nodes[i]))
            let capacity = nodes[i].weight.capacity / int64(nodes[i].unit) / ranked
            // By one threshold for all layers all may leave the same one.
            let anyNumber = sharesOut || thresholdIsGlobal
            let dropped = anyNumber ? capacity : mostReplaced(nodes[i], capacity)
            let grown = nodes[i].mostGrown
            let inLastPool = min(grown, nodes[i].weight.capacity / int64(nodes[i].unit) / units(of: nodes[i]).pools)
            let drawn = grown &- inLastPool &+ NumberSet.tableCount(inLastPool)
            most = max(most, 4 &* (drawn &+ (excludesDropped ? ranked &* dropped : 0)))
        }
        return aligned(most)
    }
}
