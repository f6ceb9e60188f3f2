// SPDX-License-Identifier: Apache-2.0
// Single weights under a constraint on their row, stored and computed like unstructured ones:
//
//   FanIn      the same number of connections in every row
//   TwoOfFour  at most 2 of every 4 neighbouring columns; exactly 2 at density 0.5 (2:4)

import CMest
import CMestKernels

enum FanIn: RowScheme {
    static func units(_ node: Node) -> Units {
        Units(
            pools: int64(node.rows), positions: int64(node.columns), most: int64(node.columns), lines: int64(node.rows))
    }

    static func fits(_ model: Model, _ node: Node, _ csr: mest_csr) throws(Status) {
        try model.checkBalance(node, csr)
    }
}

enum TwoOfFour: RowScheme {
    static var densest: Ratio { Ratio(billionths: 500_000_000) }

    /// A group has as many slots as it may have connections: 2, or 1 where only one column is left.
    static func units(_ node: Node) -> Units {
        let columns = int64(node.columns)
        let slots = columns / 4 &* 2 &+ min(2, columns % 4)
        return Units(positions: node.positions, most: int64(node.rows) &* slots, lines: int64(node.rows), grouped: true)
    }

    static func fits(_ model: Model, _ node: Node, _ csr: mest_csr) throws(Status) {
        for r in 0..<int(node.rows) {
            var inGroup = 0
            for j in int(csr.row_start[r])..<int(csr.row_start[r &+ 1]) {
                let continues = j > int(csr.row_start[r]) && csr.column[j] / 4 == csr.column[j &- 1] / 4
                inGroup = continues ? inGroup &+ 1 : 1
                if inGroup > 2 { throw model.doesNotFit(node, r, "has 3 connections in a group of 4 columns") }
            }
        }
    }
}

extension SparseRows {
    /// `count` of all slots, uniformly (Knuth's algorithm S); a group's connections uniformly among its columns.
    func drawInGroups(count: Int, slots: UInt64, _ random: inout SplitMix64) {
        var wanted = uint64(count)
        var left = slots
        var n = 0
        for r in 0..<rows {
            start[r] = uint32(n)
            var first = 0
            while first < columns {
                let size = min(4, columns &- first)
                var chosen = 0
                for _ in 0..<min(2, size) {
                    if random.below(left) < wanted {
                        chosen &+= 1
                        wanted &-= 1
                    }
                    left &-= 1
                }
                let mask = SparseRows.pick(chosen, of: (1 &<< size) &- 1, &random)
                for c in 0..<size where mask &>> c & 1 != 0 {
                    column[n] = UInt16(truncatingIfNeeded: first &+ c)
                    n &+= 1
                }
                first &+= 4
            }
        }
        start[rows] = uint32(n)
    }

    /// Adds connections at value 0. ranks: `count` ascending ranks among the free slots. A group's new
    /// columns are uniform among its free ones, and those in avoiding[0 ..< avoided] come last.
    /// Overwrites ranks.
    func growInGroups(
        _ ranks: UnsafeMutablePointer<UInt32>, _ count: Int, avoiding: UnsafeMutablePointer<UInt32>, _ avoided: Int,
        _ random: inout SplitMix64
    ) {
        var next = 0         // rank in work
        var slotsBefore: Int64 = 0
        var a = 0            // into avoiding
        for r in 0..<rows {
            var j = int(start[r])
            let end = int(start[r &+ 1])
            let rowFirst = int64(r) &* int64(columns)
            var first = 0
            while first < columns {
                if next == count { return insert(ranks, count) }
                let size = min(4, columns &- first)
                var taken = 0    // columns of the group, as bits
                var dropped = 0
                var active = 0
                while j < end && int(column[j]) < first &+ size {
                    taken |= 1 &<< (int(column[j]) &- first)
                    active &+= 1
                    j &+= 1
                }
                let groupFirst = rowFirst &+ int64(first)
                while a < avoided && int64(avoiding[a]) < groupFirst &+ int64(size) {
                    dropped |= 1 &<< int(int64(avoiding[a]) &- groupFirst)
                    a &+= 1
                }
                slotsBefore &+= int64(min(2, size) &- active)
                let from = next
                while next < count && int64(ranks[next]) < slotsBefore { next &+= 1 }
                if next > from {
                    let all = (1 &<< size) &- 1
                    let free = all & ~(taken | dropped)
                    let fresh = min(next &- from, SparseRows.bits(free))
                    var mask = SparseRows.pick(fresh, of: free, &random)
                    mask |= SparseRows.pick(next &- from &- fresh, of: all & dropped & ~taken, &random)
                    var to = from
                    for c in 0..<size where mask &>> c & 1 != 0 {
                        ranks[to] = uint32(groupFirst &+ int64(c))
                        to &+= 1
                    }
                }
                first &+= 4
            }
        }
        insert(ranks, count)
    }

    /// n of the bits that are set in mask, each set equally likely.
    private static func pick(_ n: Int, of mask: Int, _ random: inout SplitMix64) -> Int {
        var wanted = n
        var left = bits(mask)
        var picked = 0
        for c in 0..<4 where wanted > 0 && mask &>> c & 1 != 0 {
            if random.below(uint64(left)) < uint64(wanted) {
                picked |= 1 &<< c
                wanted &-= 1
            }
            left &-= 1
        }
        return picked
    }

    private static func bits(_ mask: Int) -> Int { (mask & 1) &+ (mask &>> 1 & 1) &+ (mask &>> 2 & 1) &+ (mask &>> 3 & 1) }
}
