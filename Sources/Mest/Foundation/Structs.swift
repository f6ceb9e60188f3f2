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

func null(_ name: StaticString, _ message: Message) -> Status {
    message.start(name).text(" is NULL").as(.argument)
}

/// index: in an array.
private func checkSize<T: CallersStruct>(
    _ size: UInt32, of: T.Type, _ name: StaticString, index: Int? = nil, _ message: Message
) throws(Status) {
    if size >= uint32(T.oldest) && size <= uint32(MemoryLayout<T>.size) { return }
    var text = message.start(name)
    if let index { text = text.text("[").integer(index).text("]") }
    throw text.text(".struct_size is ").integer(size).text(", this library's has ").integer(MemoryLayout<T>.size)
        .text("; set it to sizeof, and use a library at least as new as the header").as(.version)
}

/// nil: he wants nothing.
func checkSize<T: CallersStruct>(_ given: UnsafeMutablePointer<T>?, _ name: StaticString, _ message: Message) throws(Status) {
    if let given { try checkSize(given.pointee.struct_size, of: T.self, name, message) }
}

/// What the caller gave, and must.
func read<T: CallersStruct>(_ from: UnsafePointer<T>?, _ name: StaticString, _ message: Message) throws(Status) -> T {
    guard let from else { throw null(name, message) }
    try checkSize(from.pointee.struct_size, of: T.self, name, message)
    return whole(from)
}

private func whole<T: CallersStruct>(_ from: UnsafePointer<T>) -> T {
    var own = T()
    let bytes = UnsafeRawBufferPointer(start: from, count: int(from.pointee.struct_size))
    withUnsafeMutableBytes(of: &own) { $0.copyMemory(from: bytes) }
    return own
}

/// What a new config of the caller's is: of the size that he says it has.
func initialise(_ config: UnsafeMutablePointer<mest_config>, _ size: UInt32, _ message: Message) throws(Status) {
    try checkSize(size, of: mest_config.self, "config", message)
    config.pointee.struct_size = size
    var own = mest_config()
    own.abi_version = MEST_ABI_VERSION
    write(own, to: config)
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

    private func pointer(_ i: Int) -> UnsafePointer<T> { (first + i &* stride).assumingMemoryBound(to: T.self) }

    subscript(i: Int) -> T { whole(pointer(i)) }

    /// Before anything else is asked.
    func check(_ count: Int, _ name: StaticString, _ message: Message) throws(Status) {
        for i in 0..<count {
            try checkSize(pointer(i).pointee.struct_size, of: T.self, name, index: i, message)
            if int(pointer(i).pointee.struct_size) != stride {
                throw message.start(name).text("[").integer(i).text("].struct_size is ")
                    .integer(pointer(i).pointee.struct_size).text(", the first one's ").integer(stride).as(.version)
            }
        }
    }

    func write(_ value: T, to i: Int) { Mest.write(value, to: UnsafeMutablePointer(mutating: pointer(i))) }
}
