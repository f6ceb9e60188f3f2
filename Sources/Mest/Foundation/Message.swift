// SPDX-License-Identifier: Apache-2.0
// Message: one line of text in a fixed buffer of 256 bytes, built piece by piece without String.
//     throw message.start("layer ").integer(3).text(": channels is 0").as(.argument)
// What does not fit is cut off.

struct Message {
    static let bytes = 256
    let buffer: UnsafeMutablePointer<CChar>

    func clear() { buffer[0] = 0 }

    func start(_ text: StaticString) -> Message {
        clear()
        return self.text(text)
    }

    func text(_ text: StaticString) -> Message {
        append(UnsafeRawPointer(text.utf8Start), text.utf8CodeUnitCount)
        return self
    }

    /// The caller's zero-terminated text of at most `limit` bytes. A message is one line: control characters are "?".
    func text(_ text: UnsafeRawPointer, limit: Int) -> Message {
        var count = 0
        while count < limit && text.load(fromByteOffset: count, as: UInt8.self) != 0 { count &+= 1 }
        append(text, count)
        var i = 0
        while buffer[i] != 0 {
            if buffer[i] > 0 && buffer[i] < 32 || buffer[i] == 127 { buffer[i] = 63 }
            i &+= 1
        }
        return self
    }

    func integer(_ value: Int64) -> Message {
        if value < 0 { _ = text("-") }
        return natural(value.magnitude)
    }

    func integer(_ value: Int32) -> Message { integer(int64(value)) }
    func integer(_ value: UInt32) -> Message { natural(uint64(value)) }
    func integer(_ value: Int) -> Message { integer(int64(value)) }

    func natural(_ value: UInt64) -> Message {
        var digits: (UInt64, UInt64, UInt64) = (0, 0, 0)  // 24 bytes, 20 needed
        withUnsafeMutableBytes(of: &digits) { digit in
            var rest = value
            var first = 20
            repeat {
                first &-= 1
                digit[first] = UInt8(truncatingIfNeeded: 48 &+ rest % 10)
                rest /= 10
            } while rest > 0
            append(UnsafeRawPointer(digit.baseAddress.unsafelyUnwrapped) + first, 20 &- first)
        }
        return self
    }

    /// Six decimals, or the words for what is no number.
    func real(_ value: Float) -> Message {
        if value.isNaN { return text("NaN") }
        if value.isInfinite { return text(value < 0 ? "-infinity" : "infinity") }
        if value.magnitude >= 1e9 { return text(value < 0 ? "below -1000000000" : "above 1000000000") }
        let millionths = Int64(value.magnitude * 1_000_000 + 0.5)  // lint: below 1e15
        if millionths == 0 && value != 0 { return text(value < 0 ? "above -0.000001" : "below 0.000001") }
        if value < 0 && millionths > 0 { _ = text("-") }
        _ = integer(millionths / 1_000_000)
        var fraction = millionths % 1_000_000
        if fraction == 0 { return self }
        _ = text(".")
        var scale: Int64 = 100_000
        while fraction > 0 {
            _ = integer(fraction / scale)
            fraction %= scale
            scale /= 10
        }
        return self
    }

    /// The end of the chain: the status to throw.
    func `as`(_ status: Status) -> Status { status }

    private func append(_ source: UnsafeRawPointer, _ count: Int) {
        var end = 0
        while end < Message.bytes &- 1 && buffer[end] != 0 { end &+= 1 }
        var i = 0
        while i < count && end < Message.bytes &- 1 {
            buffer[end] = source.load(fromByteOffset: i, as: CChar.self)
            end &+= 1
            i &+= 1
        }
        buffer[end] = 0
    }
}
