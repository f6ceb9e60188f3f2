// SPDX-License-Identifier: Apache-2.0
// mest_model_save, _load, and the same in files.

import CMest
import CMestKernels

@c @implementation
public func mest_model_save(
    _ model: OpaquePointer?, _ io: UnsafePointer<mest_io>?, _ out_report: UnsafeMutablePointer<mest_checkpoint_report>?
) -> Int32 {
    call(model) { (model) throws(Status) in
        let io = try check(io, model)
        try checkReport(out_report, model)
        let s = model.state.pointee
        if let savedAt = s.savedAt, s.updates &- savedAt < uint64(io.minimum_updates) {
            write(model.report(-1, Header(sequence: 0, size: 0)), to: out_report)
            return
        }
        let slots = model.look(io, strict: false)
        let slot = slots.newest.map { 1 &- $0.device.slot } ?? 0
        let sequence = slots.highest &+ 1
        let size = try model.write(to: model.device(io, slot), sequence: sequence)
        write(model.report(int32(slot), Header(sequence: sequence, size: size)), to: out_report)
    }
}

@c @implementation
public func mest_model_load(
    _ model: OpaquePointer?, _ io: UnsafePointer<mest_io>?, _ flags: UInt32,
    _ out_report: UnsafeMutablePointer<mest_checkpoint_report>?
) -> Int32 {
    call(model) { (model) throws(Status) in
        let io = try check(io, model)
        let strict = try checkFlags(flags, model)
        try checkReport(out_report, model)
        let slots = model.look(io, strict: strict)
        // Where there is none: once more, for what is wrong with the one that should be it.
        let newest = if let found = slots.newest { found } else {
            try model.check(model.device(io, slots.first), strict: strict)
        }
        try model.take(newest)
        var report = model.report(int32(newest.device.slot), newest.header)
        report.damaged = slots.damaged
        write(report, to: out_report)
    }
}

@c @implementation
public func mest_model_save_file(
    _ model: OpaquePointer?, _ path: UnsafePointer<CChar>?, _ out_report: UnsafeMutablePointer<mest_checkpoint_report>?
) -> Int32 {
    call(model) { (model) throws(Status) in
        guard let path else { throw null("path", model.message) }
        try checkReport(out_report, model)
        var file = mestk_file()
        var sequence: UInt64 = 1
        if mestk_file_open(&file, path) == 0 {
            let before = try? withFile(&file) { (device) throws(Status) in try model.header(device) }
            mestk_file_close(&file)
            if let before { sequence = before.sequence &+ 1 }
        }
        model.message.clear()
        var error = mestk_file_create(&file, path)
        if error != 0 { throw failed("saving", path, error, model) }
        var size: UInt64 = 0
        do throws(Status) {
            size = try withFile(&file) { (device) throws(Status) in try model.write(to: device, sequence: sequence) }
        } catch {
            mestk_file_close(&file)
            throw error
        }
        error = mestk_file_replace(&file)
        if error != 0 { throw failed("saving", path, error, model) }
        write(model.report(0, Header(sequence: sequence, size: size)), to: out_report)
    }
}

@c @implementation
public func mest_model_load_file(
    _ model: OpaquePointer?, _ path: UnsafePointer<CChar>?, _ flags: UInt32,
    _ out_report: UnsafeMutablePointer<mest_checkpoint_report>?
) -> Int32 {
    call(model) { (model) throws(Status) in
        guard let path else { throw null("path", model.message) }
        let strict = try checkFlags(flags, model)
        try checkReport(out_report, model)
        var file = mestk_file()
        let error = mestk_file_open(&file, path)
        if error != 0 { throw failed("loading", path, error, model) }
        defer { mestk_file_close(&file) }
        let header = try withFile(&file) { (device) throws(Status) in
            let found = try model.check(device, strict: strict)
            try model.take(found)
            return found.header
        }
        write(model.report(0, header), to: out_report)
    }
}

private func withFile<Result>(
    _ file: inout mestk_file, _ body: (Device) throws(Status) -> Result
) throws(Status) -> Result {
    let bytes = file.bytes
    return try withUnsafeMutablePointer(to: &file) { (file) throws(Status) in
        var io = mest_io()
        io.user = UnsafeMutableRawPointer(file)
        io.read = mestk_file_read
        io.write = mestk_file_write
        io.sync = mestk_file_sync
        return try body(Device(io: io, slot: 0, limit: bytes, kind: .file))
    }
}

private func failed(_ what: StaticString, _ path: UnsafePointer<CChar>, _ error: Int32, _ model: Model) -> Status {
    model.message.start(what).text(" ").text(path, limit: 150).text(" failed: ").text(mestk_file_error(error), limit: 64)
        .as(int(error) == MESTK_NO_FILES ? .unsupported : .io)
}

private func check(_ io: UnsafePointer<mest_io>?, _ model: Model) throws(Status) -> mest_io {
    let io = try read(io, "io", model.message)
    if io.read == nil || io.write == nil || io.sync == nil {
        throw model.message.start("io: give read, write and sync").as(.argument)
    }
    return io
}

private func checkReport(_ report: UnsafeMutablePointer<mest_checkpoint_report>?, _ model: Model) throws(Status) {
    try checkSize(report, "out_report", model.message)
}

/// Whether settings must agree.
private func checkFlags(_ flags: UInt32, _ model: Model) throws(Status) -> Bool {
    if flags & ~UInt32(MEST_LOAD_OTHER_SETTINGS) != 0 {
        throw model.message.start("flags ").integer(flags).text(" are unknown; use MEST_LOAD_*").as(.argument)
    }
    return flags & UInt32(MEST_LOAD_OTHER_SETTINGS) == 0
}
