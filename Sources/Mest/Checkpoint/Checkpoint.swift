// SPDX-License-Identifier: Apache-2.0
// Checkpoint: saving into a slot, and loading from one: read once to check everything, once more to take it.
// Never inlined, what needs stack: a chunk, or a copy of ModelState, is there once at a time.

import CMest
import CMestKernels

extension ModelState {
    /// What the config says of an epoch that has begun. Changes nothing where the saved config was this one.
    fileprivate mutating func followOwnSettings() {
        let config = plan.config
        stepsPerEpoch = began && plan.derivesSteps ? Mest.updates(for: trainingSamples, config) : config.steps_per_epoch
        frozen = began ? min(frozen, uint32(plan.frozenLayers(at: epoch))) : 0
    }
}

/// A checkpoint that is whole and this model's.
struct Checkpoint {
    var device: Device
    var header: Header
    var crc: UInt32  // of all of it
}

extension Model {
    // MARK: One slot

    /// Returns how many bytes the checkpoint has.
    @inline(never)
    func write(to device: Device, sequence: UInt64) throws(Status) -> UInt64 {
        state.pointee.plan.countPresent()
        var s = state.pointee
        let size = uint64(try s.plan.checkpointBytes(&s))
        let model = self
        try withChunk { (chunk) throws(Status) in
            var archive = Archive(.writing, model, device, chunk)
            var header = Header(sequence: sequence, size: size)
            // What a save that fails has written wears flash all the same.
            defer { if device.kind != .memory { model.state.pointee.bytesWritten &+= archive.bytes } }
            try archive.header(&header)
            try archive.walk(s.plan, &s)
            try archive.finish()
        }
        if device.kind != .memory { state.pointee.savedAt = s.updates }
        return size
    }

    /// Reads all of a checkpoint and changes nothing.
    func check(_ device: Device, strict: Bool) throws(Status) -> Checkpoint {
        state.pointee.plan.countPresent()
        var s = state.pointee
        return try read(.checking, device, strict: strict, &s)
    }

    /// Takes over a checkpoint that was checked.
    @inline(never)
    func take(_ found: Checkpoint) throws(Status) {
        var s = state.pointee
        zero(s.plan.gradients, to: Place(offset: s.plan.gradients.offset &+ s.plan.bytes.gradients))
        s.plan.countPresent()
        var read: Checkpoint?
        do throws(Status) { read = try self.read(.loading, found.device, strict: false, &s) } catch {}
        if read?.crc != found.crc {
            beginAnew()
            if s.plan.config.freezes { s.plan.freeze(upTo: 0) }
            throw found.device.name(message)
                .text(" was not the same when read again; its state and the model's are lost: the model begins anew")
                .as(.io)
        }
        s.bytesWritten &+= found.header.size  // it could not count itself
        s.savedAt = s.updates
        s.keeps = false
        s.followOwnSettings()
        state.pointee = s
        if s.plan.config.freezes { s.plan.freeze(upTo: int(s.frozen)) }
        for i in 0..<count where nodes[i].hasMatrix { withScheme(nodes[i], Refresh(model: self, node: nodes + i)) }
    }

    @inline(never)
    private func read(
        _ mode: Archive.Mode, _ device: Device, strict: Bool, _ s: inout ModelState
    ) throws(Status) -> Checkpoint {
        var header = Header(sequence: 0, size: 0)
        let crc = try withChunk { (chunk) throws(Status) in
            var archive = Archive(mode, self, device, chunk, strict: strict)
            try archive.header(&header)
            try archive.walk(s.plan, &s)
            return archive.crc
        }
        return Checkpoint(device: device, header: header, crc: crc)
    }

    @inline(never)
    func header(_ device: Device) throws(Status) -> Header {
        var header = Header(sequence: 0, size: 0)
        try withChunk { (chunk) throws(Status) in
            var archive = Archive(.checking, self, device, chunk)
            try archive.header(&header)
        }
        return header
    }

    private func withChunk<Result>(
        _ body: (UnsafeMutablePointer<UInt8>) throws(Status) -> Result
    ) throws(Status) -> Result {
        var chunk = InlineArray<1024, UInt8>(repeating: 0)
        return try withUnsafeMutableBytes(of: &chunk) { (bytes) throws(Status) in
            try body(bytes.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: UInt8.self))
        }
    }

    // MARK: Two slots

    /// What is in the slots, as far as it takes to find the newest whole checkpoint of this model.
    struct Slots {
        var newest: Checkpoint?
        var highest: UInt64 = 0   // sequence number of any header
        var damaged: UInt32 = 0   // slots with something that is no whole checkpoint
        var first: UInt32 = 0     // the slot that should have been the newest
    }

    @inline(never)
    func look(_ io: mest_io, strict: Bool) -> Slots {
        var slots = Slots()
        let headers = (sequence(io, 0), sequence(io, 1))
        slots.highest = max(headers.0.number, headers.1.number)
        slots.first = headers.1.isAfter(headers.0) ? 1 : 0
        for n in 0..<2 {
            let slot = n == 0 ? slots.first : 1 &- slots.first
            let header = slot == 0 ? headers.0 : headers.1
            if header.isEmpty || slots.newest != nil && header.isWhole { continue }
            do throws(Status) {
                let found = try check(device(io, slot), strict: strict)
                // A header that could not be read the first time may be the older one's, or the newest's.
                if found.header.sequence > slots.highest { slots.highest = found.header.sequence }
                if let newest = slots.newest, newest.header.sequence > found.header.sequence { continue }
                slots.newest = found
            } catch {
                if error != .argument { slots.damaged &+= 1 }
            }
        }
        return slots
    }

    func device(_ io: mest_io, _ slot: UInt32) -> Device {
        Device(io: io, slot: slot, limit: uint64(state.pointee.plan.bytes.checkpoint), kind: .slot)
    }

    private struct Sequence {
        var number: UInt64 = 0
        var isWhole = false
        var isEmpty = false

        func isAfter(_ other: Sequence) -> Bool {
            isWhole == other.isWhole ? (number > other.number || other.isEmpty && !isEmpty) : isWhole
        }
    }

    /// What a slot's header says.
    private func sequence(_ io: mest_io, _ slot: UInt32) -> Sequence {
        let device = device(io, slot)
        if let header = try? header(device) { return Sequence(number: header.sequence, isWhole: true) }
        var magic: UInt64 = 0
        let isRead = withUnsafeMutableBytes(of: &magic) {
            device.io.read(slot, 0, $0.baseAddress, 8, device.io.user) == 0
        }
        return Sequence(isEmpty: isRead && Header.isBlank(magic))
    }

    func report(_ slot: Int32, _ header: Header) -> mest_checkpoint_report {
        let s = state.pointee
        var report = mest_checkpoint_report()
        report.struct_size = uint32(MemoryLayout<mest_checkpoint_report>.size)
        report.slot = slot
        report.sequence = header.sequence
        report.bytes = header.size
        report.bytes_written = s.bytesWritten
        report.updates = s.updates
        report.epochs = s.began ? s.epoch &+ 1 : 0
        report.step_in_epoch = s.stepsInEpoch
        report.batches_in_epoch = s.batchesInEpoch
        return report
    }
}
