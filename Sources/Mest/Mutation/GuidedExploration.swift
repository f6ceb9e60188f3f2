// SPDX-License-Identifier: Apache-2.0
// GSE, guided stochastic exploration (Heddes et al. 2024): RigL always sparse. Candidates are as many positions
// as there are connections, drawn among those that are not connected: the row by the sum of |dy| of its output,
// the column by that of |x| of what it reads, over samples and pixels; the product of both sums is a bound of the
// gradient. Only the gradients of these are computed, as those of a sparse matrix that has no others: time and
// memory follow the connections, whatever the density.

import CMest
import CMestKernels

/// Indices, each as likely as its weight says; all alike where no weight is above 0.
struct Lot {
    private let sums: UnsafeMutablePointer<Double>  // up to each index
    private let count: Int

    /// Overwrites the weights.
    init(weights: UnsafeMutablePointer<Double>, count: Int) {
        var sum = 0.0
        for i in 0..<count {
            sum += weights[i]
            weights[i] = sum
        }
        if !(sum > 0 && sum.isFinite) {
            for i in 0..<count { weights[i] = Double(i &+ 1) }
        }
        sums = weights
        self.count = count
    }

    func draw(_ random: inout SplitMix64) -> Int {
        let wanted = random.unit() * sums[count &- 1]
        var low = 0, high = count &- 1
        while low < high {
            let middle = (low &+ high) / 2
            if sums[middle] < wanted { low = middle &+ 1 } else { high = middle }
        }
        return low
    }
}

// MARK: - Plan

extension Plan {
    var explores: Bool { config.method == MEST_METHOD_GSE }

    /// As many as there are connections, as far as there are others.
    func mostExplored(_ node: Node) -> Int64 { max(1, min(node.weight.capacity, node.positions / 2)) }
}

/// Where positions are drawn; offsets from the end of GradientPlaces, where the kernel's scratch is afterwards.
struct ExplorationPlaces {
    let outputs, inputs, drawn, end: Int64

    init(rows: Int64, columns: Int64, positions: Int64) {
        var cursor = Cursor(offset: 0)
        outputs = cursor.take(rows &* 8).offset
        inputs = cursor.take(columns &* 8).offset
        drawn = cursor.take(NumberSet.tableCount(positions) &* 4).offset
        end = cursor.offset
    }
}

// MARK: - During backward

extension Model {
    /// Draws of a candidate, on average, until there are fewer than wanted.
    private static var triesEach: Int { 4 }

    /// The gradients of some positions that are not connected.
    func offerSome(_ node: UnsafeMutablePointer<Node>, _ rows: SparseRows, to candidates: inout Candidates, _ pass: Pass) {
        let places = state.pointee.plan.gradientPlaces(node.pointee)
        drawPositions(node, rows, places, pass)
        computeGradient(node, places, pass)
        let start = gradientRoom(node, places.rowStart, UInt32.self)
        let column = gradientRoom(node, places.column, UInt16.self)
        let gradient = gradientRoom(node, places.gradient, Float.self)
        for r in 0..<rows.rows {
            for i in int(start[r])..<int(start[r &+ 1]) {
                candidates.offer(gradient[i], int64(r) &* int64(rows.columns) &+ int64(int(column[i])))
            }
        }
    }

    /// Their rows and columns into the index of the gradient.
    private func drawPositions(
        _ node: UnsafeMutablePointer<Node>, _ rows: SparseRows, _ places: GradientPlaces, _ pass: Pass
    ) {
        let own = ExplorationPlaces(rows: int64(rows.rows), columns: int64(rows.columns), positions: places.positions)
        let (outputs, inputs) = lots(node, places.end &+ own.outputs, places.end &+ own.inputs, pass)
        let wanted = min(rows.count, rows.rows &* rows.columns &- rows.count)
        let drawn = gradientRoom(node, places.end &+ own.drawn, UInt32.self)
        let numbers = NumberSet(wanted, in: drawn)
        let number = uint64(state.pointee.mutations &+ 1)
        var random = SplitMix64(streamKey(config.seed, .growth, layer: int(node.pointee.index), number: number))
        var found = 0, tries = Model.triesEach &* wanted
        while found < wanted && tries > 0 {
            tries &-= 1
            let r = outputs.draw(&random), c = inputs.draw(&random)
            if !rows.has(r, c) && numbers.add(rows.position(r, c)) { found &+= 1 }
        }
        found = numbers.sorted()

        let start = gradientRoom(node, places.rowStart, UInt32.self)
        let column = gradientRoom(node, places.column, UInt16.self)
        var i = 0
        for r in 0..<rows.rows {
            start[r] = uint32(i)
            let first = rows.position(r, 0), end = int64(r &+ 1) &* int64(rows.columns)
            while i < found && int64(drawn[i]) < end {
                column[i] = UInt16(truncatingIfNeeded: drawn[i] &- first)
                i &+= 1
            }
        }
        start[rows.rows] = uint32(found)
    }

    private func lots(
        _ node: UnsafeMutablePointer<Node>, _ outputs: Int64, _ inputs: Int64, _ pass: Pass
    ) -> (outputs: Lot, inputs: Lot) {
        let n = node.pointee
        let ofRows = gradientRoom(node, outputs, Double.self), ofColumns = gradientRoom(node, inputs, Double.self)
        var x = operand(int(n.from)), dy = gradientOperand(int(n.index))
        var patches = n.kind == .conv2D ? n.geometry : pixelwise(inputShape(node)), pixels = pixelwise(shape(node))
        mestk_patch_magnitudes(kernels, &pixels, &dy, pass.count, ofRows)
        mestk_patch_magnitudes(kernels, &patches, &x, pass.count, ofColumns)
        return (Lot(weights: ofRows, count: int(n.rows)), Lot(weights: ofColumns, count: int(n.columns)))
    }

    /// A convolution whose patches are single pixels.
    private func pixelwise(_ shape: mestk_shape) -> mestk_conv {
        mestk_conv(in: shape, out: shape, kernel_h: 1, kernel_w: 1, stride_h: 1, stride_w: 1, pad_h: 0, pad_w: 0)
    }
}
