// SPDX-License-Identifier: Apache-2.0
// Ratio: a density or share in whole millionths. Counts of connections are then exact integer
// arithmetic: no rounding that differs between targets, and 0.9 means 0.9.

struct Ratio: Equatable {
    static let one = Ratio(millionths: 1_000_000)
    static let zero = Ratio(millionths: 0)
    var millionths: Int64

    init(millionths: Int64) { self.millionths = millionths }

    /// value: in [0, 1].
    init(_ value: Float) { millionths = Int64(Double(value) * 1_000_000 + 0.5) }

    var float: Float { Float(Int(truncatingIfNeeded: millionths)) / 1_000_000 }

    static func + (a: Ratio, b: Ratio) -> Ratio { Ratio(millionths: a.millionths &+ b.millionths) }
    static func - (a: Ratio, b: Ratio) -> Ratio { Ratio(millionths: a.millionths &- b.millionths) }

    /// a share of a share, rounded to the nearest millionth.
    static func * (a: Ratio, b: Ratio) -> Ratio {
        Ratio(millionths: (a.millionths &* b.millionths &+ 500_000) / 1_000_000)
    }

    /// floor(share * n).  n < 2^40.
    func floor(of n: Int64) -> Int64 { millionths &* n / 1_000_000 }

    /// share * n to the nearest, halves up.
    func round(of n: Int64) -> Int64 { (millionths &* n &+ 500_000) / 1_000_000 }
}
