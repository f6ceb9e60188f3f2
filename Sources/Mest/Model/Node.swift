// SPDX-License-Identifier: Apache-2.0
// Node: one layer as the plan resolved it: shapes, geometry, and where its tensors lie in the block.
// Places are byte offsets from the block's start, so a plan is the same table as a model's and can be
// made before there is memory.

import CMest
import CMestKernels

enum Kind: Int32 {
    case input = 1, linear, conv2D, batchNorm, relu, maxPool, avgPool, globalAvgPool, add, flatten, dropout

    /// As messages name it: MEST_LAYER_* without the prefix.
    var word: StaticString {
        switch self {
        case .input: return "INPUT"
        case .linear: return "LINEAR"
        case .conv2D: return "CONV2D"
        case .batchNorm: return "BATCH_NORM"
        case .relu: return "RELU"
        case .maxPool: return "MAX_POOL"
        case .avgPool: return "AVG_POOL"
        case .globalAvgPool: return "GLOBAL_AVG_POOL"
        case .add: return "ADD"
        case .flatten: return "FLATTEN"
        case .dropout: return "DROPOUT"
        }
    }
}

/// A place in the block; `none` where a tensor does not exist.
struct Place {
    static let none = Place(offset: -1)
    var offset: Int64
    var exists: Bool { offset >= 0 }
}

/// A trained tensor: value, gradient, momentum and, for GRADIENT_EMA, the running mean of |gradient|.
/// `capacity` elements are reserved; of sparse weights the first `Node.units * Node.unit` are in use.
struct Parameter {
    var capacity: Int64 = 0
    var value = Place.none
    var gradient = Place.none
    var momentum = Place.none
    var average = Place.none
    var exists: Bool { capacity > 0 }
}

/// Channels that exist or not in every tensor that has them (Model/Plan+Channels.swift).
struct ChannelGroup {
    var declared: Int32 = 0
    var alive: Int32 = 0          // that exist now (plan: the most there will be)
    var start: Int32 = 0
    var target: Int32 = 0
    var most: Int32 = 0
    var survivors: Int32 = 0      // of the last mutation
    var density = Ratio.one       // of weights, as asked
    var asker: Int32 = -1         // the first layer that asked; -1: nobody did, all channels exist
    var byRows = false            // importance is that of the producers' rows (FILTER),
    var byColumns = false         // of the consumers' columns (CHANNEL), or of both
    var isFixed = false           // reaches the network's inputs or outputs
    var unexplored: Float = 1     // expected share of channels that never existed
    var saved: Int32 = 0          // that exist in the checkpoint in work
    var ids = Place.none          // of those that exist, UInt16, ascending
}

struct Node {
    var kind: Kind
    var index: Int32
    var from: Int32 = -1          // producing nodes; -1 for the input layer
    var with: Int32 = -1          // ADD only
    var flags: UInt32 = 0
    var name: (UInt64, UInt64, UInt64) = (0, 0, 0)  // MEST_NAME_BYTES

    // Output, without padding. Channels are those that are stored: of a thin group the ones that exist.
    var channels: Int32 = 0
    var group: Int32 = -1         // the first node of the group of thin channels; -1: all channels exist
    var span: Int32 = 1           // values for a channel of the group: the pixels behind FLATTEN
    var thin = ChannelGroup()     // of a group, at its first node
    var height: Int32 = 1
    var width: Int32 = 1
    var format = int32(MESTK_F32)

    // CONV2D and pools: kernel, stride and padding; in and out filled for the current lanes.
    var geometry = mestk_conv()

    // LINEAR, CONV2D: the weight matrix as described; dense or thin, `channels` x (inputs * taps) are stored.
    var rows: Int32 = 0
    var columns: Int32 = 0
    var inputs: Int32 = 0
    var taps: Int32 = 1
    var isDepthwise = false       // CONV2D: a row's inputs are its own channel
    var scheme: Int32 = 0         // MEST_SCHEME_*, resolved
    var unit: Int32 = 1           // values stored for a unit of the scheme
    var density = Ratio.one       // target
    var sparse = false
    var distributedFull = false   // as dense as its scheme allows because the distribution says so
    var units: UInt32 = 0         // that exist now (plan: at the start)
    var active: UInt32 = 0        // weights that exist now (plan: expected at the start)
    var saved: UInt32 = 0         // units in the checkpoint in work, of a sparse layer that is not thin
    var mostGrown: Int64 = 0      // units, by one round of a mutation
    var candidates = Place.none   // RIGL, GSE: the largest gradients of what is not connected
    var found: Int32 = 0          // of them, in this backward pass
    var scored: Int32 = 0         // SNIP, GRASP: scores that lie where the gradient does
    var weight = Parameter()      // BATCH_NORM: scale
    var bias = Parameter()        // BATCH_NORM: shift
    var connections = IndexPlaces()

    // BATCH_NORM: statistics of this many channels
    var statistics: Int32 = 0
    var momentum: Float = 0
    var epsilon: Float = 0
    var runningMean = Place.none
    var runningVariance = Place.none
    var batchMean = Place.none
    var batchVariance = Place.none
    var constants = Place.none    // BATCH_NORM, ADD: see Model/Operands.swift
    var gradientConstants = Place.none  // BATCH_NORM: from its backward to that of the convolution before it
    var sums = Place.none         // BATCH_NORM: per strip, forward and backward
    var backwardSums = Place.none

    // DROPOUT
    var rate: Float = 0

    // Fusion (Model/Plan+Fusion.swift).
    var isVirtual = false         // its output is not stored: who reads it computes it
    var normedBy: Int32 = -1      // CONV2D: the batch norm that alone reads it
    var start = Place.none        // then: what its outputs begin with, forward
    var gradientVirtual = false   // CONV2D: gradient of the output is computed by who reads it
    var finishedBy: Int32 = -1    // RELU: the convolution that passes the gradient through it
    var summedBy: Int32 = -1      // BATCH_NORM: who takes the sums of its output's gradient

    // Recomputation (Model/Plan+Recompute.swift).
    var recomputedAt: Int32 = -1  // before the backward of which node the output is computed again
    var recomputes: (Int32, Int32) = (0, 0)  // which nodes are before this one's backward

    // Activations. A node computed in place shares its producer's buffer.
    var output = Place.none
    var gradient = Place.none     // of the output
    var scratch = Place.none      // forward, kernels' packing buffers
    var backwardScratch = Place.none
    var consumers: Int32 = 0
    var inPlace = false           // output shares the buffer of `from`'s output
    var gradientInPlace = false   // gradient of `from`'s output shares the buffer of ours
    var withInPlace = false       // ADD: that of `with`, too
    var outputOwner: Int32 = -1   // node whose buffer holds the output
    var gradientOwner: Int32 = -1 // node whose buffer holds the gradient of the output
    var trains = false            // it, or something before it, has parameters that are not frozen
    var planned = (gradient: Place.none, summedBy: Int32(-1))  // as long as it trains
    var frozen = false            // computed as in prediction, changed by nothing (Training/Freezing.swift)
    var accumulatesFrom = false   // gradient of `from` already holds a later consumer's share
    var accumulatesWith = false

    // Mutation, as the report tells it.
    var dropped: UInt32 = 0
    var grown: UInt32 = 0
    var unexplored: Float = 1     // expected share of positions that were never active

    init(kind: Kind, index: Int32) {
        self.kind = kind
        self.index = index
    }

    /// The output has the shape of another's.
    mutating func takeShape(of other: Node) {
        (channels, height, width, format) = (other.channels, other.height, other.width, other.format)
    }

    var positions: Int64 { int64(rows) &* int64(columns) }
    var storedDense: Int64 { int64(channels) &* int64(inputs) &* int64(taps) }
    /// A matrix whose outputs, inputs or both are thin.
    var isThin: Bool { sparse && isThinScheme(scheme) }
    var pixels: Int64 { int64(height) &* int64(width) }
    var elements: Int64 { pixels &* int64(channels) }
    var hasMatrix: Bool { kind == .linear || kind == .conv2D }

    func shape(lanes: Int32, blocks: Int32) -> mestk_shape {
        mestk_shape(blocks: blocks, lanes: lanes, channels: channels, height: height, width: width, format: format)
    }
}

/// Where a sparse layer keeps its connections: both orders of CMestKernels/include/weights.h.
struct IndexPlaces {
    var rowStart = Place.none
    var column = Place.none
    var channelStart = Place.none
    var key = Place.none
    var position = Place.none
    var pattern = Place.none
}
