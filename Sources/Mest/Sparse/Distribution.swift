// SPDX-License-Identifier: Apache-2.0
// Distribution: what share of its connections each layer gets that names no density of its own, and
// how many connections that is.

import CMest
import CMestKernels

extension Plan {
    /// Fills node.density of every matrix that has none, and node.sparse.
    mutating func distributeDensity() {
        let target = Ratio(config.density)
        if config.distribution == MEST_DISTRIBUTION_ERK && target != .one {
            distributeErdosRenyiKernel(target)
        } else {
            for i in 0..<count where nodes[i].hasMatrix && nodes[i].density == .zero { nodes[i].density = target }
        }
        for i in 0..<count where nodes[i].hasMatrix { nodes[i].sparse = nodes[i].density != .one }
    }

    /// Density proportional to (outputs + inputs + kernel_h + kernel_w) / (outputs * inputs * kernel_h
    /// * kernel_w), for linear layers without the kernel (Evci et al. 2020). Layers whose share would
    /// exceed 1 become dense, and the factor is found anew for the others.
    private func distributeErdosRenyiKernel(_ target: Ratio) {
        while true {
            var wanted = 0.0   // connections still to give out
            var weight = 0.0   // sum of raw_l * N_l over the layers that share them
            for i in 0..<count where nodes[i].hasMatrix && (nodes[i].density == .zero || nodes[i].distributedDense) {
                let n = mestk_double_u64(uint64(nodes[i].positions))
                wanted += n * Double(int(target.millionths)) / 1_000_000
                if nodes[i].distributedDense { wanted -= n } else { weight += erdosRenyi(nodes[i]) }
            }
            if weight == 0 { return settle(0) }
            let factor = wanted / weight
            var changed = false
            for i in 0..<count where nodes[i].hasMatrix && nodes[i].density == .zero {
                if factor * erdosRenyi(nodes[i]) > mestk_double_u64(uint64(nodes[i].positions)) {
                    nodes[i].density = .one
                    nodes[i].distributedDense = true
                    changed = true
                }
            }
            if !changed { return settle(factor) }
        }
    }

    private func settle(_ factor: Double) {
        for i in 0..<count where nodes[i].hasMatrix && nodes[i].density == .zero {
            let share = factor * erdosRenyi(nodes[i]) / mestk_double_u64(uint64(nodes[i].positions))
            let millionths = Int64(bitPattern: mestk_u64_double(share * 1_000_000 + 0.5))
            nodes[i].density = Ratio(millionths: min(1_000_000, max(1, millionths)))
        }
    }

    /// raw_l * N_l: outputs + inputs (+ kernel_h + kernel_w).
    private func erdosRenyi(_ node: Node) -> Double {
        var sum = int(node.rows) &+ int(node.columns / node.taps)
        if node.kind == .conv2D { sum &+= int(node.geometry.kernel_h &+ node.geometry.kernel_w) }
        return Double(sum)
    }

    /// Connections at the start, room for the most there will be.
    mutating func countConnections(_ message: Message) throws(Status) {
        for i in 0..<count where nodes[i].hasMatrix {
            if nodes[i].positions >= 0xffff_ffff {
                throw layer(i, message).text(": a weight matrix of ").integer(nodes[i].positions)
                    .text(" positions is larger than 2^32 - 2").as(.unsupported)
            }
            let start = initialConnections(nodes[i])
            nodes[i].active = uint32(start)
            nodes[i].weight.capacity = withScheme(
                nodes[i], Capacity(node: nodes[i], connections: training ? mostConnections(nodes[i]) : start))
            nodes[i].mostGrown = training ? mostGrown(nodes[i]) : 0
        }
    }
}
