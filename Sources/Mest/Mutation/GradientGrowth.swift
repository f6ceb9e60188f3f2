// SPDX-License-Identifier: Apache-2.0
// RigL (Evci et al. 2020): every mutation_updates updates the least important connections leave and those come
// whose gradient is largest, in place of that update. The gradient of what is not connected exists nowhere: a
// layer's backward pass computes it some rows at a time, as that of a sparse matrix in which these rows are
// full, and a buffer of twice the connections that come keeps the largest (streaming top-k). So the memory is
// O(connections), and the bits are those that the gradient of these connections would have. GSE differs in the
// choice of candidates alone (GuidedExploration.swift).

import CMest
import CMestKernels

// MARK: - Plan

extension Plan {
    var growsByGradient: Bool { config.growsByGradient }

    /// Connections that leave and come at most, at one time.
    func mostMoved(_ node: Node) -> Int64 {
        growsByGradient && node.sparse ? Ratio(config.mutation_rate).floor(of: node.weight.capacity) : 0
    }

    /// Rows of which the gradient is computed at once: about as many positions as there are connections.
    func gradientRows(_ node: Node) -> Int64 {
        min(int64(node.rows), max(1, node.weight.capacity / int64(node.columns)))
    }

    /// Where the gradient of candidates is computed; offsets from the layer's backward scratch.
    func gradientPlaces(_ node: Node) -> GradientPlaces {
        let atOnce = explores ? mostExplored(node) : gradientRows(node) &* int64(node.columns)
        return GradientPlaces(rows: int64(node.rows), channels: int64(node.inputs), positions: atOnce)
    }

    /// Bytes of it, and of the kernel.
    func gradientScratch(_ node: Node) -> Int64 {
        if !growsByGradient || !node.sparse { return 0 }
        let places = gradientPlaces(node)
        var more: Int64 = 0
        if explores {
            more = ExplorationPlaces(rows: int64(node.rows), columns: int64(node.columns), positions: places.positions).end
        }
        if node.kind != .conv2D { return places.end &+ more }
        var geometry = node.geometry
        let chunks = int32(config.gradient_chunks)
        return places.end &+ max(more, 4 &* mestk_conv_backward_scratch(&geometry, threads, chunks, places.positions))
    }
}

extension mest_config {
    /// Connections come where the gradient is large, in place of an update.
    var growsByGradient: Bool { method == MEST_METHOD_RIGL || method == MEST_METHOD_GSE }
}

struct GradientPlaces {
    let positions: Int64
    let rowStart, column, channelStart, key, position, gradient, end: Int64

    init(rows: Int64, channels: Int64, positions: Int64) {
        self.positions = positions
        var cursor = Cursor(offset: 0)
        rowStart = cursor.take((rows &+ 1) &* 4).offset
        column = cursor.take(positions &* 2).offset
        channelStart = cursor.take((channels &+ 1) &* 4).offset
        key = cursor.take(positions &* 2).offset
        position = cursor.take(positions &* 4).offset
        gradient = cursor.take(positions &* 4).offset
        end = cursor.offset
    }
}

// MARK: - During backward

extension Model {
    /// Whether the update that is being gathered moves connections instead of weights.
    var movesByGradient: Bool {
        let s = state.pointee
        if !s.plan.growsByGradient || s.updates % uint64(config.mutation_updates) != 0 { return false }
        if !anySparse(int(s.frozen), count) { return false }
        return movedShare.billionths > 0
    }

    private var movedShare: Ratio {
        let s = state.pointee
        return s.plan.movedShare(epoch: s.epoch, update: s.stepsInEpoch, steps: s.stepsPerEpoch)
    }

    /// Before the backward of a layer: the connections that would come.
    func collectCandidates(_ node: UnsafeMutablePointer<Node>, _ pass: Pass) {
        let rows = Unstructured.store(self, node).rows
        let moved = int(movedShare.floor(of: int64(rows.count)))
        var candidates = Candidates(wanted: moved, keys: at(node.pointee.candidates, UInt64.self))
        node.pointee.found = 0
        if moved == 0 { return }
        if state.pointee.plan.explores {
            offerSome(node, rows, to: &candidates, pass)
        } else {
            offerAll(node, rows, to: &candidates, pass)
        }
        candidates.keepLargest()
        node.pointee.found = int32(candidates.count)
    }

    /// RigL: the gradients of all positions that do not stay.
    private func offerAll(
        _ node: UnsafeMutablePointer<Node>, _ rows: SparseRows, to candidates: inout Candidates, _ pass: Pass
    ) {
        let leaving = rows.least(candidates.wanted, by: Importance(self, node))
        let places = state.pointee.plan.gradientPlaces(node.pointee)
        let columns = rows.columns, atOnce = int(places.positions) / columns
        let gradient = gradientRoom(node, places.gradient, Float.self)
        var first = 0
        while first < rows.rows {
            let end = min(first &+ atOnce, rows.rows)
            fillRows(node, rows, first, end, places)
            computeGradient(node, places, pass)
            for r in first..<end {
                var j = int(rows.start[r])
                for c in 0..<columns {
                    let active = j < int(rows.start[r &+ 1]) && int(rows.column[j]) == c
                    if !active || leaving.has(j) {
                        candidates.offer(gradient[(r &- first) &* columns &+ c], int64(r) &* int64(columns) &+ int64(c))
                    }
                    if active { j &+= 1 }
                }
            }
            first = end
        }
    }

    /// An index in which the rows first ..< end are full and the others empty.
    private func fillRows(
        _ node: UnsafeMutablePointer<Node>, _ rows: SparseRows, _ first: Int, _ end: Int, _ places: GradientPlaces
    ) {
        let start = gradientRoom(node, places.rowStart, UInt32.self)
        let column = gradientRoom(node, places.column, UInt16.self)
        for r in 0...rows.rows { start[r] = uint32((min(max(r, first), end) &- first) &* rows.columns) }
        for i in 0..<((end &- first) &* rows.columns) { column[i] = UInt16(truncatingIfNeeded: i % rows.columns) }
    }

    func gradientRoom<T>(_ node: UnsafeMutablePointer<Node>, _ offset: Int64, _ type: T.Type) -> UnsafeMutablePointer<T> {
        at(Place(offset: node.pointee.backwardScratch.offset &+ offset), type)
    }

    /// dw of the positions that rowStart and column of the places say.
    func computeGradient(_ node: UnsafeMutablePointer<Node>, _ places: GradientPlaces, _ pass: Pass) {
        let n = node.pointee
        let rowStart = gradientRoom(node, places.rowStart, UInt32.self)
        let column = gradientRoom(node, places.column, UInt16.self)
        let channelStart = gradientRoom(node, places.channelStart, UInt32.self)
        let key = gradientRoom(node, places.key, UInt16.self)
        let position = gradientRoom(node, places.position, UInt32.self)
        let gradient = gradientRoom(node, places.gradient, Float.self)
        for i in 0..<int(rowStart[int(n.rows)]) { gradient[i] = 0 }
        mestk_index_by_channel(n.rows, n.inputs, n.taps, rowStart, column, channelStart, key, position)
        // Values are only read for dx, which nobody wants here.
        var weights = mestk_weights(
            rows: n.rows, channels: n.inputs, taps: n.taps, row_start: rowStart, column: column, channel_start: channelStart,
            key: key, position: position, value: gradient, form: int32(MESTK_FORM_SINGLE), group: 1, pattern: nil,
            pattern_taps: nil)
        if n.kind == .conv2D {
            var x = operand(int(n.from)), dy = gradientOperand(int(n.index)), nothing = mestk_gradient()
            mestk_conv_backward(
                kernels, geometry(node), &weights, &x, &dy, pass.count, &nothing, gradient, nil, int32(config.gradient_chunks),
                gradientRoom(node, places.end, Float.self))
        } else {
            mestk_linear_backward(
                kernels, blocks, lanes, &weights, input(node), floats(n.gradient), nil, 0, gradient, nil, 0)
        }
    }
}

// MARK: - Instead of the update

extension Model {
    /// The candidates that are left come, at value 0 and with no momentum, unless they are connected already: then
    /// they stay as they are. The others of the least important leave.
    func moveByGradient() {
        for i in 0..<count where nodes[i].sparse {
            let node = nodes + i
            (node.pointee.dropped, node.pointee.grown) = (0, 0)
            let found = int(node.pointee.found)
            if found == 0 { continue }  // frozen layers have none
            let store = Unstructured.store(self, node), rows = store.rows
            var candidates = Candidates(wanted: found, keys: at(node.pointee.candidates, UInt64.self))
            candidates.adopt(found)
            let coming = candidates.positions()
            let before = rows.count
            let leaving = rows.least(found, by: Importance(self, node))
            // Those that come although they were to leave are taken off the list.
            var fresh = 0, next = 0
            rows.keep { r, j, position in
                while next < found && coming[next] < position {
                    coming[fresh] = coming[next]
                    fresh &+= 1
                    next &+= 1
                }
                if next < found && coming[next] == position {
                    next &+= 1
                    return true
                }
                return !leaving.has(j)
            }
            while next < found {
                coming[fresh] = coming[next]
                fresh &+= 1
                next &+= 1
            }
            node.pointee.dropped = uint32(before &- rows.count)
            rows.insert(coming, fresh)
            node.pointee.grown = uint32(fresh)
            let free = rows.rows &* rows.columns &- before
            if free > 0 { node.pointee.unexplored *= 1 - min(1, Float(fresh) / Float(free)) }
            store.refresh()
        }
        state.pointee.mutations &+= 1
        state.pointee.mutationEpoch = state.pointee.epoch
    }
}
