// SPDX-License-Identifier: Apache-2.0
// Random numbers: SplitMix64 (Steele, Lea, Flood 2014) behind keyed streams.
// Nothing random has state that a checkpoint must carry: a stream is a pure function of
// (seed, purpose, layer, number), so every re-run and every device of a group draws the same.

import CMestKernels

struct SplitMix64 {
    private static let step: UInt64 = 0x9e37_79b9_7f4a_7c15
    private var state: UInt64

    init(_ seed: UInt64) { state = seed }

    static func mix(_ x: UInt64) -> UInt64 {
        var z = x
        z = (z ^ (z &>> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z &>> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z &>> 31)
    }

    mutating func next() -> UInt64 {
        state &+= SplitMix64.step
        return SplitMix64.mix(state)
    }

    /// As if so many had been drawn.
    mutating func skip(_ numbers: UInt64) { state &+= numbers &* SplitMix64.step }

    /// Uniform in 0 ..< n, n > 0.
    mutating func below(_ n: UInt64) -> UInt64 { next().multipliedFullWidth(by: n).high }

    /// Uniform in (0, 1), 53 bits.
    mutating func unit() -> Double {
        let bits = next() &>> 11
        return (mestk_double_u64(bits) + 0.5) * 0x1p-53
    }

    /// Standard normal, Box-Muller.
    mutating func normal() -> Float {
        let radius = mestk_sqrt_double(-2 * mestk_log_double(unit()))
        return mestk_float_double(radius * mestk_cos_double(2 * Double.pi * unit()))
    }
}

/// What a stream is for; the numbers are part of the bits and never change.
enum Purpose: UInt64 {
    case topology = 1   // initial connections
    case value = 2      // initial weights
    case growth = 3     // positions of grown connections
    case dropout = 4
    case selection = 5  // order of equally forgotten samples
    case grownValue = 6 // weights of grown channels
    case adoptedValue = 7 // weights of channels that are set to exist; the number is the channel's
    case share = 8      // which layers get what does not divide
}

/// Key of the stream for (seed, purpose, layer, number).
func streamKey(_ seed: UInt64, _ purpose: Purpose, layer: Int, number: UInt64) -> UInt64 {
    var key = SplitMix64.mix(seed &+ 0x9e37_79b9_7f4a_7c15)
    key = SplitMix64.mix(key &+ purpose.rawValue &* 0xd1b5_4a32_d192_ed03)
    key = SplitMix64.mix(key &+ uint64(layer) &* 0xaef1_7502_108e_f2d9)
    return SplitMix64.mix(key &+ number)
}
