// SPDX-License-Identifier: Apache-2.0
// Schemes: golden checks G2 to G5 of the specification, and the invariants G13 as properties of random
// layers through many mutations.

import CMest
import CMestKernels
import Testing

@testable import Mest

/// A model with one sparse layer, 1, and no way out through the C API.
final class OneLayer {
    let model: Model
    private let block: UnsafeMutableRawPointer
    var node: Node { model.nodes[1] }

    init(rows: Int, channels: Int, kernel: Int, scheme: Int, _ set: (inout mest_config) -> Void) throws {
        var config = mest_config()
        config.batch = 2
        config.epochs = 160
        config.scheme = Int32(scheme)
        set(&config)
        var layers = [layer(MEST_LAYER_INPUT) { $0.channels = UInt32(channels); $0.height = UInt32(kernel); $0.width = UInt32(kernel) }]
        if kernel == 1 {
            layers.append(layer(MEST_LAYER_LINEAR) { $0.channels = UInt32(rows) })
        } else {
            layers.append(layer(MEST_LAYER_CONV2D) { $0.channels = UInt32(rows); $0.kernel_h = UInt32(kernel) })
        }
        let message = Message(buffer: UnsafeMutablePointer<CChar>.allocate(capacity: Message.bytes))
        defer { message.buffer.deallocate() }
        let scratch = UnsafeMutableRawPointer.allocate(byteCount: Plan.scratchBytes(layers.count), alignment: 64)
        defer { scratch.deallocate() }
        let plan = try Plan.make(config, layers, layers.count, scratch: scratch, message)
        block = UnsafeMutableRawPointer.allocate(byteCount: Int(plan.bytes.total), alignment: 64)
        model = Model.create(plan, mest_env(), block: block, ownsBlock: false)
    }

    deinit { block.deallocate() }

    /// (row, column, place of the value), in CSR order.
    var connections: [(row: Int, column: Int, place: Int)] {
        withScheme(node, Collect(model: model, node: model.nodes + 1))
    }

    private struct Collect: SchemeVisitor {
        let model: Model, node: UnsafeMutablePointer<Node>
        func visit<S: Scheme>(_: S.Type) throws(Never) -> [(row: Int, column: Int, place: Int)] {
            var found: [(row: Int, column: Int, place: Int)] = []
            for r in 0..<Int(node.pointee.rows) { S.connections(model, node, row: r) { found.append((r, $0, $1)) } }
            return found
        }
    }

    var weights: mestk_weights {
        withScheme(node, Weights(model: model, node: model.nodes + 1))
    }

    private struct Weights: SchemeVisitor {
        let model: Model, node: UnsafeMutablePointer<Node>
        func visit<S: Scheme>(_: S.Type) throws(Never) -> mestk_weights { S.weights(model, node) }
    }

    /// The unit that a connection belongs to: blocks by (block, column), runs by (row, first input, tap), kernels by
    /// (row, channel).
    func unit(_ row: Int, _ column: Int) -> Int {
        let columns = Int(node.columns)
        switch Int(node.scheme) {
        case MEST_SCHEME_BLOCK4, MEST_SCHEME_BLOCK8, MEST_SCHEME_BLOCK16: return row / Int(node.unit) * columns + column
        case MEST_SCHEME_PATTERN: return row * columns + column / 9 * 9
        case MEST_SCHEME_ROW4, MEST_SCHEME_ROW8, MEST_SCHEME_ROW16:
            let taps = Int(node.taps), first = column / taps / Int(node.unit) * Int(node.unit)
            return row * columns + first * taps + column % taps
        default: return row * columns + column
        }
    }

    func mutate(_ amount: Amount, key: UInt64) {
        withScheme(node, Mutate(model: model, node: model.nodes + 1, amount: amount, key: key))
    }

    /// Values of rows and inputs that do not exist are 0.
    private func expectPhantoms(_ places: [Int], _ where_: String) {
        let n = node, exist = Set(places)
        for tensor in [n.weight.value, n.weight.gradient, n.weight.momentum] {
            let values = model.floats(tensor)
            let zeros = (0..<Int(n.units) * Int(n.unit)).allSatisfy { exist.contains($0) || values[$0].bitPattern == 0 }
            #expect(zeros, "\(where_): phantoms")
        }
    }

    /// What the scheme promises of its connections.
    func expectInvariants(_ where_: String) {
        let found = connections
        let n = node
        let columns = Int(n.columns)
        #expect(found.count == Int(n.active), "\(where_): active")
        let positions = found.map { $0.row * columns + $0.column }
        #expect(zip(positions, positions.dropFirst()).allSatisfy { $0 < $1 }, "\(where_): ascending, no duplicates")
        #expect(found.allSatisfy { $0.column < columns })
        #expect(Set(found.map { $0.place }).count == found.count, "\(where_): a place each")
        #expect(Int64(n.units) * Int64(n.unit) <= n.weight.capacity, "\(where_): capacity")
        let perRow = (0..<Int(n.rows)).map { r in found.count { $0.row == r } }
        switch Int(n.scheme) {
        case MEST_SCHEME_BLOCK4, MEST_SCHEME_BLOCK8, MEST_SCHEME_BLOCK16:
            let height = Int(n.unit)
            let sets = (0..<Int(n.rows)).map { r in found.filter { $0.row == r }.map { $0.column } }
            #expect((0..<Int(n.rows)).allSatisfy { sets[$0] == sets[$0 / height * height] }, "\(where_): whole units")
            expectPhantoms(found.map { $0.place }, where_)
        case MEST_SCHEME_ROW4, MEST_SCHEME_ROW8, MEST_SCHEME_ROW16:
            let taps = Int(n.taps), length = Int(n.unit), inputs = columns / taps
            let whole = Dictionary(grouping: found) { unit($0.row, $0.column) }.values.allSatisfy { run in
                let first = run[0].column / taps
                return first % length == 0 && run.map { $0.column / taps } == Array(first..<min(first + length, inputs))
            }
            #expect(whole, "\(where_): whole units")
            expectPhantoms(found.map { $0.place }, where_)
        case MEST_SCHEME_PATTERN:
            #expect(Set(perRow).count == 1, "\(where_): filter balance")
            let taps = mestk_patterns(model.code8)!
            let known = Set((0..<8).map { [taps[$0].0, taps[$0].1, taps[$0].2, taps[$0].3].map(Int.init) })
            for kernel in Dictionary(grouping: found, by: { unit($0.row, $0.column) }).values {
                #expect(known.contains(kernel.map { $0.column % 9 }), "\(where_): a pattern")
            }
        case MEST_SCHEME_NM24:
            let groups = Dictionary(grouping: positions) { $0 / columns * columns + $0 % columns / 4 * 4 }
            #expect(groups.values.allSatisfy { $0.count <= 2 }, "\(where_): 2 of 4")
        case MEST_SCHEME_FAN_IN:
            #expect(Set(perRow).count == 1, "\(where_): fan-in")
        default: break
        }
        // The second order: every unit once, keys ascending.
        var w = weights
        let units = Int(n.units)
        var seen = Set<Int>()
        let width = Int(mestk_unit_channels(&w))
        for c in 0..<(Int(w.channels) + width - 1) / width {
            for e in Int(w.channel_start[c])..<Int(w.channel_start[c + 1]) {
                let j = Int(w.position[e])
                seen.insert(j)
                var q = 0
                while w.row_start[q + 1] <= UInt32(j) { q += 1 }
                let taps = Int(w.form) == MESTK_FORM_PATTERN ? 1 : Int(w.taps)
                #expect(Int(w.key[e]) == q * taps + Int(w.column[j]) % taps && Int(w.column[j]) / taps == c, "\(where_): index")
            }
        }
        #expect(seen.count == units && (units == 0 || seen.max() == units - 1), "\(where_): index is whole")
    }
}

private let schemes = [
    MEST_SCHEME_UNSTRUCTURED, MEST_SCHEME_BLOCK4, MEST_SCHEME_BLOCK8, MEST_SCHEME_BLOCK16, MEST_SCHEME_PATTERN,
    MEST_SCHEME_NM24, MEST_SCHEME_FAN_IN, MEST_SCHEME_ROW4, MEST_SCHEME_ROW8, MEST_SCHEME_ROW16,
]

@Suite struct SchemeInvariants {
    /// Golden check G13 for every scheme: random shapes, densities, modes and flags; many mutations.
    @Test(arguments: 1...300) func mutations(seed: UInt64) throws {
        var random = SplitMix64(seed &* 104_729)
        let scheme = schemes[Int(seed) % schemes.count]
        let rows = 1 + Int(random.below(40)), channels = 1 + Int(random.below(30)), kernel = random.below(2) == 0 ? 1 : 3
        let most: Float = scheme == MEST_SCHEME_PATTERN ? 0.44 : scheme == MEST_SCHEME_NM24 ? 0.5 : 0.95
        let full = random.below(5) == 0
        let density = full ? most : 0.01 + (most - 0.01) * Float(random.below(100)) / 100
        let mode = [MEST_METHOD_VANILLA, MEST_METHOD_EM, MEST_METHOD_EMS][Int(random.below(3))]
        let flags = UInt32(random.below(8)), code8 = UInt32(random.below(2))
        let lambda: Float = random.below(2) == 0 ? 0 : 0.01
        let setting: (inout mest_config) -> Void = {
            $0.density = density; $0.method = Int32(mode); $0.mutation_flags = flags; $0.scheme_flags = code8
            $0.importance_lambda = lambda; $0.seed = seed; $0.allow_empty_rows = UInt32(seed % 2)
        }
        let what = "seed \(seed): scheme \(scheme), \(rows) x \(channels) x \(kernel), density \(density), mode \(mode), flags \(flags)"
        let one = try OneLayer(rows: rows, channels: channels, kernel: kernel, scheme: scheme, setting)
        let twin = try OneLayer(rows: rows, channels: channels, kernel: kernel, scheme: scheme, setting)
        one.expectInvariants(what)
        let plan = one.model.state.pointee.plan
        let units = Mest.units(of: one.node)
        let pools = Int(units.pools)
        #expect(Int64(one.node.units) == plan.initialUnits(one.node) * units.pools, "\(what): at the start")
        let scratch = one.model.at(plan.workspace, UInt8.self)
        let planned = Int(plan.bytes.mutation), rest = Int(plan.bytes.workspace) - planned
        for epoch in [0, 5, 10, 90, 95, 120, 125] as [UInt32] {
            let stored = Int(one.node.units) * Int(one.node.unit)
            let places = Set(one.connections.map { $0.place })
            for i in 0..<stored where places.contains(i) {
                for other in [one, twin] {
                    var copy = random
                    other.model.floats(other.node.weight.value)[i] = Float(copy.below(9)) - 4  // ties and zeros
                    other.model.floats(other.node.weight.gradient)[i] = Float(copy.below(100))
                    other.model.floats(other.node.weight.momentum)[i] = Float(1 + copy.below(1000))
                    if other === twin { random = copy }
                }
            }
            let value = one.model.floats(one.node.weight.value), momentum = one.model.floats(one.node.weight.momentum)
            var state: [Int: (Float, Float)] = [:]
            let columns = Int(one.node.columns)
            var norm: [Int: Double] = [:]
            let before = one.connections
            for c in before {
                state[c.row * columns + c.column] = (value[c.place], momentum[c.place])
                norm[one.unit(c.row, c.column), default: 0] += Double(value[c.place]) * Double(value[c.place])
            }
            let perPool = Int64(one.node.units) / units.pools
            let amount = plan.amount(one.node, epoch: epoch, active: perPool)
            for i in 0..<rest { scratch[planned + i] = 0xA5 }
            one.model.mutate(epoch: epoch, resting: 0)
            twin.model.mutate(epoch: epoch, resting: 0)
            #expect((0..<rest).allSatisfy { scratch[planned + $0] == 0xA5 }, "\(what): scratch as planned")
            one.expectInvariants("\(what), epoch \(epoch)")
            #expect(Int(one.node.units) == Int(amount.after) * pools, "\(what), epoch \(epoch): units")
            if mode == MEST_METHOD_EMS && flags & 2 == 0 && epoch == 120 {
                #expect(one.node.units == UInt32(plan.initialUnits(one.node)) * UInt32(pools), "\(what): back at the target")
            }

            let after = one.connections
            var survivors = Set<Int>()
            for c in after {
                let position = c.row * columns + c.column
                let (v, m) = (value[c.place], momentum[c.place])
                if let (oldV, oldM) = state[position], (v, m) == (oldV, oldM) || flags & 1 != 0 {
                    if flags & 1 != 0 && (v, m) != (oldV, oldM) {
                        #expect(v == 0 && m == 0, "\(what): grown at 0")
                        continue
                    }
                    survivors.insert(one.unit(c.row, c.column))
                } else {
                    #expect(v == 0 && m == 0, "\(what), epoch \(epoch): grown at 0")
                }
            }
            // Those that left were not more important than those that stayed, pool by pool.
            if lambda == 0 && flags & 4 == 0 {
                let poolOf: (Int) -> Int = { pools == 1 ? 0 : $0 / columns }
                var least: [Int: Double] = [:], gone: [Int: Double] = [:]
                for (unit, square) in norm {
                    if survivors.contains(unit) {
                        least[poolOf(unit)] = min(least[poolOf(unit)] ?? .infinity, square)
                    } else {
                        gone[poolOf(unit)] = max(gone[poolOf(unit)] ?? 0, square)
                    }
                }
                for (pool, square) in gone { #expect(square <= least[pool] ?? .infinity, "\(what): the least important leave") }
            }
            // The same seed takes the same decisions.
            #expect(twin.connections.map { [$0.row, $0.column, $0.place] } == after.map { [$0.row, $0.column, $0.place] })
            let report = one.model.mutationReport()
            #expect(Int(report.active) == after.count)
            #expect(Int(report.grown) - Int(report.dropped) == after.count - before.count, "\(what): the report adds up")
            #expect(report.explored >= 0 && report.explored <= 1)
        }
    }

    /// Excluded connections come back only when nothing else is free.
    @Test(arguments: 1...50) func droppedStayAway(seed: UInt64) throws {
        let scheme = schemes[Int(seed) % schemes.count]
        let one = try OneLayer(rows: 12, channels: 20, kernel: 3, scheme: scheme) {
            $0.density = 0.2; $0.method = Int32(MEST_METHOD_VANILLA); $0.seed = seed
            $0.mutation_flags = UInt32(MEST_MUTATION_EXCLUDE_DROPPED)
        }
        let columns = Int(one.node.columns)
        let value = one.model.floats(one.node.weight.value)
        let before = Dictionary(uniqueKeysWithValues: one.connections.map { ($0.row * columns + $0.column, value[$0.place]) })
        one.model.mutate(epoch: 0, resting: 0)
        for c in one.connections {
            let old = before[c.row * columns + c.column]
            if one.node.scheme == MEST_SCHEME_PATTERN { continue }  // another pattern of a grown kernel may overlap
            #expect(old == nil || old == value[c.place], "a dropped connection came back")
        }
    }

    /// 2:4 at density 0.5: exactly 2 of every 4, before and after any mutation.
    @Test(arguments: [1, 2, 3, 4, 5, 7, 8, 21]) func twoOfFourIsExact(columns: Int) throws {
        let one = try OneLayer(rows: 9, channels: columns, kernel: 1, scheme: MEST_SCHEME_NM24) {
            $0.density = columns == 1 ? 0.4 : 0.5; $0.method = Int32(MEST_METHOD_VANILLA)
        }
        for epoch in 0..<4 as Range<UInt32> {
            if columns % 4 == 0 {
                for r in 0..<9 {
                    for g in 0..<columns / 4 {
                        #expect(one.connections.count { $0.row == r && $0.column / 4 == g } == 2)
                    }
                }
            }
            one.model.mutate(epoch: epoch, resting: 0)
            one.expectInvariants("\(columns) columns")
        }
    }
}

@Suite struct GoldenSchemes {
    /// G2: 8 x 3, blocks of 4. lo = .5 keeps (0,0), (0,2), (1,2); to 1/3 sparsity grows 1 of the 3 empty units.
    @Test func blocks() throws {
        let one = try OneLayer(rows: 8, channels: 3, kernel: 1, scheme: MEST_SCHEME_BLOCK4) {
            $0.density = 0.99; $0.method = Int32(MEST_METHOD_VANILLA)
        }
        #expect(one.node.units == 6 && one.node.unit == 4)
        let units: [[Float]] = [[3, 0, 0, 4], [1, 0, 0, 0], [0, 0, 0, 2], [0.5, 0.5, 0.5, 0.5], [0, 0, 0, 0.1], [2, 2, 1, 0]]
        let value = one.model.floats(one.node.weight.value)
        for (j, unit) in units.enumerated() { for i in 0..<4 { value[j * 4 + i] = unit[i] } }
        one.mutate(Amount(keep: 3, after: 3), key: 1)
        #expect(Set(one.connections.map { one.unit($0.row, $0.column) }) == [0, 2, 5])
        #expect(one.node.dropped == 12 && one.node.grown == 0 && one.node.active == 12)
        #expect((0..<12).map { value[$0] } == units[0] + units[2] + units[5])
        one.mutate(Amount(keep: 3, after: 4), key: 7)
        #expect(one.node.dropped == 0 && one.node.grown == 4 && one.node.active == 16)
    }

    /// G3: of a full kernel the pattern that keeps most of it; the lower number of equals.
    @Test(arguments: [
        ([0.1, 0.9, 0.2, 0.8, 1, 0.3, 0.4, 0.5, 0.6], 8, 8), ([0.1, 0.2, 0.9, 0.2, 0.1, 1, 0.3, 0.8, 0.9], 1, 5),
        ([0, 0, 0, 0, 0, 0, 0, 0, 0], 1, 1),
    ] as [([Double], Int, Int)])
    func patterns(kernel: [Double], centre: Int, code: Int) {
        for (code8, wanted) in [(0, centre), (1, code)] as [(Int32, Int)] {
            let taps = mestk_patterns(code8)!
            var best = (id: 0, sum: -1.0)
            for id in 0..<8 {
                let t = taps[id]
                let sum = [t.0, t.1, t.2, t.3].reduce(0) { $0 + kernel[Int($1)] * kernel[Int($1)] }
                if sum > best.sum + 1e-12 { best = (id + 1, sum) }
                #expect(t.0 < t.1 && t.1 < t.2 && t.2 < t.3 && t.3 < 9)
                #expect([t.0, t.1, t.2, t.3].contains(4) || (code8 == 1 && id == 4), "the centre is kept")
            }
            #expect(best.id == wanted)
        }
    }

    /// G4 through the scheme: of 4 kernels a filter, the least important leaves each.
    @Test func filterBalance() throws {
        let one = try OneLayer(rows: 2, channels: 4, kernel: 3, scheme: MEST_SCHEME_PATTERN) {
            $0.density = 0.444444; $0.method = Int32(MEST_METHOD_VANILLA)
        }
        #expect(one.node.units == 8)
        let value = one.model.floats(one.node.weight.value)
        for (j, norm) in ([4, 1, 3, 2, 1, 2, 3, 4] as [Float]).enumerated() {
            for i in 0..<4 { value[j * 4 + i] = i == j % 4 ? norm : 0 }
        }
        one.mutate(Amount(keep: 3, after: 3), key: 1)
        #expect(Set(one.connections.map { $0.row * 4 + $0.column / 9 }) == [0, 2, 3, 5, 6, 7])
    }

    /// G5, counts as the authors' code rounds them: N, initial, then after the three phases.
    @Test(arguments: [
        (32, 32, 896), (64, 32, 1792), (64, 64, 3584), (128, 64, 7168), (128, 128, 14336),
    ])
    func patternCounts(rows: Int, channels: Int, em: UInt32) throws {
        let one = try OneLayer(rows: rows, channels: channels, kernel: 3, scheme: MEST_SCHEME_PATTERN) {
            $0.density = 0.1; $0.method = Int32(MEST_METHOD_EM); $0.mutation_flags = UInt32(MEST_MUTATION_ROUND_COMPAT)
            $0.mutation_rate = 0.2
        }
        // Kernels at .900 overall: Cin - trunc(Cin * .775).
        #expect(Int(one.node.units) == rows * (channels - channels * 775 / 1000))
        for epoch in [0, 5, 90, 120] as [UInt32] { one.model.mutate(epoch: epoch, resting: 0) }
        #expect(one.node.active == em)
    }

    /// G5: the values of the authors' script for patterns, kernel sparsities that their code takes for those of weights and
    /// converts once more: 22.2 % of the weights.
    @Test(arguments: [(32, 32, 2048), (64, 32, 4096), (64, 64, 8192), (128, 64, 16384), (128, 128, 32768)])
    func patternCountsOfTheScript(rows: Int, channels: Int, wanted: UInt32) throws {
        let one = try OneLayer(rows: rows, channels: channels, kernel: 3, scheme: MEST_SCHEME_PATTERN) {
            $0.density = 0.225; $0.method = Int32(MEST_METHOD_EM); $0.mutation_flags = UInt32(MEST_MUTATION_ROUND_COMPAT)
            $0.mutation_rate = 0.2
        }
        for epoch in [0, 5, 90, 120] as [UInt32] {
            one.model.mutate(epoch: epoch, resting: 0)
            #expect(one.node.active == wanted, "epoch \(epoch)")
        }
    }

    @Test func blockCounts() throws {
        for (mode, wanted) in [(MEST_METHOD_EM, [920, 920, 920]), (MEST_METHOD_EMS, [1380, 1152, 924])] as [(Int, [UInt32])] {
            let one = try OneLayer(rows: 32, channels: 32, kernel: 3, scheme: MEST_SCHEME_BLOCK4) {
                $0.density = 0.1; $0.method = Int32(mode); $0.mutation_flags = UInt32(MEST_MUTATION_ROUND_COMPAT)
            }
            #expect(one.node.active == 924)
            var reached: [UInt32] = []
            for epoch in stride(from: 0 as UInt32, to: 160, by: 5) {
                one.model.mutate(epoch: epoch, resting: 0)
                if [85, 115, 155].contains(epoch) { reached.append(one.node.active) }
            }
            #expect(reached == wanted)
        }
    }

    /// Sparse Kaiming by the row's own fan-in, whatever the unit.
    @Test(arguments: schemes) func initialValues(scheme: Int) throws {
        let one = try OneLayer(rows: 128, channels: 64, kernel: 3, scheme: scheme) { $0.density = 0.2 }
        let value = one.model.floats(one.node.weight.value)
        var energy = 0.0
        for c in one.connections { energy += Double(value[c.place]) * Double(value[c.place]) }
        #expect(abs(energy / 128 - 2) < 0.1, "\(energy / 128)")  // each row: fan * 2 / fan
    }
}
