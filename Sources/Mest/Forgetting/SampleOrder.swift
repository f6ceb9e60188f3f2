// SPDX-License-Identifier: Apache-2.0
// SampleOrder: in which order samples leave the training set, as one number a sample, smaller first. By
// (forgettings, mean margin falling, seeded permutation of the id), never learned last; or as an order
// that was given says. Different samples have different numbers, none has the largest: the order is total,
// so every answer is one, and .max is free to say "nobody".

import CMest
import CMestKernels

struct SampleOrder {
    /// Rank of a sample that a given order does not name: above those it names, and without the highest bit.
    static let unlisted: UInt32 = 0x7fff_ffff

    let forgetting: Forgetting
    private let ranks: UnsafeMutablePointer<UInt32>?  // of a given order
    private let seed: UInt32

    init(_ model: Model, _ forgetting: Forgetting) {
        self.forgetting = forgetting
        ranks = model.state.pointee.orderGiven ? forgetting.ranks : nil
        // Another one behind each sieving, or of equals the same few would leave, come back and leave again.
        let number = uint64(model.state.pointee.sievings)
        seed = UInt32(truncatingIfNeeded: streamKey(model.config.seed, .selection, layer: 0, number: number))
    }

    subscript(_ i: Int) -> UInt64 {
        let tie = uint64(permuted(uint32(i)))
        if let ranks { return uint64(ranks[i]) &<< 32 | tie }
        // A sample not seen yet may be hard: it sorts last, with those never learned.
        let count: UInt8 = forgetting.learned[i] ? forgetting.count[i] : Forgetting.never
        return uint64(int(count)) &<< 56 | uint64(margin(i)) &<< 32 | tie
    }

    /// All ids, who leaves first first: before those in the training set who has left it, as it would again; of
    /// those that come back (Sieve) who does first.
    func list(_ ids: UnsafeMutablePointer<UInt32>) {
        var n = 0
        for i in 0..<forgetting.samples where !forgetting.inTraining(i) {
            ids[n] = forgetting.queue?[n] ?? uint32(i)
            n &+= 1
        }
        if forgetting.queue == nil { sort(ids, n) { self[int($0)] } }
        let (inside, first) = (ids + n, n)
        for i in 0..<forgetting.samples where forgetting.inTraining(i) {
            ids[n] = uint32(i)
            n &+= 1
        }
        sort(inside, n &- first) { self[int($0)] }
    }

    /// 24 bits, smaller for a larger mean margin: the upper bits of a float, mapped to rise as it falls.
    private func margin(_ i: Int) -> UInt32 {
        guard let margins = forgetting.margins else { return 0 }
        guard let mean = margins.mean(i) else { return 0xff_ffff }  // not seen: after those never learned
        let bits = mean.bitPattern
        let rising = bits & 0x8000_0000 != 0 ? ~bits : bits | 0x8000_0000
        return ~rising &>> 8
    }

    /// A bijection of the ids that looks random: the finaliser of MurmurHash3 (Appleby, public domain).
    private func permuted(_ id: UInt32) -> UInt32 {
        var x = id ^ seed
        x = (x ^ (x &>> 16)) &* 0x85eb_ca6b
        x = (x ^ (x &>> 13)) &* 0xc2b2_ae35
        return x ^ (x &>> 16)
    }
}

extension Model {
    /// `count` different ids below config.samples; 0 to go by the counts again.
    func give(order ids: UnsafePointer<UInt32>?, _ count: Int, to forgetting: Forgetting) throws(Status) {
        guard let ranks = forgetting.ranks else {
            throw message.start("no room for an order: set MEST_FORGETTING_ORDER in config.forgetting_flags").as(.state)
        }
        if count > 0 && config.phase1_epochs > 0 && config.remove_rule == MEST_REMOVE_COUNT {
            throw message.start("config.remove_rule is COUNT, and an order has no counts; use NUMBER or FRACTION")
                .as(.argument)
        }
        if let ids { try checkOrder(ids, count, marks: ranks) }
        for i in 0..<forgetting.samples { ranks[i] = SampleOrder.unlisted }
        for rank in 0..<count { ranks[int(ids![rank])] = uint32(rank) }
        state.pointee.orderGiven = count > 0
    }

    /// Ids in range, none twice. marks: their highest bit, free since ranks are below 2^31, is used and cleared.
    private func checkOrder(_ ids: UnsafePointer<UInt32>, _ count: Int, marks: UnsafeMutablePointer<UInt32>) throws(Status) {
        let bit: UInt32 = 0x8000_0000
        var wrong = -1
        var n = 0
        while n < count && wrong < 0 {
            let id = ids[n]
            if id >= config.samples || marks[int(id)] & bit != 0 { wrong = n } else { marks[int(id)] |= bit; n &+= 1 }
        }
        for i in 0..<n { marks[int(ids[i])] &= ~bit }
        if wrong < 0 { return }
        let place = message.start("order: id ").integer(ids[wrong]).text(" at place ").integer(wrong)
        if ids[wrong] < config.samples { throw place.text(" was there before; name every sample once").as(.argument) }
        throw place.text("; use 0 to samples - 1 = ").integer(config.samples &- 1).as(.argument)
    }
}
