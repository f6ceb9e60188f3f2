// SPDX-License-Identifier: Apache-2.0
// Forgetting: golden check G7 and selection against plain sorting, through the C API's model.

import CMest
import Testing

@testable import Mest

/// A tiny model that counts forgetting; destroyed with the object.
final class CountingModel {
    let handle: OpaquePointer
    var model: Model { Model(handle) }
    var forgetting: Forgetting { Forgetting(model)! }

    init(samples: UInt32, set: (inout mest_config) -> Void = { _ in }) {
        var config = mest_config()
        #expect(mest_config_init(&config, UInt32(MemoryLayout<mest_config>.size)) == 0)
        config.batch = 4
        config.samples = samples
        config.seed = 5
        set(&config)
        var layers = [mest_layer(), mest_layer()]
        for i in 0..<2 {
            layers[i].struct_size = UInt32(MemoryLayout<mest_layer>.size)
            layers[i].kind = i == 0 ? Int32(MEST_LAYER_INPUT) : Int32(MEST_LAYER_LINEAR)
            layers[i].channels = 2
        }
        var handle: OpaquePointer?
        #expect(mest_model_create(&config, layers, 2, nil, &handle) == 0)
        self.handle = handle!
    }

    deinit { mest_model_destroy(handle) }

    func select(_ rule: Int, count: UInt32 = 0, number: UInt32 = 0, fraction: Float = 0, keepLowest: UInt32 = 0) -> [Int] {
        let selection = mest_selection(
            struct_size: 0, rule: Int32(rule), remove_count: count, remove_number: number, remove_fraction: fraction,
            keep_lowest: keepLowest)
        let chosen = Selection(model, forgetting, selection)
        return (0..<Int(model.config.samples)).filter { chosen.keeps($0) }
    }
}

@Suite struct ForgettingCounts {
    @Test(arguments: [
        ("11111111", 0), ("01111111", 0), ("00110100", 2), ("00000000", 255), ("10101010", 4), ("00000001", 0),
        ("10000000", 1), ("01011111", 1),
    ] as [(String, UInt8)])
    func golden(answers: String, count: UInt8) {
        let counting = CountingModel(samples: 3)
        var events: [Int] = []
        for (t, answer) in answers.enumerated() where counting.forgetting.observe(1, correct: answer == "1") {
            events.append(t)
        }
        #expect(counting.forgetting.reported(1) == count)
        if answers == "00110100" { #expect(events == [4, 6]) }  // presentations 5 and 7, counted from 1
        #expect(counting.forgetting.reported(0) == 0 && counting.forgetting.reported(2) == 0)
    }

    @Test func saturates() {
        let counting = CountingModel(samples: 1)
        for t in 0..<1000 { _ = counting.forgetting.observe(0, correct: t % 2 == 0) }
        #expect(counting.forgetting.reported(0) == 254)
    }
}

@Suite struct Selections {
    /// Random histories; the rules against sorting by (count, order among equals as the model has it).
    @Test(arguments: 1...40) func rules(seed: UInt64) {
        var random = SplitMix64(seed)
        let n = Int(1 + random.below(300))
        let counting = CountingModel(samples: UInt32(n))
        for _ in 0..<(n * 6) {
            _ = counting.forgetting.observe(Int(random.below(UInt64(n))), correct: random.below(3) > 0)
        }
        let counts = (0..<n).map { counting.forgetting.learned[$0] ? Int(counting.forgetting.count[$0]) : 255 }

        let limit = Int(random.below(4))
        #expect(counting.select(MEST_REMOVE_COUNT, count: UInt32(limit)) == (0..<n).filter { counts[$0] > limit })
        #expect(counting.select(MEST_REMOVE_NONE) == Array(0..<n))

        // By number: exactly so many, all of the smallest counts; growing the number only adds.
        var last = Set<Int>()
        for number in [0, 1, n / 3, n - 1, n] {
            let removed = Set(0..<n).subtracting(counting.select(MEST_REMOVE_NUMBER, number: UInt32(number)))
            #expect(removed.count == number && removed.isSuperset(of: last), "seed \(seed)")
            let worst = removed.map { counts[$0] }.max() ?? 0
            #expect(Set(0..<n).subtracting(removed).allSatisfy { counts[$0] >= worst }, "seed \(seed)")
            last = removed
        }
        let fraction = counting.select(MEST_REMOVE_FRACTION, fraction: 0.25)
        #expect(fraction == counting.select(MEST_REMOVE_NUMBER, number: UInt32((n + 2) / 4)), "seed \(seed)")

        // keep_lowest moves the window up.
        let all = counting.select(MEST_REMOVE_NUMBER, number: UInt32(n / 2), keepLowest: UInt32(n / 4))
        let lowest = Set(0..<n).subtracting(counting.select(MEST_REMOVE_NUMBER, number: UInt32(n / 4)))
        #expect(all.count == n - n / 2 && lowest.isSubset(of: all), "seed \(seed)")
    }
}
