// SPDX-License-Identifier: Apache-2.0
// Schemes: golden checks G2 to G5 of the specification, and the invariants G13 as properties of random
// layers through many mutations.

import CMest
import CMestKernels
import Testing

@testable import Mest

private let schemes = [
    MEST_SCHEME_UNSTRUCTURED, MEST_SCHEME_BLOCK4, MEST_SCHEME_BLOCK8, MEST_SCHEME_BLOCK16, MEST_SCHEME_PATTERN,
    MEST_SCHEME_NM24, MEST_SCHEME_FAN_IN, MEST_SCHEME_ROW4, MEST_SCHEME_ROW8, MEST_SCHEME_ROW16,
]

/// One random layer and the way in which it mutates.
private struct MutationCase {
    let seed: UInt64, scheme: Int, rows: Int, channels: Int, kernel: Int, density: Float, mode: Int
    let flags: UInt32, code8: UInt32, lambda: Float

    init(_ seed: UInt64, _ random: inout SplitMix64) {
        self.seed = seed
        scheme = schemes[Int(seed) % schemes.count]
        rows = 1 + Int(random.below(40))
        channels = 1 + Int(random.below(30))
        kernel = random.below(2) == 0 ? 1 : 3
        let most: Float = scheme == MEST_SCHEME_PATTERN ? 0.44 : scheme == MEST_SCHEME_NM24 ? 0.5 : 0.95
        let full = random.below(5) == 0
        density = full ? most : 0.01 + (most - 0.01) * Float(random.below(100)) / 100
        // EM&S needs room above its density, and is refused without.
        let modes = [MEST_METHOD_VANILLA, MEST_METHOD_EM, MEST_METHOD_EMS]
        mode = modes[Int(random.below(full && scheme == MEST_SCHEME_NM24 ? 2 : 3))]
        flags = UInt32(random.below(8))
        code8 = UInt32(random.below(2))
        lambda = random.below(2) == 0 ? 0 : 0.01
    }

    var what: String {
        "seed \(seed): scheme \(scheme), \(rows) x \(channels) x \(kernel), density \(density), mode \(mode), flags \(flags)"
    }
    var compatible: Bool { flags & UInt32(MEST_MUTATION_ROUND_COMPAT) != 0 }
    /// Nothing but the values says who leaves.
    var byMagnitude: Bool { lambda == 0 && flags & UInt32(MEST_MUTATION_NORMALISED) == 0 }

    func layer() throws -> OneLayer {
        try OneLayer(rows: rows, channels: channels, kernel: kernel, scheme: scheme) {
            $0.density = density; $0.method = Int32(mode); $0.mutation_flags = flags; $0.scheme_flags = code8
            $0.importance_lambda = lambda; $0.seed = seed; $0.allow_empty_rows = UInt32(seed % 2)
        }
    }

    /// The units that stayed (momentum is never 0 there); whatever is new, or left and came back, begins at 0.
    func expectSurvivors(of before: Connections, in layer: OneLayer, _ what: String) -> Set<Int> {
        var survivors = Set<Int>()
        for (position, now) in Connections(layer).state {
            if let old = before.state[position], now.value == old.value && now.momentum == old.momentum {
                survivors.insert(now.unit)
            } else {
                #expect(now.value == 0 && now.momentum == 0, "\(what): grown at 0")
            }
        }
        return survivors
    }
}

/// What a layer has, by position: row * columns + column.
private struct Connections {
    let columns: Int
    let state: [Int: (value: Float, momentum: Float, unit: Int)]

    init(_ layer: OneLayer) {
        columns = Int(layer.node.columns)
        let value = layer.model.floats(layer.node.weight.value), momentum = layer.model.floats(layer.node.weight.momentum)
        var state: [Int: (value: Float, momentum: Float, unit: Int)] = [:]
        for c in layer.connections {
            state[c.row * columns + c.column] = (value[c.place], momentum[c.place], layer.unit(c.row, c.column))
        }
        self.state = state
    }

    /// Those that left were not more important than those that stayed, pool by pool, of as many weights.
    func expectLeastLeft(pools: Int, _ survivors: Set<Int>, _ what: String) {
        struct Class: Hashable { let pool: Int, weights: Int }
        var norm: [Int: Double] = [:], weights: [Int: Int] = [:]
        for (value, _, unit) in state.values {
            norm[unit, default: 0] += Double(value) * Double(value)
            weights[unit, default: 0] += 1
        }
        var least: [Class: Double] = [:], gone: [Class: Double] = [:]
        for (unit, square) in norm {
            let own = Class(pool: pools == 1 ? 0 : unit / columns, weights: weights[unit]!)
            if survivors.contains(unit) {
                least[own] = min(least[own] ?? .infinity, square)
            } else {
                gone[own] = max(gone[own] ?? 0, square)
            }
        }
        for (own, square) in gone { #expect(square <= least[own] ?? .infinity, "\(what): the least important leave") }
        // Of units that lack weights the same share leaves.
        let leaving = Double(norm.keys.count { !survivors.contains($0) })
        for size in Set(weights.values) {
            let own = weights.filter { $0.value == size }.keys
            let gone = Double(own.count { !survivors.contains($0) })
            #expect(abs(gone - leaving * Double(own.count) / Double(norm.count)) < 1, "\(what): the same share")
        }
    }
}

@Suite struct SchemeInvariants {
    /// Golden check G13 for every scheme: random shapes, densities, modes and flags; many mutations.
    @Test(arguments: 1...300) func mutations(seed: UInt64) throws {
        var random = SplitMix64(seed &* 104_729)
        let drawn = MutationCase(seed, &random)
        let one = try drawn.layer(), twin = try drawn.layer()
        one.expectInvariants(drawn.what)
        let plan = one.model.state.pointee.plan, pools = Mest.units(of: one.node).pools
        let target = plan.initialUnits(one.node) * pools
        #expect(Int64(one.node.units) == target, "\(drawn.what): at the start")
        let scratch = one.model.at(plan.workspace, UInt8.self)
        let planned = Int(plan.bytes.mutation), rest = Int(plan.bytes.workspace) - planned
        for epoch in [0, 5, 10, 90, 95, 120, 125] as [UInt32] {
            let what = "\(drawn.what), epoch \(epoch)"
            train(one, twin, &random)
            let before = Connections(one)
            let amount = plan.amount(one.node, epoch: epoch, active: Int64(one.node.units) / pools)
            for i in 0..<rest { scratch[planned + i] = 0xA5 }
            one.model.mutate(epoch: epoch, resting: 0)
            twin.model.mutate(epoch: epoch, resting: 0)
            #expect((0..<rest).allSatisfy { scratch[planned + $0] == 0xA5 }, "\(what): scratch as planned")
            one.expectInvariants(what)
            #expect(Int64(one.node.units) == amount.after * pools, "\(what): units")
            if drawn.mode == MEST_METHOD_EMS && !drawn.compatible && epoch == 120 {
                #expect(Int64(one.node.units) == target, "\(what): back at the target")
            }
            let survivors = drawn.expectSurvivors(of: before, in: one, what)
            if drawn.byMagnitude { before.expectLeastLeft(pools: Int(pools), survivors, what) }
            // The same seed takes the same decisions.
            let after = one.connections
            #expect(twin.connections.map { [$0.row, $0.column, $0.place] } == after.map { [$0.row, $0.column, $0.place] })
            let report = one.model.mutationReport()
            #expect(Int(report.active) == after.count)
            #expect(Int(report.grown) - Int(report.dropped) == after.count - before.state.count, "\(what): the report adds up")
            #expect(report.explored >= 0 && report.explored <= 1)
        }
    }

    /// Random values, gradients and momenta, ties and zeros among them, the same in both.
    private func train(_ one: OneLayer, _ twin: OneLayer, _ random: inout SplitMix64) {
        for place in one.connections.map({ $0.place }).sorted() {
            let drawn = (Float(random.below(9)) - 4, Float(random.below(100)), Float(1 + random.below(1000)))
            for layer in [one, twin] {
                let weight = layer.node.weight
                layer.model.floats(weight.value)[place] = drawn.0
                layer.model.floats(weight.gradient)[place] = drawn.1
                layer.model.floats(weight.momentum)[place] = drawn.2
            }
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
