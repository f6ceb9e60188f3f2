// SPDX-License-Identifier: Apache-2.0
// Integer conversions without traps. Sizes are checked once, where they enter (Plan); from there on
// they fit, and these say so. Widening to 64 bits goes through C: on 32-bit targets Swift's own
// widening (and its smart shifts, and Int(Int64)) needs an allocating type, which the engine must not
// have.

import CMestKernels

@inline(__always) func int<T: BinaryInteger>(_ value: T) -> Int { Int(truncatingIfNeeded: value) }
@inline(__always) func int32<T: BinaryInteger>(_ value: T) -> Int32 { Int32(truncatingIfNeeded: value) }
@inline(__always) func uint32<T: BinaryInteger>(_ value: T) -> UInt32 { UInt32(truncatingIfNeeded: value) }
@inline(__always) func uint8<T: BinaryInteger>(_ value: T) -> UInt8 { UInt8(truncatingIfNeeded: value) }

@inline(__always) func int64(_ value: Int) -> Int64 { mestk_i64(value) }
@inline(__always) func int64(_ value: Int32) -> Int64 { mestk_i64(int(value)) }
@inline(__always) func int64(_ value: UInt32) -> Int64 { Int64(bitPattern: mestk_u64(int(value))) }
@inline(__always) func int64(_ value: UInt64) -> Int64 { Int64(bitPattern: value) }

@inline(__always) func uint64(_ value: Int) -> UInt64 { UInt64(bitPattern: mestk_i64(value)) }
@inline(__always) func uint64(_ value: Int32) -> UInt64 { UInt64(bitPattern: mestk_i64(int(value))) }
@inline(__always) func uint64(_ value: UInt32) -> UInt64 { mestk_u64(int(value)) }
@inline(__always) func uint64(_ value: Int64) -> UInt64 { UInt64(bitPattern: value) }

/// Rounded up to a multiple of the block's alignment, 64 bytes: a cache line, an AVX-512 register.
@inline(__always) func aligned(_ bytes: Int64) -> Int64 { (bytes &+ 63) & ~63 }
