// SPDX-License-Identifier: Apache-2.0
// Dense: every connection exists; no index is stored or read.

import CMest
import CMestKernels

enum Dense: Scheme {
    static func units(_ node: Node) -> Units {
        Units(positions: node.storedDense, most: node.storedDense, lines: int64(node.channels))
    }

    static func reserveIndex(_ node: inout Node, training: Bool, _ cursor: inout Cursor) {}

    /// w ~ N(0, 2 / fan_in): He et al. 2015.
    static func initialise(_ model: Model, _ node: UnsafeMutablePointer<Node>) {
        let n = node.pointee
        let value = model.floats(n.weight.value)
        let deviation = mestk_sqrt(2 / Float(int(n.inputs &* n.taps)))
        var random = SplitMix64(streamKey(model.config.seed, .value, layer: int(n.index), number: 0))
        for i in 0..<int(n.storedDense) { value[i] = deviation * random.normal() }
    }

    static func weights(_ model: Model, _ node: UnsafeMutablePointer<Node>) -> mestk_weights {
        let n = node.pointee
        var weights = mestk_weights()
        weights.rows = n.channels
        weights.channels = n.inputs
        weights.taps = n.taps
        weights.group = 1
        weights.value = UnsafePointer(model.floats(n.weight.value))
        return weights
    }

    static func mutate(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ amount: Amount, key: UInt64) {}

    static func connections(_ model: Model, _ node: UnsafeMutablePointer<Node>, row: Int, _ body: (Int, Int) -> Void) {
        let columns = int(node.pointee.columns)
        for c in 0..<columns { body(c, row &* columns &+ c) }
    }

    static func replace(_ model: Model, _ node: UnsafeMutablePointer<Node>, by csr: mest_csr) throws(Status) {}
}
