// SPDX-License-Identifier: Apache-2.0
// Initial connections: at random, then none of the rows empty.

import CMestKernels

extension SparseRows {
    /// `count` positions, of all or of every row, uniformly without replacement, in order, with no
    /// storage: Knuth's selection sampling (TAOCP 2, algorithm S). O(positions) once in a model's life.
    func drawUniform(count: Int, perRow: Bool = false, _ random: inout SplitMix64) {
        var wanted = uint64(count)
        var left = uint64(int64(perRow ? 1 : rows) &* int64(columns))
        var n = 0
        for r in 0..<rows {
            start[r] = uint32(n)
            if perRow { (wanted, left) = (uint64(count), uint64(columns)) }
            for c in 0..<columns {
                if random.below(left) < wanted {
                    put(c, at: n)
                    n &+= 1
                    wanted &-= 1
                }
                left &-= 1
            }
        }
        start[rows] = uint32(n)
    }

    /// Gives every empty row one connection, taken from the end of the fullest row; the lower row on
    /// equal counts. Needs count >= rows. Values are not moved: they do not exist yet.
    func fillEmptyRows(_ random: inout SplitMix64) {
        func connections(_ r: Int) -> UInt32 { start[r &+ 1] &- start[r] }
        var fullest: UInt32 = 0
        for r in 0..<rows { fullest = max(fullest, connections(r)) }
        var donor = 0  // rows before it have fewer than `fullest`
        for r in 0..<rows where connections(r) == 0 {
            while connections(donor) < fullest {
                donor &+= 1
                if donor == rows {
                    donor = 0
                    fullest &-= 1
                }
            }
            let hole = int(start[donor &+ 1]) &- 1
            if donor < r {
                for j in hole..<(int(start[r]) &- 1) { column[j] = column[j &+ 1] }
                for q in (donor &+ 1)...r { start[q] &-= 1 }
            } else {
                var j = hole
                while j > int(start[r]) {
                    column[j] = column[j &- 1]
                    j &-= 1
                }
                for q in (r &+ 1)...donor { start[q] &+= 1 }
            }
            column[int(start[r])] = UInt16(truncatingIfNeeded: random.below(uint64(columns)))
        }
    }
}
