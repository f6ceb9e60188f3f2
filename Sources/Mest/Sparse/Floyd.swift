// SPDX-License-Identifier: Apache-2.0
// Floyd's sampling: k distinct numbers below z, each set equally likely, in O(k) time and space
// (Bentley & Floyd, CACM 30(9), 1987). Membership by open addressing in the caller's table.

enum Floyd {
    private static let empty = UInt32.max

    /// Words of table that drawing k numbers needs: load 2/3.
    static func tableCount(_ k: Int64) -> Int64 { k == 0 ? 0 : k &+ k / 2 &+ 1 }

    /// for j in z-k ..< z: t = below(j+1); take t, or j when t is taken already. Leaves the k numbers
    /// ascending at the front of the table. z <= 2^32 - 1.
    static func draw(
        _ k: Int, below z: UInt64, _ random: inout SplitMix64, table: UnsafeMutablePointer<UInt32>
    ) {
        let size = int(tableCount(int64(k)))
        for i in 0..<size { table[i] = empty }

        /// Adds x; false when it was there.
        func add(_ x: UInt32) -> Bool {
            var at = int(SplitMix64.mix(uint64(x)).multipliedFullWidth(by: uint64(size)).high)
            while table[at] != empty {
                if table[at] == x { return false }
                at = at &+ 1 == size ? 0 : at &+ 1
            }
            table[at] = x
            return true
        }

        var j = z &- uint64(k)
        while j < z {
            if !add(uint32(random.below(j &+ 1))) { _ = add(uint32(j)) }
            j &+= 1
        }
        var n = 0
        for i in 0..<size where table[i] != empty {
            table[n] = table[i]
            n &+= 1
        }
        sort(table, n)
    }
}
