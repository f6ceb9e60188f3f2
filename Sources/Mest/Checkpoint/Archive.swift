// SPDX-License-Identifier: Apache-2.0
// Archive: the bytes of one checkpoint in order, for whoever goes through the state once: counted, written,
// checked or loaded. Reading and writing are one walk over the same fields (Sections.swift), so that they
// cannot come apart. Every number is little-endian; nothing is aligned.
//
//   header    40 bytes, of every format, later ones included: magic 8, format 4, version of the library 4,
//             sequence 8, size of the checkpoint 8, reserved 4, CRC 4
//   sections  id 4, layer 4 (-1: none), size of the content 8, content, CRC 4; the last is `end`
//
// A CRC is that of all bytes before it but the CRCs themselves. So it covers the sequence number too: a section
// that an earlier save has left in its place does not pass for one of this save.

import CMest
import CMestKernels

struct Header {
    static let bytes: UInt64 = 40
    static let magic: UInt64 = 0x6176_6173_7473_656d  // "mestsava", little-endian
    static let format: UInt32 = 1

    /// Zeros, or what erased flash holds.
    static func isBlank(_ magic: UInt64) -> Bool { magic == 0 || magic == .max }

    var format = Header.format
    var sequence: UInt64
    var size: UInt64
}

struct Archive {
    /// With raw values: without, a hash for it would be made, and that asks for random numbers.
    enum Mode: Int32 { case counting, writing, checking, loading }

    let mode: Mode
    let strict: Bool                // settings that no stored value depends on must agree, too
    private let model: Model?
    private let device: Device?
    private let buffer: UnsafeMutablePointer<UInt8>?  // one chunk

    private var offset: UInt64 = 0  // of the chunk
    private var next = 0            // in the chunk
    private var filled = 0          // of the chunk, when reading
    private var summed = 0          // of the chunk, that the CRC has
    private var sums = true         // what comes now counts for the CRC
    private(set) var crc: UInt32 = 0
    private var size = Header.bytes // reading: of the checkpoint
    private var left: UInt64 = 0    // reading: of what may be read now
    private var mayEnd = false      // a section of fields: earlier versions have saved fewer
    private var layer = -1          // of the section
    private var section = Section.config
    var microBatches: UInt32 = 1    // of an update, in the model that was saved
    private var fault: Status?      // the first found in the section, told when its CRC is known to be right

    /// Counts.
    init() {
        (mode, strict, model, device, buffer) = (.counting, false, nil, nil, nil)
    }

    init(_ mode: Mode, _ model: Model, _ device: Device, _ buffer: UnsafeMutablePointer<UInt8>, strict: Bool = false) {
        self.mode = mode
        self.strict = strict
        self.model = model
        self.device = device
        self.buffer = buffer
    }

    var reads: Bool { mode == .checking || mode == .loading }
    /// So far.
    var bytes: UInt64 { offset &+ uint64(next) }
}

// MARK: - Numbers

extension Archive {
    /// Writes x and returns it, or returns what was read in its place.
    mutating func byte(_ x: UInt8) throws(Status) -> UInt8 {
        if mode == .counting {
            offset &+= 1
            return x
        }
        let chunk = buffer.unsafelyUnwrapped
        if mode == .writing {
            if next == Archive.chunkBytes { try flush() }
            chunk[next] = x
            next &+= 1
            return x
        }
        if left == 0 { throw damaged() }
        if next == filled { try fill() }
        left &-= 1
        next &+= 1
        return chunk[next &- 1]
    }

    mutating func half(_ x: UInt16) throws(Status) -> UInt16 {
        let low = try byte(UInt8(truncatingIfNeeded: x))
        let high = try byte(UInt8(truncatingIfNeeded: x &>> 8))
        return UInt16(truncatingIfNeeded: low) | UInt16(truncatingIfNeeded: high) &<< 8
    }

    /// A field that an earlier version did not save stays what it is.
    mutating func word(_ x: UInt32) throws(Status) -> UInt32 {
        if mayEnd && left == 0 { return x }
        let low = try half(UInt16(truncatingIfNeeded: x))
        let high = try half(UInt16(truncatingIfNeeded: x &>> 16))
        return UInt32(truncatingIfNeeded: low) | UInt32(truncatingIfNeeded: high) &<< 16
    }

    mutating func wide(_ x: UInt64) throws(Status) -> UInt64 {
        let low = try word(UInt32(truncatingIfNeeded: x))
        let high = try word(UInt32(truncatingIfNeeded: x &>> 32))
        return uint64(low) | uint64(high) &<< 32
    }
}

// MARK: - Fields

extension Archive {
    /// A number of the state.
    mutating func number(_ x: inout UInt32, atMost most: UInt32 = .max) throws(Status) {
        let value = try word(x)
        if value > most { return noteDamage() }
        x = value
    }

    /// How many units of a layer exist, of all that could. A model of another density may have less room.
    mutating func number(_ x: inout UInt32, of all: UInt32, room: UInt32) throws(Status) {
        try number(&x, atMost: all)
        if x <= room || !reads || fault != nil { return }
        let text = model.unsafelyUnwrapped.state.pointee.plan.layer(layer, message).text(": room for ").integer(room)
        note(text.text(" here, ").integer(x).text(" in the checkpoint; its density has to be as it was").as(.argument))
    }

    mutating func number(_ x: inout UInt64) throws(Status) { x = try wide(x) }
    mutating func number(_ x: inout Float) throws(Status) { x = Float(bitPattern: try word(x.bitPattern)) }

    mutating func flag(_ x: inout Bool) throws(Status) {
        var value: UInt32 = x ? 1 : 0
        try number(&value, atMost: 1)
        x = value == 1
    }

    /// What saved and own model must have in common.
    @discardableResult
    mutating func same(
        _ name: StaticString, _ own: UInt32, optional: Bool = false, hint: StaticString = ""
    ) throws(Status) -> UInt32 {
        let value = try word(own)
        compare(name, own, value, optional: optional, hint: hint)
        return value
    }

    /// hint: what to do instead.
    mutating func compare(
        _ name: StaticString, _ own: UInt32, _ value: UInt32, optional: Bool = false, hint: StaticString = ""
    ) {
        if value == own || mode != .checking || fault != nil { return }
        let text = differs(name).integer(Int32(bitPattern: own)).text(" here, ").integer(Int32(bitPattern: value))
        note(inCheckpoint(text, optional))
        _ = text.text(hint)
    }

    mutating func same(_ name: StaticString, _ own: Float, optional: Bool = false) throws(Status) {
        let value = Float(bitPattern: try word(own.bitPattern))
        if value.bitPattern == own.bitPattern || mode != .checking || fault != nil { return }
        note(inCheckpoint(differs(name).real(own).text(" here, ").real(value), optional))
    }

    /// The same of what messages have names for.
    mutating func same(
        _ name: StaticString, _ own: Int32, named: (Int32) -> StaticString?, optional: Bool = false
    ) throws(Status) {
        let value = Int32(bitPattern: try word(UInt32(bitPattern: own)))
        if value == own || mode != .checking || fault != nil { return }
        let text = differs(name).text(named(own) ?? "unknown").text(" here, ").text(named(value) ?? "unknown")
        note(inCheckpoint(text, optional))
    }

    /// What need not agree if the caller says so.
    @discardableResult
    mutating func setting(_ name: StaticString, _ own: UInt32) throws(Status) -> UInt32 {
        strict ? try same(name, own, optional: true) : try word(own)
    }

    mutating func setting(_ name: StaticString, _ own: Int32, named: (Int32) -> StaticString?) throws(Status) {
        if strict { try same(name, own, named: named, optional: true) } else { _ = try word(UInt32(bitPattern: own)) }
    }

    mutating func setting(_ name: StaticString, _ own: Int32) throws(Status) { try setting(name, UInt32(bitPattern: own)) }

    mutating func setting(_ name: StaticString, _ own: Float) throws(Status) {
        if strict { try same(name, own, optional: true) } else { _ = try word(own.bitPattern) }
    }

    private func inCheckpoint(_ text: Message, _ optional: Bool) -> Status {
        text.text(optional ? " in the checkpoint; set it so, or load with MEST_LOAD_OTHER_SETTINGS" : " in the checkpoint")
            .as(.argument)
    }

    private func differs(_ name: StaticString) -> Message {
        let start = layer < 0 ? message.start("config.")
            : model.unsafelyUnwrapped.state.pointee.plan.layer(layer, message).text(": ")
        return start.text(name).text(" is ")
    }

    /// To be told at the end of the section, when its CRC has shown that it was saved so. The first counts.
    mutating func note(_ status: Status) { if fault == nil { fault = status } }

    /// Not a word of it where another counts: there is one message.
    mutating func noteDamage() { if fault == nil { fault = damaged() } }
}

// MARK: - Arrays

/// What arrays are made of.
protocol Element: Comparable {
    func pass(_ archive: inout Archive) throws(Status) -> Self
}

extension UInt8: Element { func pass(_ archive: inout Archive) throws(Status) -> UInt8 { try archive.byte(self) } }
extension UInt16: Element { func pass(_ archive: inout Archive) throws(Status) -> UInt16 { try archive.half(self) } }
extension UInt32: Element { func pass(_ archive: inout Archive) throws(Status) -> UInt32 { try archive.word(self) } }

extension Archive {
    /// A section: `count` elements of the block.
    mutating func array<T: Element>(
        _ id: Section, layer: Int = -1, _ place: Place, _ count: Int64, of _: T.Type, valid: (T) -> Bool
    ) throws(Status) {
        if !place.exists { return }
        try begin(id, layer: layer, bytes: count &* int64(MemoryLayout<T>.size))
        if mode == .counting { return }
        let x = at(place, T.self)
        for i in 0..<int(count) {
            let value = try x[i].pass(&self)
            if !valid(value) { throw damaged() }
            if mode == .loading { x[i] = value }
        }
        try end()
    }

    /// Bits of floats, whatever they mean.
    mutating func floats(_ id: Section, layer: Int = -1, _ place: Place, _ count: Int64) throws(Status) {
        try array(id, layer: layer, place, count, of: UInt32.self) { _ in true }
    }

    /// Not when counting.
    func at<T>(_ place: Place, _ type: T.Type) -> UnsafeMutablePointer<T> { model.unsafelyUnwrapped.at(place, type) }
}

// MARK: - Header and sections

extension Archive {
    /// Reading: `header` is what was found.
    mutating func header(_ header: inout Header) throws(Status) {
        if mode == .counting {
            offset &+= Header.bytes
            return
        }
        left = Header.bytes
        let magic = try wide(Header.magic)
        if magic != Header.magic {
            throw said().text(Header.isBlank(magic) ? " is empty" : " is no checkpoint").as(.corrupt)
        }
        let format = try word(header.format)
        _ = try word(mest_version())
        let sequence = try wide(header.sequence)
        let size = try wide(header.size)
        _ = try word(0)
        if try !checksum() { throw said().text(": its header is damaged").as(.corrupt) }
        if !reads { return }
        if format == 0 || format > Header.format {
            throw said().text(" has format ").integer(format).text(", this version knows 1 to ").integer(Header.format)
                .text("; use a later libmest").as(.version)
        }
        try device.unsafelyUnwrapped.checkSize(size, message)
        header = Header(format: format, sequence: sequence, size: size)
        self.size = size
    }

    /// A section of numbers that later versions append to.
    mutating func fields(_ id: Section, layer: Int = -1, _ content: (inout Archive) throws(Status) -> Void) throws(Status) {
        var counter = Archive()
        try content(&counter)
        try begin(id, layer: layer, bytes: int64(counter.bytes))
        if mode == .counting { return }
        mayEnd = reads
        try content(&self)
        mayEnd = false
        try end(fields: true)
    }

    /// A section of so many bytes. They follow, and end(); when counting they are counted.
    mutating func begin(_ id: Section, layer: Int = -1, bytes content: Int64) throws(Status) {
        (section, self.layer, fault) = (id, layer, nil)
        switch mode {
        case .counting: offset &+= 20 &+ uint64(content)
        case .writing: try head(id, layer, uint64(content))
        default: try open(id, layer)
        }
    }

    mutating func end(fields: Bool = false) throws(Status) {
        switch mode {
        case .counting: return
        case .writing: _ = try checksum()
        default: try close(fields: fields)
        }
    }

    private mutating func head(_ id: Section, _ layer: Int, _ size: UInt64) throws(Status) {
        _ = try word(id.rawValue)
        _ = try word(UInt32(bitPattern: int32(layer)))
        _ = try wide(size)
    }

    private mutating func open(_ id: Section, _ layer: Int) throws(Status) {
        left = 16
        let foundId = try word(0)
        let foundLayer = try word(0)
        let content = try wide(0)
        let rest = size &- bytes
        if rest < 4 || content > rest &- 4 { throw damaged() }
        left = content
        if foundId == id.rawValue && foundLayer == UInt32(bitPattern: int32(layer)) { return }
        // Something else lies here: is that damage, or was it saved so?
        try drain()
        if try !checksum() { throw damaged() }
        if Section(rawValue: foundId) == nil { throw later() }
        throw said().text(" has section ").integer(foundId).text(" of layer ").integer(Int32(bitPattern: foundLayer))
            .text(" where this model has ").text(id.word).text(" of layer ").integer(layer)
            .text(": another config has saved it").as(strict ? .corrupt : .argument)
    }

    private mutating func close(fields: Bool) throws(Status) {
        let more = left > 0
        try drain()
        if try !checksum() { throw damaged() }
        if let fault { throw fault }
        if more { throw fields ? later() : damaged() }
    }

    private mutating func drain() throws(Status) {
        while left > 0 { _ = try byte(0) }
    }

    /// Writes the CRC, or tells whether it is that of what was read.
    private mutating func checksum() throws(Status) -> Bool {
        sum()
        sums = false
        left = 4
        let found = try word(crc)
        summed = next
        sums = true
        return found == crc
    }

    /// Where the last section ends, the checkpoint must.
    var isComplete: Bool { bytes == size }
}

// MARK: - Chunks

extension Archive {
    static let chunkBytes = int(MEST_CHECKPOINT_CHUNK)

    private mutating func sum() {
        if sums, let buffer { crc = mestk_crc32(crc, buffer + summed, next &- summed) }
        summed = next
    }

    private mutating func flush() throws(Status) {
        sum()
        try device.unsafelyUnwrapped.write(offset, buffer.unsafelyUnwrapped, next, message)
        offset &+= uint64(next)
        (next, summed) = (0, 0)
    }

    private mutating func fill() throws(Status) {
        sum()
        offset &+= uint64(filled)
        (next, summed) = (0, 0)
        filled = int(min(uint64(Archive.chunkBytes), size &- offset))
        if filled == 0 { throw damaged() }
        try device.unsafelyUnwrapped.read(offset, buffer.unsafelyUnwrapped, filled, message)
    }

    /// The last chunk makes the checkpoint whole: it is written when all others are safe.
    mutating func finish() throws(Status) {
        try device.unsafelyUnwrapped.sync(message)
        try flush()
        try device.unsafelyUnwrapped.sync(message)
    }
}

// MARK: - Messages

extension Archive {
    private var message: Message { model.unsafelyUnwrapped.message }

    private func said() -> Message { device.unsafelyUnwrapped.name(message) }

    func damaged() -> Status {
        if mode == .counting { return .internal }
        let text = said().text(": section ").text(section.word)
        return (layer < 0 ? text : text.text(" of layer ").integer(layer)).text(" is damaged").as(.corrupt)
    }

    private func later() -> Status { said().text(" was saved by a later version of libmest; use that").as(.version) }
}
