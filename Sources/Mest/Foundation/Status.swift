// SPDX-License-Identifier: Apache-2.0
// Status: why an engine function stopped. The raw values are the codes of include/mest.h.
// Engine functions throw it (typed throws: no heap, no existential, an integer in a register); the
// exports turn it into the return value. What to change is written to a Message first.

import CMest

enum Status: Int32, Error {
    case argument = -10
    case shape = -11
    case unsupported = -12
    case version = -13
    case state = -20
    case cancelled = -21
    case callback = -22
    case diverged = -23
    case memory = -30
    case budget = -31
    case corrupt = -40
    case io = -41
    case `internal` = -90
}
