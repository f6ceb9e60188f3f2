// SPDX-License-Identifier: Apache-2.0
// A model of one sparse layer, and what every scheme promises of it (golden check G13).

import CMest
import CMestKernels
import Testing

@testable import Mest

/// A model with one sparse layer, 1, and no way out through the C API.
final class OneLayer {
    let model: Model
    private let block: UnsafeMutableRawPointer
    var node: Node { model.nodes[1] }

    init(rows: Int, channels: Int, kernel: Int, scheme: Int, _ set: (inout mest_config) -> Void) throws {
        var config = mest_config()
        config.batch = 2
        config.epochs = 160
        config.scheme = Int32(scheme)
        set(&config)
        var layers = [layer(MEST_LAYER_INPUT) { $0.channels = UInt32(channels); $0.height = UInt32(kernel); $0.width = UInt32(kernel) }]
        if kernel == 1 {
            layers.append(layer(MEST_LAYER_LINEAR) { $0.channels = UInt32(rows) })
        } else {
            layers.append(layer(MEST_LAYER_CONV2D) { $0.channels = UInt32(rows); $0.kernel_h = UInt32(kernel) })
        }
        let message = Message(buffer: UnsafeMutablePointer<CChar>.allocate(capacity: Message.bytes))
        defer { message.buffer.deallocate() }
        let scratch = UnsafeMutableRawPointer.allocate(byteCount: Plan.scratchBytes(layers.count), alignment: 64)
        defer { scratch.deallocate() }
        let plan = try layers.withUnsafeBufferPointer {
            try Plan.make(config, CallersArray($0.baseAddress!), layers.count, scratch: scratch, message)
        }
        block = UnsafeMutableRawPointer.allocate(byteCount: Int(plan.bytes.total), alignment: 64)
        model = Model.create(plan, mest_env(), block: block, ownsBlock: false)
    }

    deinit { block.deallocate() }

    /// (row, column, place of the value), in CSR order.
    var connections: [(row: Int, column: Int, place: Int)] {
        withScheme(node, Collect(model: model, node: model.nodes + 1))
    }

    private struct Collect: SchemeVisitor {
        let model: Model, node: UnsafeMutablePointer<Node>
        func visit<S: Scheme>(_: S.Type) throws(Never) -> [(row: Int, column: Int, place: Int)] {
            var found: [(row: Int, column: Int, place: Int)] = []
            for r in 0..<Int(node.pointee.rows) { S.connections(model, node, row: r) { found.append((r, $0, $1)) } }
            return found
        }
    }

    var weights: mestk_weights {
        withScheme(node, Weights(model: model, node: model.nodes + 1))
    }

    private struct Weights: SchemeVisitor {
        let model: Model, node: UnsafeMutablePointer<Node>
        func visit<S: Scheme>(_: S.Type) throws(Never) -> mestk_weights { S.weights(model, node) }
    }

    /// The unit that a connection belongs to: blocks by (block, column), runs by (row, first input, tap), kernels by
    /// (row, channel).
    func unit(_ row: Int, _ column: Int) -> Int {
        let columns = Int(node.columns)
        switch Int(node.scheme) {
        case MEST_SCHEME_BLOCK4, MEST_SCHEME_BLOCK8, MEST_SCHEME_BLOCK16: return row / Int(node.unit) * columns + column
        case MEST_SCHEME_PATTERN: return row * columns + column / 9 * 9
        case MEST_SCHEME_ROW4, MEST_SCHEME_ROW8, MEST_SCHEME_ROW16:
            let taps = Int(node.taps), first = column / taps / Int(node.unit) * Int(node.unit)
            return row * columns + first * taps + column % taps
        default: return row * columns + column
        }
    }

    func mutate(_ amount: Amount, key: UInt64) {
        withScheme(node, Mutate(model: model, node: model.nodes + 1, amount: amount, key: key))
    }

    /// Values of rows and inputs that do not exist are 0.
    private func expectPhantoms(_ places: [Int], _ where_: String) {
        let n = node, exist = Set(places)
        for tensor in [n.weight.value, n.weight.gradient, n.weight.momentum] {
            let values = model.floats(tensor)
            let zeros = (0..<Int(n.units) * Int(n.unit)).allSatisfy { exist.contains($0) || values[$0].bitPattern == 0 }
            #expect(zeros, "\(where_): phantoms")
        }
    }

    /// What the scheme promises of its connections.
    func expectInvariants(_ where_: String) {
        let found = connections
        let n = node
        let columns = Int(n.columns)
        #expect(found.count == Int(n.active), "\(where_): active")
        let positions = found.map { $0.row * columns + $0.column }
        #expect(zip(positions, positions.dropFirst()).allSatisfy { $0 < $1 }, "\(where_): ascending, no duplicates")
        #expect(found.allSatisfy { $0.column < columns })
        #expect(Set(found.map { $0.place }).count == found.count, "\(where_): a place each")
        #expect(Int64(n.units) * Int64(n.unit) <= n.weight.capacity, "\(where_): capacity")
        let perRow = (0..<Int(n.rows)).map { r in found.count { $0.row == r } }
        switch Int(n.scheme) {
        case MEST_SCHEME_BLOCK4, MEST_SCHEME_BLOCK8, MEST_SCHEME_BLOCK16:
            let height = Int(n.unit)
            let sets = (0..<Int(n.rows)).map { r in found.filter { $0.row == r }.map { $0.column } }
            #expect((0..<Int(n.rows)).allSatisfy { sets[$0] == sets[$0 / height * height] }, "\(where_): whole units")
            expectPhantoms(found.map { $0.place }, where_)
        case MEST_SCHEME_ROW4, MEST_SCHEME_ROW8, MEST_SCHEME_ROW16:
            let taps = Int(n.taps), length = Int(n.unit), inputs = columns / taps
            let whole = Dictionary(grouping: found) { unit($0.row, $0.column) }.values.allSatisfy { run in
                let first = run[0].column / taps
                return first % length == 0 && run.map { $0.column / taps } == Array(first..<min(first + length, inputs))
            }
            #expect(whole, "\(where_): whole units")
            expectPhantoms(found.map { $0.place }, where_)
        case MEST_SCHEME_PATTERN:
            #expect(Set(perRow).count == 1, "\(where_): filter balance")
            let taps = mestk_patterns(model.code8)!
            let known = Set((0..<8).map { [taps[$0].0, taps[$0].1, taps[$0].2, taps[$0].3].map(Int.init) })
            for kernel in Dictionary(grouping: found, by: { unit($0.row, $0.column) }).values {
                #expect(known.contains(kernel.map { $0.column % 9 }), "\(where_): a pattern")
            }
        case MEST_SCHEME_NM24:
            let groups = Dictionary(grouping: positions) { $0 / columns * columns + $0 % columns / 4 * 4 }
            #expect(groups.values.allSatisfy { $0.count <= 2 }, "\(where_): 2 of 4")
        case MEST_SCHEME_FAN_IN:
            #expect(Set(perRow).count == 1, "\(where_): fan-in")
        default: break
        }
        // The second order: every unit once, keys ascending.
        var w = weights
        let units = Int(n.units)
        var seen = Set<Int>()
        let width = Int(mestk_unit_channels(&w))
        for c in 0..<(Int(w.channels) + width - 1) / width {
            for e in Int(w.channel_start[c])..<Int(w.channel_start[c + 1]) {
                let j = Int(w.position[e])
                seen.insert(j)
                var q = 0
                while w.row_start[q + 1] <= UInt32(j) { q += 1 }
                let taps = Int(w.form) == MESTK_FORM_PATTERN ? 1 : Int(w.taps)
                #expect(Int(w.key[e]) == q * taps + Int(w.column[j]) % taps && Int(w.column[j]) / taps == c, "\(where_): index")
            }
        }
        #expect(seen.count == units && (units == 0 || seen.max() == units - 1), "\(where_): index is whole")
    }
}
