// SPDX-License-Identifier: Apache-2.0
// Dense: every connection exists; no index is stored or read.

import CMest
import CMestKernels

enum Dense: Scheme {
    static func capacity(_ node: Node, connections: Int64) -> Int64 { node.positions }

    static func reserveIndex(_ node: inout Node, training: Bool, _ cursor: inout Cursor) {}

    /// w ~ N(0, 2 / fan_in): He et al. 2015.
    static func initialise(_ model: Model, _ node: UnsafeMutablePointer<Node>) {
        let n = node.pointee
        let value = model.floats(n.weight.value)
        let deviation = mestk_sqrt(2 / Float(int(n.columns)))
        var random = SplitMix64(streamKey(model.config.seed, .value, layer: int(n.index), number: 0))
        for i in 0..<int(n.positions) { value[i] = deviation * random.normal() }
    }

    static func weights(_ model: Model, _ node: UnsafeMutablePointer<Node>) -> mestk_weights {
        let n = node.pointee
        return mestk_weights(
            rows: n.rows, channels: n.columns / n.taps, taps: n.taps, row_start: nil, column: nil,
            channel_start: nil, key: nil, position: nil, value: model.floats(n.weight.value))
    }

    static func mutate(_ model: Model, _ node: UnsafeMutablePointer<Node>, _ amount: Amount, key: UInt64) {}

    static func mutationScratch(_ node: Node, dropped: Int64, grown: Int64, excludeDropped: Bool) -> Int64 { 0 }
}
