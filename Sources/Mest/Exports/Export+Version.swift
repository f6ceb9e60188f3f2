// SPDX-License-Identifier: Apache-2.0
// Version, ABI, status names, last error.

import CMest
import CMestKernels

private func text(_ text: StaticString) -> UnsafePointer<CChar>? {
    UnsafeRawPointer(text.utf8Start).assumingMemoryBound(to: CChar.self)
}

@c @implementation
public func mest_version() -> UInt32 {
    UInt32(MEST_VERSION_MAJOR &* 1_000_000 &+ MEST_VERSION_MINOR &* 1000 &+ MEST_VERSION_PATCH)
}

@c @implementation
public func mest_version_string() -> UnsafePointer<CChar>? { text("0.1.0") }

@c @implementation
public func mest_abi_version() -> UInt32 { MEST_ABI_VERSION }

@c @implementation
public func mest_build_info() -> UnsafePointer<CChar>? { mestk_build_info() }

@c @implementation
public func mest_status_string(_ status: Int32) -> UnsafePointer<CChar>? {
    if status == 0 { return text("MEST_OK") }
    if status == int32(MEST_MORE) { return text("MEST_MORE") }
    switch Status(rawValue: status) {
    case .argument: return text("MEST_ERR_ARGUMENT")
    case .shape: return text("MEST_ERR_SHAPE")
    case .unsupported: return text("MEST_ERR_UNSUPPORTED")
    case .version: return text("MEST_ERR_VERSION")
    case .state: return text("MEST_ERR_STATE")
    case .cancelled: return text("MEST_ERR_CANCELLED")
    case .callback: return text("MEST_ERR_CALLBACK")
    case .diverged: return text("MEST_ERR_DIVERGED")
    case .memory: return text("MEST_ERR_MEMORY")
    case .budget: return text("MEST_ERR_BUDGET")
    case .corrupt: return text("MEST_ERR_CORRUPT")
    case .io: return text("MEST_ERR_IO")
    case .internal: return text("MEST_ERR_INTERNAL")
    case nil: return text("unknown status")
    }
}

@c @implementation
public func mest_last_error(_ model: OpaquePointer?) -> UnsafePointer<CChar>? {
    guard let model else { return UnsafePointer(threadMessage.buffer) }
    if !Flags(model).alive { return UnsafePointer(threadMessage.buffer) }
    return UnsafePointer(Model(model).message.buffer)
}

@c @implementation
public func mest_config_init(_ config: UnsafeMutablePointer<mest_config>?, _ size: UInt32) -> Int32 {
    let message = threadMessage
    do throws(Status) {
        message.clear()
        guard let config else { throw null("config", message) }
        try initialise(config, size, message)
        return statusOK
    } catch {
        return error.rawValue
    }
}
