// SPDX-License-Identifier: Apache-2.0
// SparseRows: compressed sparse rows that connections leave and join in place, O(connections), with
// everything that moves with a connection. A connection has `width` values: one, those of a block's rows or of a
// run's inputs, or the kept taps of a kernel. Invariants: start[0] == 0, start ascending, columns strictly ascending in
// a row.

import CMestKernels

struct SparseRows {
    /// Of a kernel that has just been placed.
    static let undecided = UInt8.max

    var rows: Int
    var columns: Int
    var start: UnsafeMutablePointer<UInt32>    // rows + 1
    var column: UnsafeMutablePointer<UInt16>
    var value: UnsafeMutablePointer<Float>
    var gradient: UnsafeMutablePointer<Float>? = nil
    var momentum: UnsafeMutablePointer<Float>? = nil
    var average: UnsafeMutablePointer<Float>? = nil
    var width = 1                              // values of a connection
    var pattern: UnsafeMutablePointer<UInt8>? = nil  // which taps of a kernel they are
    var runs: Runs? = nil                      // they are those of neighbouring inputs

    var count: Int { int(start[rows]) }

    /// Weights that exist, when the last row, or the last run of inputs, lacks `phantoms` of its values.
    func weights(phantoms: Int) -> Int { count &* width &- (phantoms == 0 ? 0 : phantoms &* countInLast) }

    /// Connections of the last row, or of the last run of inputs.
    var countInLast: Int { runs.map { inLast(of: $0) } ?? int(start[rows] &- start[rows &- 1]) }

    /// Whether connection j is one of those; while keep() asks, too.
    func isInLast(_ j: Int) -> Bool {
        if let runs { return int(column[j]) >= columns &- runs.taps }
        return j >= int(start[rows &- 1])
    }

    @inline(__always)
    private func move(_ from: Int, to: Int) {
        column[to] = column[from]
        if let pattern { pattern[to] = pattern[from] }
        move(value, from, to)
        if let gradient { move(gradient, from, to) }
        if let momentum { move(momentum, from, to) }
        if let average { move(average, from, to) }
    }

    @inline(__always)
    private func move(_ values: UnsafeMutablePointer<Float>, _ from: Int, _ to: Int) {
        for i in 0..<width { values[to &* width &+ i] = values[from &* width &+ i] }
    }

    /// At value 0, with no state.
    @inline(__always)
    func put(_ c: Int, at: Int) {
        column[at] = UInt16(truncatingIfNeeded: c)
        if let pattern { pattern[at] = SparseRows.undecided }
        for i in (at &* width)..<(at &* width &+ width) {
            value[i] = 0
            if let gradient { gradient[i] = 0 }
            if let momentum { momentum[i] = 0 }
            if let average { average[i] = 0 }
        }
    }

    /// The connections of a row of the matrix, columns ascending: body(column, place of its value). With
    /// patterns a row is one of kernels; else `width` rows share a row of the index.
    func connections(
        _ row: Int, taps: UnsafePointer<(UInt8, UInt8, UInt8, UInt8)>?, _ body: (Int, Int) -> Void
    ) {
        if let runs { return connections(row, of: runs, body) }
        guard let pattern, let taps else {
            let block = row / width
            for j in int(start[block])..<int(start[block &+ 1]) { body(int(column[j]), j &* width &+ row % width) }
            return
        }
        for j in int(start[row])..<int(start[row &+ 1]) {
            let tap = taps[int(pattern[j])]
            let first = int(column[j]) &* 9
            body(first &+ int(tap.0), j &* 4)
            body(first &+ int(tap.1), j &* 4 &+ 1)
            body(first &+ int(tap.2), j &* 4 &+ 2)
            body(first &+ int(tap.3), j &* 4 &+ 3)
        }
    }

    // MARK: Drop

    /// Of connections from ..< end the `drop` least important. Importance is >= 0, so its bits order as it does.
    private func cut(_ drop: Int, from: Int, to end: Int, _ importance: (Int) -> Float) -> Cut {
        Cut(least: drop, bits: 32) { take in
            for j in from..<end { take(uint64(importance(j).bitPattern)) }
        }
    }

    /// Removes the `drop` least important connections, of all or of every row; equal importance: the
    /// lower index goes first. recordTo: linear positions of the dropped, ascending.
    func drop(
        _ drop: Int, perRow: Bool = false, recordTo record: UnsafeMutablePointer<UInt32>?, importance: (Int) -> Float
    ) {
        var cut = cut(perRow ? 0 : drop, from: 0, to: count, importance)
        var row = -1, recorded = 0
        keep { r, j, position in
            if perRow && r != row {
                row = r
                let end = int(start[r &+ 1])
                cut = self.cut(min(drop, end &- j), from: j, to: end, importance)
            }
            if !cut.takes(uint64(importance(j).bitPattern)) { return true }
            if let record {
                record[recorded] = position
                recorded &+= 1
            }
            return false
        }
    }

    /// The connections that a drop of so many would take, of all rows.
    struct Least {
        fileprivate let threshold: UInt64
        fileprivate let lastTie: Int  // of those that equal the threshold
        fileprivate let importance: Importance

        func has(_ j: Int) -> Bool {
            let bits = uint64(importance[j].bitPattern)
            return bits < threshold || (bits == threshold && j <= lastTie)
        }
    }

    func least(_ count: Int, by importance: Importance) -> Least {
        let cut = cut(count, from: 0, to: self.count) { importance[$0] }
        var ties = 0, j = 0
        while ties < cut.ties {
            if uint64(importance[j].bitPattern) == cut.threshold { ties &+= 1 }
            j &+= 1
        }
        return Least(threshold: cut.threshold, lastTie: j &- 1, importance: importance)
    }

    /// Removes the others: stays(row, index, linear position), asked in order, before anything at or behind that
    /// index has moved.
    func keep(_ stays: (Int, Int, UInt32) -> Bool) {
        var to = 0, from = 0
        for r in 0..<rows {
            let end = int(start[r &+ 1])
            start[r] = uint32(to)
            while from < end {
                if stays(r, from, position(r, int(column[from]))) {
                    move(from, to: to)
                    to &+= 1
                }
                from &+= 1
            }
        }
        start[rows] = uint32(to)
    }

    // MARK: Grow

    /// Adds connections at value 0. ranks: `count` ascending ranks among the positions that are
    /// neither active nor in avoiding[0 ..< avoided] (ascending linear positions). Overwrites ranks.
    func grow(
        _ ranks: UnsafeMutablePointer<UInt32>, _ count: Int, avoiding: UnsafeMutablePointer<UInt32>, _ avoided: Int
    ) {
        // Ranks to linear positions: walk rows and their occupied columns once.
        var next = 0             // rank in work
        var freeBefore: Int64 = 0  // free positions in earlier rows
        var a = 0                // into avoiding
        for r in 0..<rows {
            if next == count { break }
            let end = int(start[r &+ 1])
            var j = int(start[r])
            let rowFirst = int64(r) &* int64(columns)
            let rowEnd = rowFirst &+ int64(columns)
            var lastAvoided = a
            while lastAvoided < avoided && int64(avoiding[lastAvoided]) < rowEnd { lastAvoided &+= 1 }
            let free = int64(columns &- (end &- j) &- (lastAvoided &- a))
            var taken: Int64 = 0  // occupied or avoided columns passed so far
            while next < count && int64(ranks[next]) &- freeBefore < free {
                let rank = int64(ranks[next]) &- freeBefore
                // The rank-th free column: step over every taken column at or before it.
                while true {
                    let here = rank &+ taken
                    if j < end && int64(int(column[j])) <= here {
                        j &+= 1
                    } else if a < lastAvoided && int64(avoiding[a]) &- rowFirst <= here {
                        a &+= 1
                    } else {
                        break
                    }
                    taken &+= 1
                }
                ranks[next] = uint32(rowFirst &+ rank &+ taken)
                next &+= 1
            }
            a = lastAvoided
            freeBefore &+= free
        }
        insert(ranks, count)
    }

    /// Merges ascending linear positions into the rows, from the end backwards so that nothing is
    /// overwritten before it has moved.
    func insert(_ positions: UnsafeMutablePointer<UInt32>, _ count: Int) {
        var from = self.count &- 1
        var new = count &- 1
        var to = from &+ count
        var r = rows &- 1
        while r >= 0 && new >= 0 {
            let first = int(start[r])
            let rowFirst = int64(r) &* int64(columns)
            start[r &+ 1] = uint32(to &+ 1)
            while from >= first || (new >= 0 && int64(positions[new]) >= rowFirst) {
                let grown = new >= 0 && int64(positions[new]) >= rowFirst
                    ? int(int64(positions[new]) &- rowFirst) : -1
                if from >= first && int(column[from]) > grown {
                    move(from, to: to)
                    from &-= 1
                } else {
                    put(grown, at: to)
                    new &-= 1
                }
                to &-= 1
            }
            r &-= 1
        }
    }

    /// Those at ascending linear positions instead of all that there are, at value 0.
    func replace(with positions: UnsafePointer<UInt32>, _ count: Int) {
        var next = 0
        for r in 0..<rows {
            start[r] = uint32(next)
            let rowFirst = int64(r) &* int64(columns)
            while next < count && int64(positions[next]) < rowFirst &+ int64(columns) {
                put(int(int64(positions[next]) &- rowFirst), at: next)
                next &+= 1
            }
        }
        start[rows] = uint32(next)
    }

    /// How many of these ascending linear positions are connected.
    func common(with positions: UnsafePointer<UInt32>, _ count: Int) -> Int {
        var next = 0, common = 0
        for r in 0..<rows {
            for j in int(start[r])..<int(start[r &+ 1]) {
                let here = position(r, int(column[j]))
                while next < count && positions[next] < here { next &+= 1 }
                if next < count && positions[next] == here { common &+= 1 }
            }
        }
        return common
    }

    /// Values of connections at ascending linear positions, one after the other.
    func fill(_ positions: UnsafePointer<UInt32>, _ count: Int, _ value: () -> Float) {
        var next = 0
        for r in 0..<rows where next < count {
            for j in int(start[r])..<int(start[r &+ 1]) where next < count && positions[next] == position(r, int(column[j])) {
                self.value[j] = value()
                next &+= 1
            }
        }
    }

    func position(_ r: Int, _ c: Int) -> UInt32 {
        uint32(int64(r) &* int64(columns) &+ int64(c))
    }

    func has(_ r: Int, _ c: Int) -> Bool {
        var low = int(start[r]), high = int(start[r &+ 1])
        while low < high {
            let middle = (low &+ high) / 2
            if int(column[middle]) < c { low = middle &+ 1 } else { high = middle }
        }
        return low < int(start[r &+ 1]) && int(column[low]) == c
    }
}
