// SPDX-License-Identifier: Apache-2.0
// Simulation: a training step on a plan, with names instead of numbers. Each buffer holds who wrote it: an
// output its node, a gradient the list of the shares that were added up. Whatever is read must be alive, must
// not have been given up in between, and must hold what the reader takes it for. So every choice of the
// plan - virtual outputs and gradients, shared buffers, sums, recomputation - is checked against what it means.

import CMest
import CMestKernels
import Testing

@testable import Mest

/// Networks of pictures of one size with every layer, read from anywhere; sizes fall at times.
func randomNetwork(_ random: inout SplitMix64) -> [mest_layer] {
    var layers = [layer(MEST_LAYER_INPUT) { $0.channels = 8; $0.height = 16; $0.width = 16 }]
    var first: Int32 = 0  // of the present size
    var read = Set<Int32>()
    func chance(_ percent: UInt64) -> Bool { random.below(100) < percent }
    func code(_ i: Int32) -> Int32 { i == 0 ? Int32(MEST_FROM_INPUT) : i }
    func anyone() -> Int32 { first + Int32(random.below(UInt64(Int32(layers.count) - first))) }
    @discardableResult func add(_ kind: Int, _ from: Int32, with: Int32? = nil, _ set: (inout mest_layer) -> Void = { _ in }) -> Int32 {
        layers.append(layer(kind, from: code(from), with: with.map(code) ?? 0, set))
        read.insert(from)
        if let with { read.insert(with) }
        return Int32(layers.count - 1)
    }
    func conv(_ from: Int32, bias: UInt64 = 20) -> Int32 {
        let kernel: UInt32 = chance(40) ? 1 : 3
        return add(MEST_LAYER_CONV2D, from) {
            $0.channels = 8; $0.kernel_h = kernel; $0.pad_h = kernel / 2; $0.pad_w = kernel / 2
            $0.flags = chance(bias) ? 0 : UInt32(MEST_FLAG_NO_BIAS)
            if chance(25) { $0.groups = 8; $0.density = 1 }
        }
    }
    func norm(_ from: Int32) -> Int32 {
        add(MEST_LAYER_BATCH_NORM, from) { $0.flags = chance(20) ? UInt32(MEST_FLAG_NO_AFFINE) : 0 }
    }
    func relu(_ from: Int32) -> Int32 { add(MEST_LAYER_RELU, from) }
    func pool(_ from: Int32, kernel: UInt32, stride: UInt32) -> Int32 {
        add(chance(50) ? MEST_LAYER_MAX_POOL : MEST_LAYER_AVG_POOL, from) {
            $0.kernel_h = kernel; $0.stride_h = stride; $0.pad_h = kernel / 2; $0.pad_w = kernel / 2
        }
    }
    /// One tensor that everything of the present size leads to.
    func join() -> Int32 {
        var at: Int32 = -1
        for i in first..<Int32(layers.count) where !read.contains(i) { at = at < 0 ? i : add(MEST_LAYER_ADD, at, with: i) }
        return at
    }

    for _ in 0..<(2 + random.below(18)) {
        let last = Int32(layers.count - 1)
        let from = chance(75) ? last : anyone()
        switch random.below(14) {
        case 0: _ = norm(from)
        case 1: _ = relu(from)
        case 2: add(MEST_LAYER_DROPOUT, from) { $0.rate = chance(80) ? 0.1 : 0 }
        case 3, 4: _ = conv(from)
        case 5, 6: _ = relu(norm(conv(from)))
        case 7: add(MEST_LAYER_ADD, from, with: anyone())
        case 8: _ = pool(from, kernel: 3, stride: 1)
        case 9, 10, 11:
            let at = join()
            first = pool(at, kernel: 1, stride: first < 12 && chance(30) ? 2 : 1)
        default:
            var source = chance(50) ? relu(from) : from
            var at = chance(50) ? relu(norm(conv(source))) : source
            at = norm(conv(at))
            if chance(30) { source = chance(70) ? norm(conv(source)) : conv(source) }
            at = chance(60) ? add(MEST_LAYER_ADD, at, with: source) : add(MEST_LAYER_ADD, source, with: at)
            if chance(70) { _ = relu(at) }
        }
    }
    let at = join()
    add(MEST_LAYER_GLOBAL_AVG_POOL, at)
    layers.append(layer(MEST_LAYER_LINEAR) { $0.channels = 4 })
    return layers
}

/// What a plan's choices depend on.
func vary(_ config: inout mest_config, _ seed: UInt64) {
    config.density = 0.5
    config.recompute = Int32(seed % 3)  // MEST_RECOMPUTE_*
    config.activations = seed % 3 == 0 ? Int32(MEST_ACTIVATIONS_BF16) : 0
}

struct Simulation {
    let plan: Plan
    let tensors: [Tensor]
    let n: Int
    var written: [Int: (by: Int, at: Int)] = [:]  // output buffers
    var shares: [Int: [Int]] = [:]                // gradient buffers
    var summed = Set<Int>()
    var wrong: [String] = []
    var recomputed = 0

    init(_ plan: Plan, _ tensors: [Tensor]) {
        self.plan = plan
        self.tensors = tensors
        n = plan.count
    }

    private func node(_ i: Int) -> Node { plan.nodes[i] }

    // MARK: Buffers

    private func life(_ use: Use, of owner: Int, at time: Int) -> Life? {
        let moment = Life(Int32(time), Int32(time))
        for t in tensors where t.use == use && Int(t.node) == owner {
            if t.life.meets(moment) { return t.life }
            if t.again.meets(moment) { return t.again }
        }
        return nil
    }

    private mutating func check(_ good: Bool, _ what: String, _ time: Int) {
        if !good { wrong.append("time \(time): \(what)") }
    }

    private mutating func alive(_ use: Use, of owner: Int, at time: Int) {
        let lives = life(use, of: owner, at: time) != nil
        check(lives, "\(use) of \(owner) has no place", time)
    }

    // MARK: Outputs

    /// The stored outputs that the output of node i is computed from.
    private func sources(_ i: Int) -> [Int] {
        if !node(i).isVirtual { return [i] }
        return sources(Int(node(i).from)) + (node(i).kind == .add ? sources(Int(node(i).with)) : [])
    }

    private mutating func read(_ i: Int, at time: Int, for reader: Int) {
        for source in sources(i) {
            let owner = Int(node(source).outputOwner)
            guard let life = life(.output, of: owner, at: time), let last = written[owner] else {
                check(false, "output of \(source), read for \(reader), is gone", time)
                continue
            }
            check(last.by == source, "\(reader) reads \(source) where \(last.by) lies", time)
            check(Int(life.first) <= last.at, "output of \(source), read for \(reader), was given up since \(last.at)", time)
        }
    }

    private mutating func forward(_ i: Int, at time: Int, again: Bool) {
        let it = node(i)
        let sums = plan.training && !again
        if it.kind == .batchNorm && sums {
            let centred = Int(node(Int(it.from)).normedBy) == i
            if !centred { read(Int(it.from), at: time, for: i) }
            alive(.sums, of: i, at: time)
        }
        if it.normedBy >= 0 && sums { alive(.sums, of: Int(it.normedBy), at: time) }
        if it.normedBy >= 0 { alive(.start, of: i, at: time) }
        if it.isVirtual { return }
        if i > 0 { read(Int(it.from), at: time, for: i) }
        if it.kind == .add { read(Int(it.with), at: time, for: i) }
        if it.kind == .conv2D { alive(.scratch, of: i, at: time) }
        alive(.output, of: Int(it.outputOwner), at: time)
        written[Int(it.outputOwner)] = (i, time)
    }

    // MARK: Gradients

    /// The shares that the gradient of node i's output is the sum of: who puts them in. A sum passes on its own.
    private func expected(_ i: Int) -> [Int] {
        if i == n - 1 { return [n] }
        var found: [Int] = []
        for j in (i + 1)..<n {
            for edge in [node(j).from, node(j).kind == .add ? node(j).with : -1] where Int(edge) == i {
                found += node(j).kind == .add ? expected(j) : node(j).trains ? [j] : []
            }
        }
        return found.sorted()
    }

    private mutating func isComplete(_ i: Int, at time: Int, for reader: Int) {
        let owner = Int(node(i).gradientOwner)
        alive(.gradient, of: owner, at: time)
        let held = shares[owner] ?? []
        let wanted = expected(i)
        check(held == wanted, "\(reader) takes \(held) for the gradient of \(i): \(wanted)", time)
    }

    private mutating func write(_ share: [Int], to i: Int, adds: Bool, at time: Int) {
        if !node(i).trains { return }
        let owner = Int(node(i).gradientOwner)
        alive(.gradient, of: owner, at: time)
        shares[owner] = ((adds ? shares[owner] ?? [] : []) + share).sorted()
    }

    /// Node `by` has completed what lies in the buffer of node i's gradient.
    private mutating func takeSums(by: Int, in i: Int, at time: Int) {
        for b in 0..<n where node(b).kind == .batchNorm && node(b).trains && Int(node(b).summedBy) == by {
            check(node(b).gradientOwner == node(i).gradientOwner, "\(by) takes sums of \(b) elsewhere", time)
            isComplete(b, at: time, for: by)
            alive(.backwardSums, of: b, at: time)
            read(Int(node(b).from), at: time, for: by)
            summed.insert(b)
        }
    }

    /// To `from`, in a buffer of its own.
    private mutating func pass(_ i: Int, at time: Int) {
        let from = Int(node(i).from)
        if node(from).trains {
            check(node(from).gradientOwner != node(i).gradientOwner, "\(i) writes where it reads", time)
        }
        write([i], to: from, adds: node(i).accumulatesFrom, at: time)
    }

    private mutating func change(_ i: Int, at time: Int) {
        if node(Int(node(i).from)).trains {
            check(node(Int(node(i).from)).gradientOwner == node(i).gradientOwner, "\(i) is not in place", time)
        }
        write([i], to: Int(node(i).from), adds: false, at: time)
    }

    private mutating func backward(_ i: Int, at time: Int) {
        let it = node(i), from = Int(it.from)
        switch it.kind {
        case .conv2D:
            let reads = it.gradientVirtual ? Int(it.normedBy) : i
            isComplete(reads, at: time, for: i)
            if it.gradientVirtual {
                read(i, at: time, for: i)
                alive(.gradientConstants, of: reads, at: time)
            }
            read(from, at: time, for: i)
            alive(.backwardScratch, of: i, at: time)
            if !node(from).trains { break }
            check(node(from).gradientOwner != node(reads).gradientOwner, "\(i) writes where it reads", time)
            write([i], to: from, adds: it.accumulatesFrom, at: time)
            if Int(node(from).finishedBy) == i {
                isComplete(from, at: time, for: i)
                change(from, at: time)
            }
            takeSums(by: i, in: from, at: time)
        case .relu:
            if it.finishedBy >= 0 { break }
            isComplete(i, at: time, for: i)
            read(i, at: time, for: i)
            if it.gradientInPlace {
                change(i, at: time)
                takeSums(by: i, in: i, at: time)
            } else {
                pass(i, at: time)
            }
        case .batchNorm:
            if Int(it.summedBy) == i { takeSums(by: i, in: i, at: time) }
            check(summed.contains(i), "nobody took the sums of \(i)", time)
            alive(.backwardSums, of: i, at: time)
            alive(.gradientConstants, of: i, at: time)
            if node(from).gradientVirtual { break }
            if !node(from).trains { break }
            isComplete(i, at: time, for: i)
            read(from, at: time, for: i)
            if it.gradientInPlace { change(i, at: time) } else { pass(i, at: time) }
        case .add:
            isComplete(i, at: time, for: i)
            let mine = expected(i)
            if !it.gradientInPlace { write(mine, to: from, adds: it.accumulatesFrom, at: time) }
            if !it.withInPlace { write(mine, to: Int(it.with), adds: it.accumulatesWith, at: time) }
        case .dropout:
            isComplete(i, at: time, for: i)
            if it.gradientInPlace { change(i, at: time) } else { pass(i, at: time) }
        default:
            isComplete(i, at: time, for: i)
            if layerTraits(it).backwardReadsInput { read(from, at: time, for: i) }
            pass(i, at: time)
        }
    }

    // MARK: A step

    mutating func run() {
        for i in 0..<n { forward(i, at: i, again: false) }
        read(n - 1, at: n, for: n)
        if !plan.training { return }
        write([n], to: n - 1, adds: false, at: n)
        for i in stride(from: n - 1, to: 0, by: -1) {
            for j in Int(node(i).recomputes.0)..<Int(node(i).recomputes.1) where Int(node(j).recomputedAt) == i {
                forward(j, at: 2 * n - i, again: true)
                recomputed += 1
            }
            if node(i).trains { backward(i, at: 2 * n - i) }
        }
    }
}

@Suite struct Simulations {
    @Test(arguments: 0..<20) func aStepReadsWhatItTakesItFor(part: UInt64) throws {
        var recomputed = 0
        for seed in (part * 50)..<(part * 50 + 50) {
            var random = SplitMix64(seed)
            let layers = randomNetwork(&random)
            try withPlan(layers, { vary(&$0, seed); $0.inference_only = seed % 10 == 7 ? 1 : 0 }) { plan, tensors in
                var simulation = Simulation(plan, tensors)
                simulation.run()
                #expect(simulation.wrong.isEmpty, "seed \(seed): \(simulation.wrong.prefix(3))")
                if simulation.recomputed > 0 { recomputed += 1 }
            }
        }
        #expect(recomputed >= 5, "networks in which anything is computed again")
    }

    /// The plan is made for all layers; then the first ones freeze, some more at a time.
    @Test(arguments: 0..<20) func soItDoesWithFrozenLayers(part: UInt64) throws {
        var frozen = 0
        for seed in (part * 50)..<(part * 50 + 50) {
            var random = SplitMix64(seed)
            let layers = randomNetwork(&random)
            try withPlan(layers, { vary(&$0, seed) }) { made, tensors in
                var plan = made
                plan.config.freeze_share = 0.95  // of some of these networks nothing fits, which a description may not say
                plan.config.freeze_epochs = (1, 4)
                for epoch in 1...4 as ClosedRange<UInt32> {
                    let end = plan.frozenLayers(at: epoch)
                    plan.freeze(upTo: end)
                    var simulation = Simulation(plan, tensors)
                    simulation.run()
                    #expect(simulation.wrong.isEmpty, "seed \(seed), \(end) frozen: \(simulation.wrong.prefix(3))")
                    for i in 0..<end {
                        #expect(plan.nodes[i].frozen && !plan.nodes[i].trains && !plan.nodes[i].gradient.exists)
                    }
                    if end > 0 { frozen += 1 }
                }
            }
        }
        #expect(frozen >= 50, "plans with frozen layers")
    }
}
