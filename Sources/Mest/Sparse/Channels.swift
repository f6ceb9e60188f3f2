// SPDX-License-Identifier: Apache-2.0
// Channels: a group of them at work. They are drawn, scored, dropped and grown as the connections of a row of
// length `declared` would be; then every tensor that has them is packed anew, in place. O(weights).

import CMest
import CMestKernels

struct Channels {
    private let model: Model
    private let first: UnsafeMutablePointer<Node>  // of the group
    private let scratch: Scratch

    /// In the workspace: 16 bytes a channel.
    private struct Scratch {
        let sums: UnsafeMutablePointer<Double>    // of squared importances
        let table: UnsafeMutablePointer<UInt32>   // of the growth, over the sums: 2 words for each that grows
        let carried: UnsafeMutablePointer<Float>  // what moves with an id: the place it had, from 1; 0: it is new
        let origin: UnsafeMutablePointer<UInt32>  // the same when all have moved; before, ids that must not grow
        let start: UnsafeMutablePointer<UInt32>

        init(_ base: UnsafeMutableRawPointer, most: Int) {
            sums = base.assumingMemoryBound(to: Double.self)
            table = base.assumingMemoryBound(to: UInt32.self)
            carried = (base + 8 &* most).assumingMemoryBound(to: Float.self)
            origin = (base + 12 &* most).assumingMemoryBound(to: UInt32.self)
            start = (base + 16 &* most).assumingMemoryBound(to: UInt32.self)
        }
    }

    static func scratchBytes(_ group: ChannelGroup) -> Int64 { group.most > 0 ? 16 &* int64(group.most) &+ 8 : 0 }

    init(_ model: Model, _ first: UnsafeMutablePointer<Node>) {
        self.model = model
        self.first = first
        scratch = Scratch(model.raw(model.state.pointee.plan.workspace), most: int(first.pointee.thin.most))
    }

    private var group: ChannelGroup { first.pointee.thin }
    private var ids: UnsafeMutablePointer<UInt16> { model.at(group.ids, UInt16.self) }

    /// The first `alive` ids as a row of connections.
    private func row(of alive: Int) -> SparseRows {
        scratch.start[0] = 0
        scratch.start[1] = uint32(alive)
        for c in 0..<alive { scratch.carried[c] = Float(c &+ 1) }
        return SparseRows(
            rows: 1, columns: int(group.declared), start: scratch.start, column: ids, value: scratch.carried)
    }

    /// Uniform over those declared. Values are drawn by the layers, afterwards.
    func initialise() {
        var random = SplitMix64(streamKey(model.config.seed, .topology, layer: int(first.pointee.index), number: 0))
        row(of: 0).drawUniform(count: int(group.start), &random)
        first.pointee.thin.alive = group.start
        first.pointee.thin.unexplored = 1 - Float(int(group.start)) / Float(int(group.declared))
        fitChannels(model.nodes, model.count)
    }

    // MARK: Mutation

    func mutate(_ amount: Amount, number: UInt32) {
        let before = int(group.alive)
        let row = row(of: before)
        let excludes = model.config.mutation_flags & UInt32(MEST_MUTATION_EXCLUDE_DROPPED) != 0
        let drop = max(0, before &- int(amount.keep))
        if drop > 0 {
            score()
            row.drop(drop, recordTo: excludes ? scratch.origin : nil) {
                mestk_float_double(mestk_sqrt_double(scratch.sums[$0]))
            }
        }
        var avoided = excludes ? drop : 0
        var random = SplitMix64(streamKey(model.config.seed, .growth, layer: int(first.pointee.index), number: uint64(number)))
        while row.count < int(amount.after) {
            let free = int(group.declared) &- row.count &- avoided
            let grown = min(int(amount.after) &- row.count, free)
            if grown <= 0 {
                if avoided == 0 { break }
                avoided = 0  // nothing else is free: what was just dropped may come back
                continue
            }
            Floyd.draw(grown, below: uint64(free), &random, table: scratch.table)
            row.grow(scratch.table, grown, avoiding: scratch.origin, avoided)
            first.pointee.thin.unexplored *= 1 - Float(grown) / Float(free)
        }
        for c in 0..<row.count { scratch.origin[c] = uint32(mestk_u64_double(Double(scratch.carried[c]))) }
        arrange(after: row.count, mutation: number)
    }

    /// The channels that `each` names, ids ascending: those that are new begin as grown ones.
    func adopt(_ each: ((Int) -> Void) -> Void) {
        let known = ChannelIds(model, first.pointee)
        let (origin, ids) = (scratch.origin, ids)
        var n = 0
        each { id in
            origin[n] = uint32((known.stored(id) ?? -1) &+ 1)
            n &+= 1
        }
        n = 0
        each { id in
            ids[n] = UInt16(truncatingIfNeeded: id)
            n &+= 1
        }
        arrange(after: n)
    }

    /// Squares of the importances of what a channel has in the layers that make it or read it.
    private func score() {
        let g = first.pointee.index
        for c in 0..<int(group.alive) { scratch.sums[c] = 0 }
        for i in 0..<model.count where model.nodes[i].hasMatrix && !model.nodes[i].isDepthwise {
            let n = model.nodes[i]
            let from = model.nodes[int(n.from)]
            let byRows = group.byRows && n.group == g
            let byColumns = group.byColumns && from.group == g
            if !byRows && !byColumns { continue }
            let importance = Importance(model, model.nodes + i)
            let wide = int(n.taps &* from.span)
            var w = 0
            for r in 0..<int(n.channels) {
                for c in 0..<int(n.inputs / from.span) {
                    var sum = 0.0
                    for _ in 0..<wide {
                        let part = Double(importance.ofWeight(w))
                        sum += part * part
                        w &+= 1
                    }
                    if byRows { scratch.sums[r] += sum }
                    if byColumns { scratch.sums[c] += sum }
                }
            }
        }
    }

    // MARK: Packing

    /// How a group changes: channel c of `after` was number origin[c] of `before`, from 1; 0: it is new.
    private struct Change {
        let before: Int
        let after: Int
        let origin: UnsafeMutablePointer<UInt32>

        /// A tensor [outer][channels][inner]: packs those that stay, then makes room from the end; new ones are 0.
        /// Neither pass overwrites what it has still to move.
        func apply(_ x: UnsafeMutablePointer<Float>, outer: Int, inner: Int) {
            var packed = 0
            for o in 0..<outer {
                for c in 0..<after where origin[c] > 0 {
                    let from = (o &* before &+ int(origin[c]) &- 1) &* inner
                    for i in 0..<inner { x[packed &+ i] = x[from &+ i] }
                    packed &+= inner
                }
            }
            var to = outer &* after &* inner
            for _ in 0..<outer {
                var c = after &- 1
                while c >= 0 {
                    let stays = origin[c] > 0
                    for _ in 0..<inner {
                        to &-= 1
                        if stays { packed &-= 1 }
                        x[to] = stays ? x[packed] : 0
                    }
                    c &-= 1
                }
            }
        }
    }

    /// mutation: the one that grew what is new; nil: it was adopted.
    private func arrange(after: Int, mutation: UInt32? = nil) {
        let change = Change(before: int(group.alive), after: after, origin: scratch.origin)
        var survivors: Int32 = 0
        for c in 0..<after where change.origin[c] > 0 { survivors &+= 1 }
        first.pointee.thin.survivors = survivors
        if int(survivors) == change.before && int(survivors) == after { return }
        for i in 1..<model.count { arrange(model.nodes[i], change, mutation) }
        first.pointee.thin.alive = int32(after)
        fitChannels(model.nodes, model.count)
    }

    /// Columns, then rows. A grown channel does not change what the network computes: its columns are 0.
    private func arrange(_ n: Node, _ change: Change, _ mutation: UInt32?) {
        let g = first.pointee.index
        let from = model.nodes[int(n.from)]
        var inputs = int(n.inputs)
        if n.hasMatrix && !n.isDepthwise && from.group == g {
            move(n.weight, change, outer: int(n.channels), inner: int(from.span &* n.taps))
            inputs = change.after &* int(from.span)
        }
        if n.group != g { return }
        let span = int(n.span)
        let row = n.hasMatrix ? inputs &* int(n.taps) : 1
        move(n.weight, change, outer: 1, inner: span &* row)
        move(n.bias, change, outer: 1, inner: span)
        move(n.runningMean, change, outer: 1, inner: span)
        move(n.runningVariance, change, outer: 1, inner: span)
        if n.hasMatrix { drawRows(n, change, span: span, row: row, mutation) }
        if n.kind == .batchNorm {
            setNew(n.weight.value, change, span)
            setNew(n.runningVariance, change, span)
        }
    }

    private func move(_ p: Parameter, _ change: Change, outer: Int, inner: Int) {
        move(p.value, change, outer: outer, inner: inner)
        move(p.gradient, change, outer: outer, inner: inner)
        move(p.momentum, change, outer: outer, inner: inner)
        move(p.average, change, outer: outer, inner: inner)
    }

    private func move(_ place: Place, _ change: Change, outer: Int, inner: Int) {
        if place.exists { change.apply(model.floats(place), outer: outer, inner: inner) }
    }

    private func setNew(_ place: Place, _ change: Change, _ span: Int) {
        if !place.exists { return }
        for c in 0..<change.after where change.origin[c] == 0 {
            for i in 0..<span { model.floats(place)[c &* span &+ i] = 1 }
        }
    }

    /// w ~ N(0, (0.1 s)^2), s of Kaiming: at 0 batch norm would divide by nothing and the channel never learn.
    /// A mutation draws all it grows from one stream. Adopted channels come in any number of calls: each has its own.
    private func drawRows(_ n: Node, _ change: Change, span: Int, row: Int, _ mutation: UInt32?) {
        let value = model.floats(n.weight.value)
        let deviation = 0.1 * mestk_sqrt(2 / Float(row))
        func stream(_ purpose: Purpose, _ number: UInt64) -> SplitMix64 {
            SplitMix64(streamKey(model.config.seed, purpose, layer: int(n.index), number: number))
        }
        var random = stream(.grownValue, uint64(mutation ?? 0))
        for c in 0..<change.after where change.origin[c] == 0 {
            if mutation == nil { random = stream(.adoptedValue, uint64(int(ids[c]))) }
            for i in (c &* span &* row)..<((c &+ 1) &* span &* row) { value[i] = deviation * random.normal() }
        }
    }
}
