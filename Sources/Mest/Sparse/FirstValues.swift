// SPDX-License-Identifier: Apache-2.0
// FirstValues: what a dense layer begins with, w ~ N(0, 2 / fan_in) (He et al. 2015), position by position. A value is
// a pure function of its position, so any may be drawn again, and none is stored for that.

import CMest
import CMestKernels

struct FirstValues {
    private let key: UInt64
    private let deviation: Float
    private var random: SplitMix64

    init(_ model: Model, _ node: Node) {
        key = streamKey(model.config.seed, .value, layer: int(node.index), number: 0)
        deviation = mestk_sqrt(2 / Float(int(node.inputs &* node.taps)))
        random = SplitMix64(key)
    }

    mutating func next() -> Float { deviation * random.normal() }

    /// The next one is that of this position: a normal number takes two of the stream.
    mutating func seek(_ position: Int64) {
        random = SplitMix64(key)
        random.skip(2 &* uint64(position))
    }

    mutating func fill(_ values: UnsafeMutablePointer<Float>, from position: Int64, _ count: Int) {
        seek(position)
        for i in 0..<count { values[i] = next() }
    }

    /// Those of the connections.
    mutating func fill(_ rows: SparseRows) {
        for r in 0..<rows.rows {
            for j in int(rows.start[r])..<int(rows.start[r &+ 1]) {
                seek(int64(r) &* int64(rows.columns) &+ int64(int(rows.column[j])))
                rows.value[j] = next()
            }
        }
    }
}
