// SPDX-License-Identifier: Apache-2.0
// Runs: the inputs in runs of 4, 8 or 16 neighbours, of a convolution input channels; of an output and a place in
// the kernel a run exists whole or not at all. The transpose of Blocks: one index, one load of the output's gradient.
//
// A last run of fewer inputs is stored whole, as a last block is.

import CMest
import CMestKernels

enum Runs: RowScheme {
    static var form: Int { MESTK_FORM_RUN }

    /// Inputs of a run.
    static func length(_ node: Node) -> Int32 {
        switch int(node.scheme) {
        case MEST_SCHEME_ROW4: return 4
        case MEST_SCHEME_ROW8: return 8
        default: return 16
        }
    }

    static func grid(_ node: Node) -> Grid {
        let length = length(node), channels = node.columns / node.taps
        return Grid(rows: node.rows, channels: (channels &+ length &- 1) / length, taps: node.taps, inRuns: channels)
    }

    static func units(_ node: Node) -> Units {
        let grid = grid(node)
        let length = int64(length(node))
        let n = int64(grid.rows) &* int64(grid.columns)
        return Units(
            weights: length, positions: n, most: n, lines: int64(grid.channels),
            phantoms: int64(grid.channels) &* length &- int64(grid.inRuns))
    }

    /// Runs are stored whole, the inputs that the last one lacks included. Columns are read where there can be as many.
    static func room(for csr: mest_csr, _ node: Node) -> Int64 {
        if int64(csr.count) > node.weight.capacity { return int64(csr.count) }
        var room: Int64 = 0
        for j in 0..<int(csr.count) where int(csr.column[j]) / int(node.taps) % int(node.unit) == 0 {
            room &+= int64(node.unit)
        }
        return room
    }

    /// Of the run that connection j begins: its first input, how many it has, and how many places in the kernel.
    private static func run(_ node: Node, _ csr: mest_csr, _ j: Int, end: Int) -> (first: Int, inputs: Int, places: Int) {
        let taps = int(node.taps), length = int(node.unit)
        let first = int(csr.column[j]) / taps / length &* length
        var places = 0
        while j &+ places < end && int(csr.column[j &+ places]) < (first &+ 1) &* taps { places &+= 1 }
        return (first, min(length, int(node.columns) / taps &- first), places)
    }

    /// Inputs of one run must have the same places.
    static func fits(_ model: Model, _ node: Node, _ csr: mest_csr) throws(Status) {
        for r in 0..<int(node.rows) {
            var j = int(csr.row_start[r])
            let end = int(csr.row_start[r &+ 1])
            while j < end {
                let (_, inputs, places) = run(node, csr, j, end: end)
                let n = inputs &* places
                var whole = places > 0 && j &+ n <= end
                for i in 0..<(whole ? n : 0)
                where int(csr.column[j &+ i]) != int(csr.column[j &+ i % places]) &+ i / places &* int(node.taps) {
                    whole = false
                }
                if !whole { throw model.doesNotFit(node, r, "has a run of inputs that is not whole") }
                j &+= n
            }
        }
    }

    static func index(_ rows: SparseRows, _ model: Model, _ csr: mest_csr) {
        guard let runs = rows.runs else { return }
        var n = 0
        for r in 0..<rows.rows {
            rows.start[r] = uint32(n)
            for j in int(csr.row_start[r])..<int(csr.row_start[r &+ 1]) {
                let channel = int(csr.column[j]) / runs.taps, tap = int(csr.column[j]) % runs.taps
                if channel % rows.width != 0 { continue }
                rows.column[n] = UInt16(truncatingIfNeeded: channel / rows.width &* runs.taps &+ tap)
                n &+= 1
            }
        }
        rows.start[rows.rows] = uint32(n)
    }
}

extension SparseRows {
    /// Units are runs of `width` of so many channels.
    struct Runs {
        let taps: Int
        let channels: Int
    }

    /// The connections of a row: run by run, in it channel by channel.
    func connections(_ row: Int, of runs: Runs, _ body: (Int, Int) -> Void) {
        var j = int(start[row])
        let end = int(start[row &+ 1])
        while j < end {
            let run = int(column[j]) / runs.taps, first = run &* width
            var next = j &+ 1
            while next < end && int(column[next]) / runs.taps == run { next &+= 1 }
            for i in 0..<min(width, runs.channels &- first) {
                for unit in j..<next {
                    body((first &+ i &- run) &* runs.taps &+ int(column[unit]), unit &* width &+ i)
                }
            }
            j = next
        }
    }

    /// Units of the last run, in all rows.
    func inLast(of runs: Runs) -> Int {
        var n = 0
        for r in 0..<rows {
            var j = int(start[r &+ 1])
            while j > int(start[r]) && int(column[j &- 1]) >= columns &- runs.taps {
                j &-= 1
                n &+= 1
            }
        }
        return n
    }
}
