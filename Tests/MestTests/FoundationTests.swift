// SPDX-License-Identifier: Apache-2.0
// Foundation: random streams, ratios, selection by radix, sorting, messages.

import Testing

@testable import Mest

@Suite struct RandomTests {
    /// Golden check G1: the first outputs of SplitMix64 for seed 1.
    @Test func splitMixGolden() {
        var random = SplitMix64(1)
        #expect(random.next() == 0x910a_2dec_8902_5cc1)
        #expect(random.next() == 0xbeeb_8da1_658e_ec67)
        #expect(random.next() == 0xf893_a2ee_fb32_555e)
    }

    @Test func belowStaysBelow() {
        var random = SplitMix64(7)
        for n in [1, 2, 3, 10, 1 << 40] as [UInt64] {
            for _ in 0..<100 { #expect(random.below(n) < n) }
        }
    }

    @Test func normalHasMeanZeroAndVarianceOne() {
        var random = SplitMix64(3)
        let n = 100_000
        var sum = 0.0, squares = 0.0
        for _ in 0..<n {
            let x = Double(random.normal())
            sum += x
            squares += x * x
        }
        // Standard errors are 0.0032 and 0.0045; five of them.
        #expect(abs(sum / Double(n)) < 0.016)
        #expect(abs(squares / Double(n) - 1) < 0.023)
    }

    @Test func streamsDiffer() {
        let keys = Set([
            streamKey(1, .growth, layer: 0, number: 0), streamKey(2, .growth, layer: 0, number: 0),
            streamKey(1, .value, layer: 0, number: 0), streamKey(1, .growth, layer: 1, number: 0),
            streamKey(1, .growth, layer: 0, number: 1),
        ])
        #expect(keys.count == 5)
    }
}

@Suite struct RatioTests {
    @Test func floatsBecomeTheDecimalTheyMean() {
        for millionths in stride(from: 0, through: 1_000_000, by: 1) where millionths % 977 == 0 {
            #expect(Ratio(Float(millionths) / 1_000_000).billionths == Int64(millionths) * 1000)
        }
    }

    @Test func countsAreExact() {
        #expect(Ratio(0.9).floor(of: 9215) == 8293)
        #expect(Ratio(0.1).round(of: 9216) == 922)
        #expect(Ratio(0.5).round(of: 3) == 2)
        #expect((Ratio(0.000002) * Ratio(0.2)).billionths == 400)
        #expect((Ratio(0.2) * Ratio(0.1)).billionths == 20_000_000)
        #expect(Ratio(0.25).squareRoot == Ratio(0.5) && Ratio.one.squareRoot == .one && Ratio.zero.squareRoot == .zero)
        #expect(Ratio(0.1).squareRoot.billionths == 316_227_766 && Ratio(billionths: 1).squareRoot.billionths == 31_623)
    }
}

@Suite struct SelectTests {
    @Test(arguments: 1...50) func radixAgreesWithSorting(seed: UInt64) {
        var random = SplitMix64(seed)
        let n = Int(1 + random.below(200))
        let range: UInt64 = seed % 3 == 0 ? 4 : 1 << 32  // few values: many ties
        let keys = (0..<n).map { _ in random.below(range) }
        let sorted = keys.sorted()
        for rank in [0, n / 3, n / 2, n - 1] {
            let (key, smaller) = select(rank: rank, of: n, bits: 32) { keys[$0] }
            #expect(key == sorted[rank], "seed \(seed) rank \(rank)")
            #expect(smaller == keys.count { $0 < key }, "seed \(seed) rank \(rank)")
        }
    }

    @Test(arguments: 0...40) func heapsortSorts(n: Int) {
        var random = SplitMix64(UInt64(n))
        var values = (0..<n).map { _ in UInt32(random.below(50)) }
        let wanted = values.sorted()
        values.withUnsafeMutableBufferPointer { if let base = $0.baseAddress { sort(base, n) } }
        #expect(values == wanted)
    }
}

@Suite struct MessageTests {
    private func text(_ build: (Message) -> Message) -> String {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: Message.bytes) { buffer in
            let message = Message(buffer: buffer.baseAddress!)
            message.clear()
            _ = build(message)
            return String(cString: buffer.baseAddress!)
        }
    }

    @Test func numbers() {
        #expect(text { $0.integer(Int64.min).text(" ").integer(0).text(" ").natural(.max) }
            == "-9223372036854775808 0 18446744073709551615")
        #expect(text { $0.real(0.1).text(" ").real(-2.5).text(" ").real(3).text(" ").real(.nan) } == "0.1 -2.5 3 NaN")
        #expect(text { $0.real(1e-38).text(" ").real(-1e-7).text(" ").real(0) } == "below 0.000001 above -0.000001 0")
        #expect(text { $0.real(.infinity).text(" ").real(1e20) } == "infinity above 1000000000")
    }

    @Test func cutOff() {
        let long = text { message in
            var m = message
            for _ in 0..<100 { m = m.text("0123456789") }
            return m
        }
        #expect(long.utf8.count == 255)
    }
}
