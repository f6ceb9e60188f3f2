// SPDX-License-Identifier: Apache-2.0
// The step in work: state between two slices of one. Training/Step.swift and Pass.swift go on with it.

/// How far a training pass is.
struct PassTime {
    var next = 0            // the time to do next
    var recomputed = 0      // layers, of those that this backward wants computed again
    var loss: Float = 0
    var correct: UInt32 = 0
}

/// The step in work.
struct Step {
    /// The passes it may have, in their order.
    enum Stage: UInt8 {
        case none           // no step is in work
        case dense          // SNIP: the network that is not sparse yet
        case here           // GraSP: where the weights are,
        case ahead, behind  // and on both sides along their gradient
        case training
    }

    var stage = Stage.none
    var pass = Pass(training: true, count: 0, number: 0)
    var time = PassTime()
}
