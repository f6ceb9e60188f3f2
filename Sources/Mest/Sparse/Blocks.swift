// SPDX-License-Identifier: Apache-2.0
// Blocks: the rows in blocks of 4, 8 or 16; in a block, a column exists in all rows or in none. The
// smallest unit that shares one index and, in the kernels, one load of the input.
//
// A last block of fewer rows is stored whole. The values of the rows it lacks are 0 and stay 0: their
// gradient is 0; they count nowhere.

import CMest
import CMestKernels

enum Blocks: RowScheme {
    static var form: Int { MESTK_FORM_BLOCK }

    /// Rows of a block.
    static func height(_ node: Node) -> Int32 {
        switch int(node.scheme) {
        case MEST_SCHEME_BLOCK4: return 4
        case MEST_SCHEME_BLOCK8: return 8
        default: return 16
        }
    }

    static func grid(_ node: Node) -> Grid {
        let height = height(node)
        return Grid(
            rows: (node.rows &+ height &- 1) / height, channels: node.columns / node.taps, taps: node.taps)
    }

    static func units(_ node: Node) -> Units {
        let grid = grid(node)
        let height = int64(height(node))
        let n = int64(grid.rows) &* int64(grid.columns)
        return Units(
            weights: height, positions: n, most: n, lines: int64(grid.rows),
            phantoms: int64(grid.rows) &* height &- int64(node.rows))
    }

    /// Blocks are stored whole, the rows that the last one lacks included.
    static func room(for csr: mest_csr, _ node: Node) -> Int64 {
        let height = int(node.unit)
        var room: Int64 = 0
        var r = 0
        while r < int(node.rows) {
            room &+= int64(csr.row_start[r &+ 1] &- csr.row_start[r]) &* int64(height)
            r &+= height
        }
        return room
    }

    /// Rows of one block must have the same columns.
    static func fits(_ model: Model, _ node: Node, _ csr: mest_csr) throws(Status) {
        let height = int(node.unit)
        for r in 0..<int(node.rows) {
            let first = int(csr.row_start[r / height &* height])
            let own = int(csr.row_start[r])
            let n = int(csr.row_start[r &+ 1]) &- own
            var same = n == int(csr.row_start[r / height &* height &+ 1]) &- first
            for i in 0..<(same ? n : 0) where csr.column[own &+ i] != csr.column[first &+ i] { same = false }
            if !same { throw model.doesNotFit(node, r, "differs from the first row of its block") }
        }
    }

    static func index(_ rows: SparseRows, _ model: Model, _ csr: mest_csr) {
        var n = 0
        for block in 0..<rows.rows {
            rows.start[block] = uint32(n)
            for j in int(csr.row_start[block &* rows.width])..<int(csr.row_start[block &* rows.width &+ 1]) {
                rows.column[n] = csr.column[j]
                n &+= 1
            }
        }
        rows.start[rows.rows] = uint32(n)
    }
}
