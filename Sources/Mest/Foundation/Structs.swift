// SPDX-License-Identifier: Apache-2.0
// Structs of the caller's, who may have been compiled with an earlier header: his have fewer fields. What he gives lacks
// them, and they are zero, the default; what he gets ends where his ends.

import CMest

protocol CallersStruct {
    init()
    var struct_size: UInt32 { get set }
    /// Bytes in the first release.
    static var oldest: Int { get }
}

extension mest_layer: CallersStruct { static var oldest: Int { int(MEST_OLDEST_LAYER) } }
extension mest_config: CallersStruct { static var oldest: Int { int(MEST_OLDEST_CONFIG) } }
extension mest_plan_report: CallersStruct { static var oldest: Int { int(MEST_OLDEST_PLAN_REPORT) } }
extension mest_layer_plan: CallersStruct { static var oldest: Int { int(MEST_OLDEST_LAYER_PLAN) } }
extension mest_env: CallersStruct { static var oldest: Int { int(MEST_OLDEST_ENV) } }
extension mest_batch: CallersStruct { static var oldest: Int { int(MEST_OLDEST_BATCH) } }
extension mest_step_report: CallersStruct { static var oldest: Int { int(MEST_OLDEST_STEP_REPORT) } }
extension mest_epoch_report: CallersStruct { static var oldest: Int { int(MEST_OLDEST_EPOCH_REPORT) } }
extension mest_mutation_report: CallersStruct { static var oldest: Int { int(MEST_OLDEST_MUTATION_REPORT) } }
extension mest_mutation_layer: CallersStruct { static var oldest: Int { int(MEST_OLDEST_MUTATION_LAYER) } }
extension mest_forgetting_report: CallersStruct { static var oldest: Int { int(MEST_OLDEST_FORGETTING_REPORT) } }
extension mest_selection: CallersStruct { static var oldest: Int { int(MEST_OLDEST_SELECTION) } }
extension mest_evaluation: CallersStruct { static var oldest: Int { int(MEST_OLDEST_EVALUATION) } }
extension mest_csr: CallersStruct { static var oldest: Int { int(MEST_OLDEST_CSR) } }
extension mest_io: CallersStruct { static var oldest: Int { int(MEST_OLDEST_IO) } }
extension mest_checkpoint_report: CallersStruct { static var oldest: Int { int(MEST_OLDEST_CHECKPOINT_REPORT) } }

func checkSize<T: CallersStruct>(_ given: UnsafePointer<T>?, _ name: StaticString, _ message: Message) throws(Status) {
    guard let size = given?.pointee.struct_size else { return }
    if size >= uint32(T.oldest) && size <= uint32(MemoryLayout<T>.size) { return }
    throw message.start(name).text(".struct_size is ").integer(size).text(", this library's has ")
        .integer(MemoryLayout<T>.size).text("; set it to sizeof, and use a library at least as new as the header").as(.version)
}

func checkSize<T: CallersStruct>(_ given: UnsafeMutablePointer<T>?, _ name: StaticString, _ message: Message) throws(Status) {
    try checkSize(UnsafePointer(given), name, message)
}

/// What the caller gave, and must.
func read<T: CallersStruct>(_ from: UnsafePointer<T>?, _ name: StaticString, _ message: Message) throws(Status) -> T {
    guard let from else { throw null(name, message) }
    try checkSize(from, name, message)
    return whole(from)
}

private func whole<T: CallersStruct>(_ from: UnsafePointer<T>) -> T {
    var own = T()
    let bytes = UnsafeRawBufferPointer(start: from, count: int(from.pointee.struct_size))
    withUnsafeMutableBytes(of: &own) { $0.copyMemory(from: bytes) }
    return own
}

/// What the caller gets; its size was checked. nil: he wants nothing.
func write<T: CallersStruct>(_ value: T, to: UnsafeMutablePointer<T>?) {
    guard let to else { return }
    var own = value
    let size = to.pointee.struct_size
    own.struct_size = size
    withUnsafeBytes(of: &own) {
        UnsafeMutableRawPointer(to).copyMemory(from: $0.baseAddress.unsafelyUnwrapped, byteCount: int(size))
    }
}

/// An array of the caller's: all of the first one's size.
struct CallersArray<T: CallersStruct> {
    private let first: UnsafeRawPointer
    private let stride: Int

    init(_ first: UnsafePointer<T>) {
        self.first = UnsafeRawPointer(first)
        stride = int(first.pointee.struct_size)
    }

    func pointer(_ i: Int) -> UnsafePointer<T> { (first + i &* stride).assumingMemoryBound(to: T.self) }

    /// nil: the i-th has another size than the first.
    subscript(i: Int) -> T? { int(pointer(i).pointee.struct_size) == stride ? whole(pointer(i)) : nil }

    func check(_ count: Int, _ name: StaticString, _ message: Message) throws(Status) {
        for i in 0..<count {
            try checkSize(pointer(i), name, message)
            if int(pointer(i).pointee.struct_size) != stride {
                throw message.start(name).text("[").integer(i).text("].struct_size is ")
                    .integer(pointer(i).pointee.struct_size).text(", the first one's ").integer(stride).as(.version)
            }
        }
    }

    func write(_ value: T, to i: Int) { Mest.write(value, to: UnsafeMutablePointer(mutating: pointer(i))) }
}
