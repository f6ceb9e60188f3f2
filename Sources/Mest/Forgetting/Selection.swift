// SPDX-License-Identifier: Apache-2.0
// Selection: which samples a rule would take out of the training set. The order is (forgettings,
// seeded hash of the id, id), never learned last: total, so the answer is one. The cut is found by
// radix over the keys; nothing is sorted, nothing is stored.

import CMest
import CMestKernels

struct Selection {
    private let forgetting: Forgetting
    private let seed: UInt64
    private let remaining: Int   // in the training set, the candidates
    private let low: UInt64      // removed: low <= key < high
    private let high: UInt64

    init(_ model: Model, _ forgetting: Forgetting, _ rule: mest_selection) {
        self.forgetting = forgetting
        seed = streamKey(model.config.seed, .selection, layer: 0, number: 0)
        remaining = forgetting.training
        var first = 0
        var last = 0
        switch int(rule.rule) {
        case MEST_REMOVE_COUNT:
            last = Selection.atMost(rule.remove_count, forgetting)
            first = int(min(int64(rule.keep_lowest), int64(last)))
        case MEST_REMOVE_NUMBER:
            first = int(min(int64(rule.keep_lowest), int64(remaining)))
            last = int(min(int64(first) &+ int64(rule.remove_number), int64(remaining)))
        case MEST_REMOVE_FRACTION:
            first = int(min(int64(rule.keep_lowest), int64(remaining)))
            last = min(first &+ int(Ratio(rule.remove_fraction).round(of: int64(remaining))), remaining)
        default: break
        }
        low = first < last ? Selection.keyOfRank(first, forgetting, seed) : 0
        high = first < last && last < remaining ? Selection.keyOfRank(last, forgetting, seed) : (first < last ? .max : 0)
    }

    /// Whether sample i is in the training set and stays there.
    func keeps(_ i: Int) -> Bool {
        if !forgetting.inTraining(i) { return false }
        let key = Selection.key(i, forgetting, seed)
        return key < low || key >= high
    }

    /// count (8 bits), hash (24), id (32).
    private static func key(_ i: Int, _ forgetting: Forgetting, _ seed: UInt64) -> UInt64 {
        // A sample not seen yet may be hard: it sorts last, with those never learned.
        let count: UInt8 = forgetting.learned[i] ? forgetting.count[i] : 255
        let hash = SplitMix64.mix(seed &+ uint64(i)) & 0xff_ffff
        return uint64(int(count)) &<< 56 | hash &<< 32 | uint64(i)
    }

    /// Key of the candidate with `rank` smaller ones. Those who left sort behind all candidates.
    private static func keyOfRank(_ rank: Int, _ forgetting: Forgetting, _ seed: UInt64) -> UInt64 {
        select(rank: rank, of: forgetting.samples, bits: 64) {
            forgetting.inTraining($0) ? key($0, forgetting, seed) : .max
        }.key
    }

    private static func atMost(_ count: UInt32, _ forgetting: Forgetting) -> Int {
        var n = 0
        for i in 0..<forgetting.samples
        where forgetting.inTraining(i) && forgetting.learned[i] && uint32(forgetting.count[i]) <= count { n &+= 1 }
        return n
    }
}
