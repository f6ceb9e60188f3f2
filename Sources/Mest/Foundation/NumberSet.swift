// SPDX-License-Identifier: Apache-2.0
// NumberSet: numbers below 2^32 - 1, each once, by open addressing in the caller's table.

struct NumberSet {
    private static let empty = UInt32.max
    private let table: UnsafeMutablePointer<UInt32>
    private let size: Int

    /// Words of table for k numbers: load 2/3.
    static func tableCount(_ k: Int64) -> Int64 { k == 0 ? 0 : k &+ k / 2 &+ 1 }

    /// Empty, for at most k numbers in tableCount(k) words.
    init(_ k: Int, in table: UnsafeMutablePointer<UInt32>) {
        self.table = table
        size = int(NumberSet.tableCount(int64(k)))
        for i in 0..<size { table[i] = NumberSet.empty }
    }

    /// False when x was there.
    func add(_ x: UInt32) -> Bool {
        var at = int(SplitMix64.mix(uint64(x)).multipliedFullWidth(by: uint64(size)).high)
        while table[at] != NumberSet.empty {
            if table[at] == x { return false }
            at = at &+ 1 == size ? 0 : at &+ 1
        }
        table[at] = x
        return true
    }

    /// Leaves the numbers ascending at the front of the table, which is no set any more; how many.
    func sorted() -> Int {
        var n = 0
        for i in 0..<size where table[i] != NumberSet.empty {
            table[n] = table[i]
            n &+= 1
        }
        sort(table, n)
        return n
    }
}
