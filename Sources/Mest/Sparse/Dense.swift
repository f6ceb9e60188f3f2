// SPDX-License-Identifier: Apache-2.0
// Dense: every connection exists; no index is stored or read.

import CMest
import CMestKernels

enum Dense: Scheme {
    static func units(_ node: Node) -> Units {
        Units(positions: node.storedDense, most: node.storedDense, lines: int64(node.channels))
    }

    static func reserveIndex(_ node: inout Node, training: Bool, _ cursor: inout Cursor) {}

    static func initialise(_ model: Model, _ node: UnsafeMutablePointer<Node>) {
        let n = node.pointee
        var values = FirstValues(model, n)
        values.fill(model.floats(n.weight.value), from: 0, int(n.storedDense))
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
