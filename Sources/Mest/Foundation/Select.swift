// SPDX-License-Identifier: Apache-2.0
// The k-th smallest key by radix: one pass over the keys for every byte, no storage but a
// histogram, the same answer whatever the order of equal keys. This is how mutation finds its
// threshold and forgetting its cut in O(n) without a copy.

/// The (rank+1)-th smallest of key(0) ..< key(n), rank < n.  `bits`: of the keys, a multiple of 8.
/// Returns the key and how many keys are smaller.
func select(rank: Int, of n: Int, bits: Int, key: (Int) -> UInt64) -> (key: UInt64, smaller: Int) {
    select(rank: rank, bits: bits) { take in
        for i in 0..<n { take(key(i)) }
    }
}

/// The same of the keys that `each` hands over, all of them at every call.
@inline(__always)
func select(rank: Int, bits: Int, each: ((UInt64) -> Void) -> Void) -> (key: UInt64, smaller: Int) {
    var prefix: UInt64 = 0
    var mask: UInt64 = 0
    var wanted = rank
    var shift = bits &- 8
    while shift >= 0 {
        var histogram = InlineArray<256, UInt32>(repeating: 0)
        each { k in
            if k & mask == prefix { histogram[int((k &>> uint64(shift)) & 255)] &+= 1 }
        }
        var byte = 0
        while byte < 255 && wanted >= int(histogram[byte]) {
            wanted &-= int(histogram[byte])
            byte &+= 1
        }
        prefix |= uint64(byte) &<< uint64(shift)
        mask |= 255 &<< uint64(shift)
        shift &-= 8
    }
    return (prefix, rank &- wanted)
}

/// Bits that order as the numbers do, -0 and 0 as one.
func ordered(_ x: Float) -> UInt64 {
    let bits = (x == 0 ? 0 : x).bitPattern
    return uint64(bits & 0x8000_0000 != 0 ? ~bits : bits | 0x8000_0000)
}

/// Bits that order the other way round.
func falling(_ x: Float) -> UInt64 { uint64(UInt32.max) &- ordered(x) }

func sort(_ a: UnsafeMutablePointer<UInt32>, _ n: Int) { sort(a, n) { uint64($0) } }

/// Sorts in place by key, ascending; keys differ: heapsort, no recursion, no storage.
func sort<T>(_ a: UnsafeMutablePointer<T>, _ n: Int, by key: (T) -> UInt64) {
    func sift(_ start: Int, _ end: Int) {
        var root = start
        while 2 &* root &+ 1 < end {
            var child = 2 &* root &+ 1
            if child &+ 1 < end && key(a[child]) < key(a[child &+ 1]) { child &+= 1 }
            if key(a[root]) >= key(a[child]) { return }
            (a[root], a[child]) = (a[child], a[root])
            root = child
        }
    }
    var start = n / 2
    while start > 0 {
        start &-= 1
        sift(start, n)
    }
    var end = n
    while end > 1 {
        end &-= 1
        (a[0], a[end]) = (a[end], a[0])
        sift(0, end)
    }
}
