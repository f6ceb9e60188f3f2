// SPDX-License-Identifier: Apache-2.0
// Device: one slot of the caller's, a file, or memory of the model's own.

import CMest
import CMestKernels

struct Device {
    let io: mest_io
    let slot: UInt32
    let limit: UInt64     // bytes that may be read
    let kind: Kind

    /// With raw values: without, a hash for it would be made, and that asks for random numbers.
    enum Kind: UInt8 { case slot, file, memory }

    private var isFile: Bool { kind == .file }

    /// "slot 1", "the file"
    func name(_ message: Message) -> Message {
        switch kind {
        case .slot: message.start("slot ").integer(slot)
        case .file: message.start("the file")
        case .memory: message.start("the good state")
        }
    }

    /// A checkpoint's own word for its size.
    func checkSize(_ size: UInt64, _ message: Message) throws(Status) {
        if size < Header.bytes || isFile && size != limit {
            throw name(message).text(" has ").natural(limit).text(" bytes, its checkpoint ").natural(size).as(.corrupt)
        }
        if size > limit {
            throw name(message).text(" has a checkpoint of ").natural(size).text(" bytes; this model's have at most ")
                .natural(limit).text(": another model has saved it").as(.argument)
        }
    }

    func read(_ offset: UInt64, _ bytes: UnsafeMutablePointer<UInt8>, _ count: Int, _ message: Message) throws(Status) {
        if offset &+ uint64(count) > limit {
            throw name(message).text(" ends after ").natural(limit).text(" bytes").as(.corrupt)
        }
        let error = io.read(slot, offset, bytes, count, io.user)
        if error != 0 { throw failed("reading", error, message) }
    }

    func write(_ offset: UInt64, _ bytes: UnsafeMutablePointer<UInt8>, _ count: Int, _ message: Message) throws(Status) {
        let error = io.write(slot, offset, bytes, count, io.user)
        if error != 0 { throw failed("writing", error, message) }
    }

    func sync(_ message: Message) throws(Status) {
        let error = io.sync(slot, io.user)
        if error != 0 { throw failed("syncing", error, message) }
    }

    private func failed(_ what: StaticString, _ error: Int32, _ message: Message) -> Status {
        let text = name(message).text(": ").text(what).text(" failed: ")
        return (isFile ? text.text(mestk_file_error(error), limit: 64) : text.text("the callback returned ").integer(error))
            .as(.io)
    }
}
