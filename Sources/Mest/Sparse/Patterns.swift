// SPDX-License-Identifier: Apache-2.0
// Patterns: of a 3 x 3 kernel that exists 4 of 9 weights exist, in one of 8 patterns
// (CMestKernels/weights.c); and every filter has the same number of kernels. A kernel keeps its pattern
// while it lives; a grown one gets a random pattern. Kernels of other sizes have no patterns: they get
// FanIn.

import CMest
import CMestKernels

enum Patterns: RowScheme {
    static var form: Int { MESTK_FORM_PATTERN }
    static var densest: Ratio { Ratio(billionths: 444_444_444) }

    static func grid(_ node: Node) -> Grid { Grid(rows: node.rows, channels: node.columns / 9, taps: 1) }

    static func units(_ node: Node) -> Units {
        let channels = int64(node.columns) / 9
        return Units(
            weights: 4, pools: int64(node.rows), positions: channels, most: channels, lines: int64(node.rows), span: 9)
    }

    /// The pattern whose taps are four columns of one kernel, from j on; nil when there is none.
    private static func pattern(_ model: Model, _ csr: mest_csr, _ j: Int, end: Int) -> UInt8? {
        guard j &+ 4 <= end, let taps = mestk_patterns(model.code8) else { return nil }
        let first = int(csr.column[j]) / 9 &* 9
        for id in 0..<8 {
            let tap = taps[id]
            if int(csr.column[j]) == first &+ int(tap.0) && int(csr.column[j &+ 1]) == first &+ int(tap.1)
                && int(csr.column[j &+ 2]) == first &+ int(tap.2) && int(csr.column[j &+ 3]) == first &+ int(tap.3) {
                return uint8(id)
            }
        }
        return nil
    }

    /// Whole patterns, as many in each row.
    static func fits(_ model: Model, _ node: Node, _ csr: mest_csr) throws(Status) {
        try model.checkBalance(node, csr)
        for r in 0..<int(node.rows) {
            var j = int(csr.row_start[r])
            var last = -1  // channel
            while j < int(csr.row_start[r &+ 1]) {
                let channel = int(csr.column[j]) / 9
                if channel == last || pattern(model, csr, j, end: int(csr.row_start[r &+ 1])) == nil {
                    throw model.doesNotFit(node, r, "has a kernel that is none of the patterns")
                }
                last = channel
                j &+= 4
            }
        }
    }

    static func index(_ rows: SparseRows, _ model: Model, _ csr: mest_csr) {
        for r in 0...rows.rows { rows.start[r] = csr.row_start[r] / 4 }
        for k in 0..<rows.count {
            rows.column[k] = csr.column[k &* 4] / 9
            rows.pattern?[k] = pattern(model, csr, k &* 4, end: int(csr.count)) ?? 0
        }
    }
}

extension SparseRows {
    /// A random pattern for every kernel that has none yet.
    func drawPatterns(_ random: inout SplitMix64) {
        guard let pattern else { return }
        for j in 0..<count where pattern[j] == SparseRows.undecided { pattern[j] = uint8(random.below(8)) }
    }
}
