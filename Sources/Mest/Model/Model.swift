// SPDX-License-Identifier: Apache-2.0
// Model: a view of the one block. Its table lies at the head: flags, state, message, nodes; then what the
// plan placed. A Model is one pointer and costs nothing to pass on.

import CMest
import CMestKernels

struct ModelState {
    var plan: Plan
    var env: mest_env
    var kernels: mestk_context
    var ownsBlock: Bool         // asked from the allocator, to be given back

    // Where training stands.
    var began = false           // an epoch has begun
    var epoch: UInt32 = 0
    var stepsInEpoch: UInt32 = 0
    var stepsPerEpoch: UInt32   // of this epoch; 0: unknown
    var updates: UInt64 = 0
    var passes: UInt64 = 0      // training passes, successful ones: keys dropout
    var gathered: UInt32 = 0    // micro-batches in the gradient
    var batchesInEpoch: UInt32 = 0
    var callerBegins = false    // epochs: mest_model_begin_epoch was called
    var events: UInt32 = 0      // not reported yet
    var lastLoss: Float = 0

    var mutations: UInt32 = 0
    var mutationEpoch: UInt32 = 0
    var threshold: Float = 1e-3  // DSR: the next mutation's
    var chosen: Bool             // SNIP, GRASP: the connections; else always

    var frozen: UInt32 = 0       // layers, the first ones

    var phase: UInt32 = 1
    var trainingSamples: UInt32 = 0  // in the training set
    var sievings: UInt32 = 0         // done
    var forgotten: UInt64 = 0
    var forgottenInEpoch: UInt64 = 0
    var presentations: UInt64 = 0       // samples of training steps
    var presentationsSaved: UInt64 = 0  // those of the epochs that began without the samples that had left
    var orderGiven = false

    var bytesWritten: UInt64 = 0        // by saves
    var savedAt: UInt64?                // updates at the last save or load

    /// Lane blocks of the samples of this pass: what a short batch does not fill is not computed.
    var blocks: Int32

    var keeps = false                   // a good state
    var returns: UInt32 = 0             // to it
    var rateScale: Float = 1            // of the learning rate, by them
    var epochIsNext = false             // after a return: the next step begins one, whoever else does

    var step = Step()                   // in work, between two calls

    /// The caller's samples while the first layer reads them.
    var batchInput: UnsafePointer<Float>?

    init(plan: Plan, env: mest_env, kernels: mestk_context, ownsBlock: Bool) {
        self.plan = plan
        self.env = env
        self.kernels = kernels
        self.ownsBlock = ownsBlock
        stepsPerEpoch = plan.config.steps_per_epoch
        chosen = !plan.choosesOnce
        blocks = plan.blocks
    }
}

/// The first 64 bytes of the block: what other threads and signal handlers may touch while a call runs
/// on the model. Apart from ModelState, which only the running call touches.
struct Flags {
    static let bytes = 64
    private static let alive: UInt64 = 0x6d65_7374_6d6f_6431  // "mestmod1"
    private let head: UnsafeMutableRawPointer

    init(_ handle: OpaquePointer) { head = UnsafeMutableRawPointer(handle) }

    /// Marks a new model.
    func initialise() {
        head.initializeMemory(as: UInt8.self, repeating: 0, count: Flags.bytes)
        alive = true
    }

    /// Whether this is a model that was not destroyed.
    var alive: Bool {
        get { head.load(as: UInt64.self) == Flags.alive }
        nonmutating set { head.storeBytes(of: newValue ? Flags.alive : 0, as: UInt64.self) }
    }

    /// A call is running.
    var busy: UnsafeMutablePointer<Int32> { (head + 8).assumingMemoryBound(to: Int32.self) }

    /// Set from anywhere, used up by the call that stops.
    var cancelled: UnsafeMutablePointer<Int32> { (head + 12).assumingMemoryBound(to: Int32.self) }
}

struct Model {
    let handle: OpaquePointer

    init(_ handle: OpaquePointer) { self.handle = handle }

    var base: UnsafeMutableRawPointer { UnsafeMutableRawPointer(handle) }
    var flags: Flags { Flags(handle) }
    var state: UnsafeMutablePointer<ModelState> { (base + Flags.bytes).assumingMemoryBound(to: ModelState.self) }
    var config: mest_config { state.pointee.plan.config }
    var nodes: UnsafeMutablePointer<Node> { state.pointee.plan.nodes }
    var count: Int { state.pointee.plan.count }
    var lanes: Int32 { state.pointee.plan.lanes }
    var blocks: Int32 { state.pointee.blocks }

    var message: Message {
        Message(buffer: (base + Model.messageOffset).assumingMemoryBound(to: CChar.self))
    }

    // Table: flags, state, message, nodes.
    private static var messageOffset: Int { Flags.bytes &+ int(aligned(int64(MemoryLayout<ModelState>.stride))) }
    private static var nodesOffset: Int { messageOffset &+ Message.bytes }
    static func tableBytes(_ layers: Int) -> Int64 {
        aligned(int64(nodesOffset &+ layers &* MemoryLayout<Node>.stride))
    }

    /// Fields of ModelState and Node lie in the block and never move, so their address may be kept.
    var kernels: UnsafePointer<mestk_context> {
        UnsafePointer(withUnsafeMutablePointer(to: &state.pointee.kernels) { $0 })
    }

    // MARK: Places

    func at<T>(_ place: Place, _: T.Type) -> UnsafeMutablePointer<T> {
        (base + int(place.offset)).assumingMemoryBound(to: T.self)
    }

    func floats(_ place: Place) -> UnsafeMutablePointer<Float> { at(place, Float.self) }

    func optional(_ place: Place) -> UnsafeMutablePointer<Float>? { place.exists ? floats(place) : nil }

    // MARK: What layers ask

    func input(_ node: UnsafeMutablePointer<Node>) -> UnsafeMutablePointer<Float> {
        floats(nodes[int(node.pointee.from)].output)
    }

    func inputRaw(_ node: UnsafeMutablePointer<Node>) -> UnsafeMutableRawPointer {
        raw(nodes[int(node.pointee.from)].output)
    }

    /// Where the gradient of the layer's input goes; nil when nothing before it trains.
    func inputGradient(_ node: UnsafeMutablePointer<Node>) -> UnsafeMutableRawPointer? {
        optionalRaw(nodes[int(node.pointee.from)].gradient)
    }

    func shape(_ node: UnsafeMutablePointer<Node>) -> mestk_shape { node.pointee.shape(lanes: lanes, blocks: blocks) }
    func inputShape(_ node: UnsafeMutablePointer<Node>) -> mestk_shape { shape(nodes + int(node.pointee.from)) }

    func geometry(_ node: UnsafeMutablePointer<Node>) -> UnsafePointer<mestk_conv> {
        UnsafePointer(withUnsafeMutablePointer(to: &node.pointee.geometry) { $0 })
    }

    @inline(__always) func adds(_ accumulates: Bool) -> Int32 { accumulates ? 1 : 0 }

    /// Values of the weight in use: those stored for the units of a sparse layer, everything of a dense one.
    /// Of BATCH_NORM: the scale.
    func weightCount(_ n: Node) -> Int64 {
        if n.kind == .batchNorm { return int64(n.channels) }
        return n.sparse ? int64(n.units) &* int64(n.unit) : n.weight.capacity
    }

    func biasCount(_ n: Node) -> Int64 { int64(n.channels) }
}

// MARK: - Create

extension Model {
    /// Builds the model in a block of plan.bytes.total bytes, 64-byte aligned.
    static func create(
        _ plan: Plan, _ env: mest_env, block: UnsafeMutableRawPointer, ownsBlock: Bool
    ) -> Model {
        let nodes = (block + nodesOffset).assumingMemoryBound(to: Node.self)
        var own = plan
        own.nodes = nodes
        for i in 0..<plan.count { (nodes + i).initialize(to: plan.nodes[i]) }

        let kernels = mestk_context(level: plan.level, threads: plan.threads, parallel_for: env.parallel_for, user: env.user)
        let model = Model(OpaquePointer(block))
        model.flags.initialise()
        model.state.initialize(
            to: ModelState(plan: own, env: env, kernels: kernels, ownsBlock: ownsBlock))
        model.message.clear()
        model.initialise()
        return model
    }

    /// Back to what create() made. For who has lost the state.
    func beginAnew() {
        let s = state.pointee
        state.pointee = ModelState(plan: s.plan, env: s.env, kernels: s.kernels, ownsBlock: s.ownsBlock)
        state.pointee.blocks = s.blocks  // nodes' geometry says the same
        for i in 0..<count {
            (nodes[i].dropped, nodes[i].grown) = (0, 0)
            if nodes[i].hasMatrix && !nodes[i].isThin { s.plan.countFirst(nodes + i) }
        }
        initialise()
    }

    private func initialise() {
        // Everything that is not set below starts at zero.
        let start = state.pointee.plan.bytes.table
        zero(Place(offset: start), to: state.pointee.plan.workspace)
        for i in 0..<count where nodes[i].thin.most > 0 { Channels(self, nodes + i).initialise() }
        for i in 0..<count {
            let n = nodes[i]
            if n.hasMatrix {
                withScheme(n, Initialise(model: self, node: nodes + i))
                if !n.isThin { nodes[i].unexplored = 1 - Float(int(nodes[i].active)) / Float(int(n.positions)) }
            }
            for c in 0..<int(n.statistics) {
                if n.weight.exists { floats(n.weight.value)[c] = 1 }
                floats(n.runningVariance)[c] = 1
            }
        }
        Forgetting(self)?.begin()
    }

    /// Zeroes the block from one place up to another.
    func zero(_ from: Place, to: Place) {
        let bytes = int(to.offset &- from.offset)
        (base + int(from.offset)).initializeMemory(as: UInt8.self, repeating: 0, count: bytes)
    }
}
