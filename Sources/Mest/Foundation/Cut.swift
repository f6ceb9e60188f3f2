// SPDX-License-Identifier: Apache-2.0
// Cut: the least of many keys, told apart by one threshold. Of those that equal it the first are among them, in the
// order in which they are asked about.

struct Cut {
    let threshold: UInt64
    private(set) var ties: Int

    /// The `count` least of the keys of `bits` bits that `each` hands over; 0: none.
    @inline(__always)
    init(least count: Int, bits: Int, each: ((UInt64) -> Void) -> Void) {
        let found = count > 0 ? select(rank: count &- 1, bits: bits, each: each) : (key: 0, smaller: 0)
        (threshold, ties) = (found.key, max(0, count &- found.smaller))
    }

    /// Whether the next key is one of them.
    mutating func takes(_ key: UInt64) -> Bool {
        if key != threshold { return key < threshold }
        if ties == 0 { return false }
        ties &-= 1
        return true
    }
}
