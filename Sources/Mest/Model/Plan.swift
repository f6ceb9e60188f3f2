// SPDX-License-Identifier: Apache-2.0
// Plan: from a description to shapes, counts and places of every tensor: pure arithmetic.
//
// The block, each part and each tensor in it aligned to 64 bytes:
//
//   table       flags, ModelState, message, nodes
//   weights     values of weights, biases, scales; running statistics
//   index       connections of sparse layers, both orders
//   gradients   one for every trained value: a step is applied whole or not at all
//   state       momentum, averages of |gradient|
//   forgetting  counts and bits per sample
//   batch       losses and answers per sample, statistics of the batch
//   workspace   activations, their gradients, kernels' scratch; overlapping by life-time. Mutation's
//               scratch lies over all of it: activations are dead then.

import CMest
import CMestKernels

/// Bytes of each part of the block.
struct PartBytes {
    var table: Int64 = 0
    var weights: Int64 = 0
    var index: Int64 = 0
    var gradients: Int64 = 0
    var state: Int64 = 0
    var forgetting: Int64 = 0
    var batch: Int64 = 0
    var workspace: Int64 = 0
    var activations: Int64 = 0  // peak inside workspace
    var mutation: Int64 = 0     // inside workspace
    var checkpoint: Int64 = 0   // the largest; elsewhere
    var recovery: Int64 = 0     // one of them, kept

    var total: Int64 {
        table &+ weights &+ index &+ gradients &+ state &+ forgetting &+ batch &+ workspace &+ recovery
    }
}

struct Plan {
    static let maxLayers = 1024

    var nodes: UnsafeMutablePointer<Node>
    let count: Int
    var config: mest_config     // every default resolved
    var derivesSteps = false    // steps_per_epoch follows from the samples, and so shrinks with them
    var lanes: Int32 = 1
    var blocks: Int32 = 1       // lane blocks of a full batch
    var threads: Int32 = 1
    var level: Int32 = 1        // MESTK_REFERENCE ...: what the kernels run on
    var roomLevel: Int64 = 0    // SNIP: room for connections that a layer has even if its target is lower
    var bytes = PartBytes()
    var gradients = Place.none  // start of the part, to zero it at once
    var sampleLoss = Place.none
    var sampleCorrect = Place.none
    var sampleMargin = Place.none
    var counts = ForgettingPlaces()
    var workspace = Place.none
    var recovery = Place.none   // behind it
    var tensorCount = 0         // of the workspace; they lie behind the nodes while planning

    init(nodes: UnsafeMutablePointer<Node>, count: Int, config: mest_config) {
        self.nodes = nodes
        self.count = count
        self.config = config
    }

    var last: UnsafeMutablePointer<Node> { nodes + (count &- 1) }
    var training: Bool { config.inference_only == 0 }

    func macs(_ n: Node, _ connections: Int64) -> Int64 { n.hasMatrix ? connections &* n.pixels : 0 }
}

/// Hands out places one after the other.
struct Cursor {
    var offset: Int64
    mutating func take(_ bytes: Int64) -> Place {
        let place = Place(offset: offset)
        offset &+= aligned(bytes)
        return place
    }

    mutating func take(_ bytes: Int64, if wanted: Bool) -> Place { wanted ? take(bytes) : .none }
}

extension Plan {
    /// Stack that planning `count` layers needs.
    static func scratchBytes(_ count: Int) -> Int {
        count &* (MemoryLayout<Node>.stride &+ Workspace.tensorsPerNode &* MemoryLayout<Tensor>.stride) &+ 64
    }

    /// Plans in `scratch` (scratchBytes(count) bytes).  The plan's nodes lie there too.
    static func make(
        _ config: mest_config, _ layers: CallersArray<mest_layer>, _ count: Int,
        scratch: UnsafeMutableRawPointer, _ message: Message
    ) throws(Status) -> Plan {
        let nodes = scratch.assumingMemoryBound(to: Node.self)
        let tensors = UnsafeMutableRawPointer(nodes + count).assumingMemoryBound(to: Tensor.self)
        var plan = Plan(nodes: nodes, count: count, config: try resolve(config, message))
        plan.derivesSteps = config.steps_per_epoch == 0
        try plan.chooseLanes(message)
        plan.chooseThreads()
        try plan.chooseLevel(message)
        try plan.describe(layers, message)
        plan.distributeDensity()
        try plan.checkDensities(layers, message)
        try plan.checkClasses(message)
        try plan.thinChannels(message)
        try plan.countConnections(message)
        try plan.checkMutation(message)
        try plan.checkRounds(message)
        try plan.checkInitial(message)
        try plan.checkFreezing(message)
        plan.fuseForward()
        plan.placeParameters()
        plan.placeWorkspace(tensors)
        plan.bytes.checkpoint = try plan.largestCheckpoint()
        plan.placeRecovery()
        return plan
    }

    /// A class is kept in 16 bits, of which the largest number means unknown.
    private func checkClasses(_ message: Message) throws(Status) {
        if config.remove_class_cap > 0 && last.pointee.channels > 65535 {
            throw message.start("remove_class_cap: at most 65535 classes, not ").integer(last.pointee.channels).as(.unsupported)
        }
    }

    /// L = 16 for batches above 8; below, the smallest of 1, 4, 8 that holds the batch. By the
    /// shape alone, never by the CPU: the lanes are part of the bits.
    private mutating func chooseLanes(_ message: Message) throws(Status) {
        let batch = int32(config.batch)
        lanes = batch > 8 ? 16 : batch > 4 ? 8 : batch > 1 ? 4 : 1
        if lanes > mestk_most_lanes() {
            throw message.start("config.batch is ").integer(batch)
                .text(", and this build for microcontrollers takes one sample a step; use batch = 1, ")
                .text("and micro_batches to average the gradients of several").as(.unsupported)
        }
        blocks = (batch &+ lanes &- 1) / lanes
    }

    private mutating func chooseThreads() {
        let cores = mestk_cores()
        threads = config.threads > 0 ? int32(config.threads) : (cores < 4 ? cores : 4)
    }

    /// What config.simd asks for; for AUTO what the environment variable MEST_SIMD names, else the best.
    private mutating func chooseLevel(_ message: Message) throws(Status) {
        if config.simd != MEST_SIMD_AUTO {
            level = config.simd
            if mestk_has_level(level) != 0 { return }
            throw message.start("config.simd is ").text(mestk_level_name(level), limit: 16)
                .text(", which is not available on this machine; use MEST_SIMD_AUTO").as(.unsupported)
        }
        let forced = mestk_forced_level()
        if forced < 0 {
            throw message.start("the environment variable MEST_SIMD is none of auto, reference, avx2, avx512, neon")
                .as(.argument)
        }
        level = forced == 0 ? mestk_best_level() : forced
        if mestk_has_level(level) == 0 {
            throw message.start("the environment variable MEST_SIMD says ").text(mestk_level_name(level), limit: 16)
                .text(", which is not available on this machine").as(.unsupported)
        }
    }

    /// Connections at the start, and room for the most there will be.
    private mutating func countConnections(_ message: Message) throws(Status) {
        if scoresAll { roomLevel = findRoomLevel() }
        for i in 0..<count where nodes[i].hasMatrix {
            if nodes[i].positions > int64(Int32.max) {
                throw layer(i, message).text(": a weight matrix of ").integer(nodes[i].positions)
                    .text(" positions is larger than 2^31 - 1").as(.unsupported)
            }
            if nodes[i].isThin {
                nodes[i].weight.capacity = nodes[i].storedDense
                continue
            }
            let units = units(of: nodes[i])
            let start = initialUnits(nodes[i])
            let most = training ? mostUnits(nodes[i]) : start
            if most &* units.pools &* units.weights > int64(Int32.max) {
                throw layer(i, message).text(": its scheme stores more than 2^31 - 1 values").as(.unsupported)
            }
            nodes[i].unit = int32(units.weights)
            countFirst(nodes + i)
            nodes[i].weight.capacity = most &* units.pools &* units.weights
            nodes[i].mostGrown = training ? mostGrown(nodes[i], most) : 0
        }
    }

    /// The connections that a new model has.
    func countFirst(_ node: UnsafeMutablePointer<Node>) {
        let units = units(of: node.pointee)
        let start = initialUnits(node.pointee)
        node.pointee.units = uint32(start &* units.pools)
        node.pointee.active = uint32(units.expectedWeights(start))
    }

    /// Weight, gradient and state of parameters, batch statistics: all that lives as long as the model.
    private mutating func placeParameters() {
        bytes.table = Model.tableBytes(count)
        var cursor = Cursor(offset: bytes.table)

        for i in 0..<count {
            nodes[i].weight.value = cursor.take(nodes[i].weight.capacity &* 4, if: nodes[i].weight.exists)
            nodes[i].bias.value = cursor.take(nodes[i].bias.capacity &* 4, if: nodes[i].bias.exists)
            let statistics = int64(nodes[i].statistics) &* 4
            nodes[i].runningMean = cursor.take(statistics, if: statistics > 0)
            nodes[i].runningVariance = cursor.take(statistics, if: statistics > 0)
        }
        bytes.weights = cursor.offset &- bytes.table

        var start = cursor.offset
        withUnsafeMutablePointer(to: &cursor) { cursor in
            for i in 0..<count where nodes[i].hasMatrix {
                withScheme(nodes[i], ReserveIndex(node: nodes + i, training: training, cursor: cursor))
            }
        }
        bytes.index = cursor.offset &- start

        start = cursor.offset
        gradients = Place(offset: start)
        if training {
            for i in 0..<count {
                nodes[i].weight.gradient = cursor.take(nodes[i].weight.capacity &* 4, if: nodes[i].weight.exists)
                nodes[i].bias.gradient = cursor.take(nodes[i].bias.capacity &* 4, if: nodes[i].bias.exists)
            }
        }
        bytes.gradients = cursor.offset &- start

        start = cursor.offset
        if training {
            let averages = config.importance_gradient == MEST_GRADIENT_EMA && !config.rests
            for i in 0..<count {
                nodes[i].weight.momentum = cursor.take(nodes[i].weight.capacity &* 4, if: nodes[i].weight.exists)
                nodes[i].bias.momentum = cursor.take(nodes[i].bias.capacity &* 4, if: nodes[i].bias.exists)
                nodes[i].weight.average = cursor.take(nodes[i].weight.capacity &* 4, if: averages && nodes[i].sparse)
                let moved = mostMoved(nodes[i])
                nodes[i].candidates = cursor.take(Candidates.bytes(moved), if: moved > 0)
            }
        }
        bytes.state = cursor.offset &- start

        start = cursor.offset
        if training && config.samples > 0 { counts = ForgettingPlaces(&cursor, config, classes: last.pointee.channels) }
        bytes.forgetting = cursor.offset &- start

        start = cursor.offset
        sampleLoss = cursor.take(int64(config.batch) &* 4)
        sampleCorrect = cursor.take(int64(config.batch))
        sampleMargin = cursor.take(int64(config.batch) &* 4, if: counts.marginSum.exists)
        for i in 0..<count {
            let statistics = int64(nodes[i].statistics) &* 4
            nodes[i].batchMean = cursor.take(statistics, if: statistics > 0 && training)
            nodes[i].batchVariance = cursor.take(statistics, if: statistics > 0 && training)
            let constants = constants(nodes[i]) &* int64(nodes[i].channels) &* 4
            nodes[i].constants = cursor.take(constants, if: constants > 0)
        }
        bytes.batch = cursor.offset &- start
        workspace = Place(offset: cursor.offset)
    }
}
