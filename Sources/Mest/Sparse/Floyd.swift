// SPDX-License-Identifier: Apache-2.0
// Floyd's sampling: k distinct numbers below z, each set equally likely, in O(k) time and space
// (Bentley & Floyd, CACM 30(9), 1987).

enum Floyd {
    /// for j in z-k ..< z: t = below(j+1); take t, or j when t is taken already. Leaves the k numbers
    /// ascending at the front of the table, of NumberSet.tableCount(k) words. z <= 2^32 - 1.
    static func draw(
        _ k: Int, below z: UInt64, _ random: inout SplitMix64, table: UnsafeMutablePointer<UInt32>
    ) {
        let numbers = NumberSet(k, in: table)
        var j = z &- uint64(k)
        while j < z {
            if !numbers.add(uint32(random.below(j &+ 1))) { _ = numbers.add(uint32(j)) }
            j &+= 1
        }
        _ = numbers.sorted()
    }
}
