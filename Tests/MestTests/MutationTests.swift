// SPDX-License-Identifier: Apache-2.0
// Mutation: golden checks G1, G5, G6 of the specification, and the invariants G13 on random rows.

import CMest
import Testing

@testable import Mest

/// SparseRows over arrays of its own.
final class Rows {
    let rows: Int, columns: Int
    private(set) var start: [UInt32], column: [UInt16], value: [Float], gradient: [Float], momentum: [Float]

    init(_ rows: Int, _ columns: Int, capacity: Int) {
        (self.rows, self.columns) = (rows, columns)
        start = Array(repeating: 0, count: rows + 1)
        column = Array(repeating: 0, count: capacity)
        value = Array(repeating: 0, count: capacity)
        gradient = value
        momentum = value
    }

    func set(start: [UInt32], column: [UInt16], value: [Float], gradient: [Float]? = nil, momentum: [Float]) {
        self.start = start
        self.column.replaceSubrange(0..<column.count, with: column)
        self.value.replaceSubrange(0..<value.count, with: value)
        self.momentum.replaceSubrange(0..<momentum.count, with: momentum)
        if let gradient { self.gradient.replaceSubrange(0..<gradient.count, with: gradient) }
    }

    var count: Int { Int(start[rows]) }
    var positions: [Int] {
        (0..<rows).flatMap { r in (Int(start[r])..<Int(start[r + 1])).map { r * columns + Int(column[$0]) } }
    }

    func with<R>(_ body: (SparseRows) -> R) -> R {
        start.withUnsafeMutableBufferPointer { start in
            column.withUnsafeMutableBufferPointer { column in
                value.withUnsafeMutableBufferPointer { value in
                    gradient.withUnsafeMutableBufferPointer { gradient in
                        momentum.withUnsafeMutableBufferPointer { momentum in
                            body(SparseRows(
                                rows: rows, columns: columns, start: start.baseAddress!, column: column.baseAddress!,
                                value: value.baseAddress!, gradient: gradient.baseAddress!,
                                momentum: momentum.baseAddress!, average: nil))
                        }
                    }
                }
            }
        }
    }

    /// Drops by |value| (+ lambda * |gradient|); returns the dropped positions.
    func drop(_ n: Int, lambda: Float = 0) -> [UInt32] {
        var dropped = [UInt32](repeating: 0, count: n)
        dropped.withUnsafeMutableBufferPointer { record in
            with { rows in
                rows.drop(n, recordTo: record.baseAddress) {
                    rows.value[$0].magnitude + lambda * rows.gradient![$0].magnitude
                }
            }
        }
        return dropped
    }

    /// Grows n connections at the ranks that Floyd draws from `seed`.
    func grow(_ n: Int, seed: UInt64, avoiding: [UInt32] = []) -> [UInt32] {
        let free = rows * columns - count - avoiding.count
        var table = [UInt32](repeating: 0, count: Int(NumberSet.tableCount(Int64(n))) + 1)
        var avoided = avoiding + [0]
        var random = SplitMix64(seed)
        return table.withUnsafeMutableBufferPointer { table in
            avoided.withUnsafeMutableBufferPointer { avoided in
                Floyd.draw(n, below: UInt64(free), &random, table: table.baseAddress!)
                let ranks = Array(table[0..<n])
                with { $0.grow(table.baseAddress!, n, avoiding: avoided.baseAddress!, avoiding.count) }
                return ranks
            }
        }
    }
}

@Suite struct GoldenG1 {
    /// W = [[.5,0,-.1,0],[0,.3,0,-.7],[.05,0,.2,0]].
    private func matrix(gradient: [Float]? = nil) -> Rows {
        let rows = Rows(3, 4, capacity: 8)
        rows.set(
            start: [0, 2, 4, 6], column: [0, 2, 1, 3, 0, 2], value: [0.5, -0.1, 0.3, -0.7, 0.05, 0.2],
            gradient: gradient, momentum: [1, 2, 3, 4, 5, 6])
        return rows
    }

    @Test func dropByMagnitude() {
        let rows = matrix()
        #expect(rows.drop(2) == [2, 8])  // (0,2), (2,0)
        #expect(rows.start == [0, 1, 3, 4])
        #expect(rows.column[0..<4] == [0, 1, 3, 2])
        #expect(rows.value[0..<4] == [0.5, 0.3, -0.7, 0.2])
        #expect(rows.momentum[0..<4] == [1, 3, 4, 6])
    }

    @Test func dropByMagnitudeAndGradient() {
        let rows = matrix(gradient: [1, 1, 0, 1, -20, 0])
        #expect(rows.drop(2, lambda: 0.01) == [2, 10])  // (0,2), (2,2); .05 survives
        #expect(rows.positions == [0, 5, 7, 8])
    }

    @Test(arguments: [(1, [3, 5]), (2, [4, 5]), (42, [1, 5])] as [(UInt64, [UInt32])])
    func floydRanks(seed: UInt64, ranks: [UInt32]) {
        let rows = matrix()
        _ = rows.drop(2)
        #expect(rows.grow(2, seed: seed) == ranks)
    }

    @Test func growSeed1() {
        let rows = matrix()
        _ = rows.drop(2)
        _ = rows.grow(2, seed: 1)
        #expect(rows.start == [0, 1, 4, 6])
        #expect(rows.column[0..<6] == [0, 0, 1, 3, 0, 2])
        #expect(rows.value[0..<6] == [0.5, 0, 0.3, -0.7, 0, 0.2])
        #expect(rows.momentum[0..<6] == [1, 0, 3, 4, 0, 6])
    }

    @Test(arguments: [(1, [4, 9]), (42, [1, 6])] as [(UInt64, [Int])])
    func growExcludingDropped(seed: UInt64, grown: [Int]) {
        let rows = matrix()
        let dropped = rows.drop(2)
        let before = Set(rows.positions)
        _ = rows.grow(2, seed: seed, avoiding: dropped)
        #expect(rows.positions.filter { !before.contains($0) } == grown)
    }
}

@Suite struct GoldenG4 {
    /// Filter balance: the same number of least important kernels leaves every filter. Kernel sparsity
    /// of 3x3 kernels with 4 of 9 entries: ks = 1 - (1 - s) * 9 / 4; kernels dropped: trunc(ks * 4).
    @Test func leastImportantOfEachFilter() {
        let kernels = Ratio.one - Ratio(billionths: (Ratio.one - Ratio(0.75)).billionths * 9 / 4)
        #expect(kernels.billionths == 437_500_000)
        let dropped = Int(kernels.floor(of: 4))
        #expect(dropped == 1)
        for (norms, kept) in [([4, 1, 3, 2], [0, 2, 3]), ([1, 2, 3, 4], [1, 2, 3])] as [([Float], [Int])] {
            let filter = Rows(1, 4, capacity: 4)
            filter.set(start: [0, 4], column: [0, 1, 2, 3], value: norms, momentum: [0, 0, 0, 0])
            _ = filter.drop(dropped)
            #expect(filter.positions == kept)
        }
    }
}

@Suite struct MutationInvariants {
    /// Golden check G13 against a plain model: sets of positions and dictionaries of state.
    @Test(arguments: 1...300) func dropAndGrow(seed: UInt64) {
        var random = SplitMix64(seed &* 7919)
        let r = Int(1 + random.below(9)), c = Int(1 + random.below(40))
        let n = r * c
        let active = Int(1 + random.below(UInt64(n)))
        let rows = Rows(r, c, capacity: n)
        rows.with { $0.drawUniform(count: active, &random) }
        #expect(rows.count == active)
        var value = (0..<active).map { _ in Float(random.below(6)) - 2 }  // ties and zeros
        let momentum = (0..<active).map { Float($0 + 1) }
        rows.set(start: rows.start, column: Array(rows.column[0..<active]), value: value, momentum: momentum)

        let before = rows.positions
        let drop = Int(random.below(UInt64(active) + 1))
        let order = (0..<active).sorted { (abs(value[$0]), $0) < (abs(value[$1]), $1) }
        let goes = Set(order[0..<drop])
        let dropped = drop > 0 ? rows.drop(drop) : []
        #expect(dropped.map(Int.init) == goes.sorted().map { before[$0] }, "seed \(seed)")

        let excludes = random.below(2) == 1
        let free = n - (active - drop) - (excludes ? drop : 0)
        let grow = Int(random.below(UInt64(free) + 1))
        if grow > 0 { _ = rows.grow(grow, seed: random.next(), avoiding: excludes ? dropped : []) }

        let after = rows.positions
        #expect(after.count == active - drop + grow, "seed \(seed)")
        #expect(zip(after, after.dropFirst()).allSatisfy { $0 < $1 }, "seed \(seed): ascending, no duplicates")
        #expect(after.allSatisfy { $0 < n })
        var state: [Int: (Float, Float)] = [:]
        for (i, p) in before.enumerated() where !goes.contains(i) { state[p] = (value[i], momentum[i]) }
        if excludes { #expect(Set(after).isDisjoint(with: dropped.map(Int.init)), "seed \(seed)") }
        for (j, p) in after.enumerated() {
            let (v, m) = state[p] ?? (0, 0)
            #expect(rows.value[j].bitPattern == v.bitPattern && rows.momentum[j] == m, "seed \(seed) position \(p)")
            state[p] = nil
        }
        #expect(state.isEmpty, "seed \(seed): survivors stay")
        value = []
    }

    @Test func floydIsUniform() {
        var hits = [Int](repeating: 0, count: 10)
        var table = [UInt32](repeating: 0, count: 8)
        for seed in 0..<20_000 as Range<UInt64> {
            var random = SplitMix64(seed &* 0x1234_5678_9abc_def1)
            table.withUnsafeMutableBufferPointer { Floyd.draw(3, below: 10, &random, table: $0.baseAddress!) }
            for t in table[0..<3] { hits[Int(t)] += 1 }
        }
        // 6000 expected, deviation 65; six of them.
        #expect(hits.allSatisfy { abs($0 - 6000) < 390 }, "\(hits)")
    }

    @Test(arguments: 1...60) func emptyRowsAreFilled(seed: UInt64) {
        var random = SplitMix64(seed)
        let r = Int(2 + random.below(20)), c = Int(1 + random.below(30))
        let count = r + Int(random.below(UInt64(r * c - r) + 1)) / 4
        let rows = Rows(r, c, capacity: r * c)
        rows.with {
            $0.drawUniform(count: count, &random)
            $0.fillEmptyRows(&random)
        }
        #expect(rows.count == count)
        #expect((0..<r).allSatisfy { rows.start[$0 + 1] > rows.start[$0] }, "seed \(seed)")
        let positions = rows.positions
        #expect(zip(positions, positions.dropFirst()).allSatisfy { $0 < $1 }, "seed \(seed)")
    }
}

@Suite struct MutationSchedules {
    private func plan(_ set: (inout mest_config) -> Void) -> (Plan, Node) {
        var config = mest_config()
        config.batch = 64
        config.epochs = 160
        config.mutation_flags = UInt32(MEST_MUTATION_ROUND_COMPAT)
        set(&config)
        let buffer = UnsafeMutablePointer<CChar>.allocate(capacity: Message.bytes)
        defer { buffer.deallocate() }
        let plan = Plan(nodes: UnsafeMutablePointer.allocate(capacity: 1), count: 0, config: try! resolve(config, Message(buffer: buffer)))
        var node = Node(kind: .conv2D, index: 1)
        node.density = Ratio(config.density)
        node.sparse = true
        return (plan, node)
    }

    /// Golden check G5: counts of the authors' code, N, initial, then after the three phases.
    @Test(arguments: [
        (9216, 922, [921, 921, 921], [1382, 1152, 922]), (18432, 1844, [1843, 1843, 1843], [2764, 2304, 1844]),
        (36864, 3687, [3686, 3686, 3686], [5529, 4608, 3687]), (73728, 7373, [7372, 7372, 7372], [11059, 9216, 7373]),
        (147456, 14746, [14745, 14745, 14745], [22118, 18432, 14746]),
    ] as [(Int32, Int64, [Int64], [Int64])])
    func counts(n: Int32, initial: Int64, em: [Int64], ems: [Int64]) {
        for (mode, wanted) in [(MEST_METHOD_EM, em), (MEST_METHOD_EMS, ems)] {
            var (plan, node) = plan { $0.density = 0.1; $0.method = Int32(mode) }
            (node.rows, node.columns) = (1, n)
            #expect(plan.initialUnits(node) == initial)
            var active = initial
            var reached: [Int64] = []
            for epoch in 0..<160 as Range<UInt32> where plan.mutates(at: epoch) {
                active = plan.amount(node, epoch: epoch, active: active).after
                if [85, 115, 155].contains(epoch) { reached.append(active) }
            }
            #expect(reached == wanted)
        }
    }

    /// Golden check G5: dropped and grown of N = 9216, EM and EM&S at 90 %.
    @Test func droppedAndGrown() {
        func moves(_ mode: Int) -> [UInt32: [Int64]] {
            var (plan, node) = plan { $0.density = 0.1; $0.method = Int32(mode) }
            (node.rows, node.columns) = (1, 9216)
            var active: Int64 = 922
            var moves: [UInt32: [Int64]] = [:]
            for epoch in 0..<160 as Range<UInt32> where plan.mutates(at: epoch) {
                let amount = plan.amount(node, epoch: epoch, active: active)
                let kept = min(active, amount.keep)
                moves[epoch] = [active - kept, amount.after - kept]
                active = amount.after
            }
            return moves
        }
        let em = moves(MEST_METHOD_EM)
        #expect(em.count == 32)
        #expect(em[0] == [184, 183] && em[5] == [183, 183] && em[85] == [183, 183])
        #expect(em[90] == [91, 91] && em[115] == [91, 91] && em[120] == [0, 0] && em[155] == [0, 0])
        #expect(em.values.count { $0 != [0, 0] } == 24)
        let ems = moves(MEST_METHOD_EMS)
        #expect(ems[0] == [0, 460] && ems[5] == [460, 460] && ems[90] == [460, 230] && ems[95] == [230, 230])
        #expect(ems[115] == [230, 230] && ems[120] == [230, 0] && ems[125] == [0, 0])
        #expect(ems.values.count { $0 != [0, 0] } == 25)
    }

    /// 95 %: 461, EM 460, EM&S 921, 691, 461.
    @Test func counts95() {
        var (plan, node) = plan { $0.density = 0.05; $0.method = Int32(MEST_METHOD_EMS) }
        (node.rows, node.columns) = (1, 9216)
        var active = plan.initialUnits(node)
        #expect(active == 461)
        for (epoch, wanted) in [(0, 921), (90, 691), (120, 461)] as [(UInt32, Int64)] {
            active = plan.amount(node, epoch: epoch, active: active).after
            #expect(active == wanted)
        }
    }

    /// Golden check G6: density by epoch.
    @Test func density() {
        let (ems, node) = plan { $0.density = 0.1; $0.method = Int32(MEST_METHOD_EMS) }
        let sum = (0..<160).reduce(0) { $0 + ems.levels(node, epoch: UInt32($1)).high.billionths }
        #expect(ems.levels(node, epoch: 0).high.billionths == 150_000_000)
        #expect(ems.levels(node, epoch: 89).high.billionths == 150_000_000)
        #expect(ems.levels(node, epoch: 90).high.billionths == 125_000_000)
        #expect(ems.levels(node, epoch: 120).high.billionths == 100_000_000)
        #expect(sum == 160 * 132_812_500)  // mean .1328125
        let (em, other) = plan { $0.density = 0.1; $0.method = Int32(MEST_METHOD_EM) }
        for epoch in [0, 90, 120] as [UInt32] { #expect(em.levels(other, epoch: epoch).high.billionths == 100_000_000) }
        #expect(em.levels(other, epoch: 0).low.billionths == 80_000_000 && em.levels(other, epoch: 90).low.billionths == 90_000_000)
    }

    @Test func exactRoundingMeetsTheTarget() {
        for n in [1, 7, 100, 9216] as [Int32] {
            for density in [0.01, 0.1, 0.5, 0.95] as [Float] {
                for mode in [MEST_METHOD_VANILLA, MEST_METHOD_EM, MEST_METHOD_EMS] {
                    var (plan, node) = plan { $0.density = density; $0.method = Int32(mode); $0.mutation_flags = 0 }
                    (node.rows, node.columns) = (1, n)
                    node.weight.capacity = plan.mostUnits(node)
                    var active = plan.initialUnits(node)
                    for epoch in 0..<160 as Range<UInt32> where plan.mutates(at: epoch) {
                        let amount = plan.amount(node, epoch: epoch, active: active)
                        #expect(amount.after - min(active, amount.keep) <= plan.mostGrown(node, node.weight.capacity))
                        active = amount.after
                        #expect(active <= node.weight.capacity)
                        #expect(active == Plan.rounded(Int64(n), plan.levels(node, epoch: epoch).high))
                    }
                    #expect(active == Plan.rounded(Int64(n), node.density))
                }
            }
        }
    }

    @Test func cosineDecays() {
        let (plan, _) = plan {
            $0.density = 0.1; $0.method = Int32(MEST_METHOD_EM); $0.mutation_decay = Int32(MEST_DECAY_COSINE)
        }
        #expect(plan.mutationDecay(0).billionths == 1_000_000_000)
        #expect(plan.mutationDecay(60).billionths == 500_000_000)
        #expect(plan.mutationDecay(120).billionths == 0)
    }
}
