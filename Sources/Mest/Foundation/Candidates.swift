// SPDX-License-Identifier: Apache-2.0
// Candidates: the numbers of largest magnitude among many that come one after the other, in the memory of twice as
// many as are wanted, or of a quarter more, which takes longer (streaming top-k). A key has the magnitude in its upper
// half, the position complemented in the lower, so that of equal ones the lower position is larger: all differ, and the
// order in which they come does not matter.

struct Candidates {
    let wanted: Int
    private let room: Int
    let keys: UnsafeMutablePointer<UInt64>  // room
    private(set) var count = 0
    private var least: UInt64 = 0           // what no longer counts

    static func bytes(_ wanted: Int64, tight: Bool = false) -> Int64 { 8 &* (tight ? wanted &+ wanted / 4 &+ 1 : 2 &* wanted) }

    /// keys: bytes(wanted, tight).
    init(wanted: Int, tight: Bool = false, keys: UnsafeMutablePointer<UInt64>) {
        self.wanted = wanted
        room = int(Candidates.bytes(int64(wanted), tight: tight) / 8)
        self.keys = keys
    }

    /// Keys that an earlier one has left.
    mutating func adopt(_ count: Int) { self.count = count }

    mutating func offer(_ number: Float, _ position: Int64) {
        let key = uint64(number.magnitude.bitPattern) &<< 32 | uint64(UInt32.max &- UInt32(truncatingIfNeeded: position))
        if key < least { return }
        if count == room { keepLargest() }
        keys[count] = key
        count &+= 1
    }

    mutating func keepLargest() {
        if count <= wanted { return }
        least = select(rank: count &- wanted, of: count, bits: 64) { keys[$0] }.key
        var kept = 0
        for i in 0..<count where keys[i] >= least {
            keys[kept] = keys[i]
            kept &+= 1
        }
        count = kept
    }

    /// By ascending position. `magnitude` and `position` are of one of those that are left.
    func sortByPosition() { sort(keys, count) { uint64(UInt32.max) &- $0 & uint64(UInt32.max) } }
    func magnitude(_ i: Int) -> Float { Float(bitPattern: UInt32(truncatingIfNeeded: keys[i] &>> 32)) }
    func position(_ i: Int) -> UInt32 { UInt32.max &- UInt32(truncatingIfNeeded: keys[i]) }

    /// Ascending positions of those that are left, in the room of the keys.
    func positions() -> UnsafeMutablePointer<UInt32> {
        let positions = UnsafeMutableRawPointer(keys).assumingMemoryBound(to: UInt32.self)
        for i in 0..<count { positions[i] = position(i) }
        sort(positions, count)
        return positions
    }
}
