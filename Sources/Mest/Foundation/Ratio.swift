// SPDX-License-Identifier: Apache-2.0
// Ratio: a density or share in whole billionths. Counts of connections are then exact integer
// arithmetic: no rounding that differs between targets, and 0.9 means 0.9.

import CMestKernels

struct Ratio: Equatable {
    static let one = Ratio(billionths: 1_000_000_000)
    static let zero = Ratio(billionths: 0)
    var billionths: Int64

    init(billionths: Int64) { self.billionths = billionths }

    /// value: in [0, 1]. From 0.001 on to the nearest millionth: a float holds no more, and 0.1 must
    /// not become 0.100000001.
    init(_ value: Float) {
        let unit: Int64 = value < 0.001 ? 1 : 1000
        billionths = Int64(Double(value) * (unit == 1 ? 1e9 : 1e6) + 0.5) &* unit  // lint: at most 1e9
    }

    var float: Float { mestk_float_double(Double(int(billionths)) / 1e9) }

    static func + (a: Ratio, b: Ratio) -> Ratio { Ratio(billionths: a.billionths &+ b.billionths) }
    static func - (a: Ratio, b: Ratio) -> Ratio { Ratio(billionths: a.billionths &- b.billionths) }

    /// A share of a share, rounded to the nearest billionth.
    static func * (a: Ratio, b: Ratio) -> Ratio {
        Ratio(billionths: (a.billionths &* b.billionths &+ 500_000_000) / 1_000_000_000)
    }

    /// To the nearest billionth.
    var squareRoot: Ratio {
        Ratio(billionths: int64(mestk_u64_double(mestk_sqrt_double(Double(int(billionths)) * 1e9) + 0.5)))
    }

    /// floor(share * n).  n < 2^32.
    func floor(of n: Int64) -> Int64 { billionths &* n / 1_000_000_000 }

    /// share * n to the nearest, halves up.  n < 2^32.
    func round(of n: Int64) -> Int64 { (billionths &* n &+ 500_000_000) / 1_000_000_000 }
}
