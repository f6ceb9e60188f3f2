// SPDX-License-Identifier: Apache-2.0
// Distribution: what share of its connections each layer gets that names no density of its own.

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
    /// exceed 1, or what their scheme allows, get just that, and the factor is found anew for the others.
    private func distributeErdosRenyiKernel(_ target: Ratio) {
        while true {
            var wanted = 0.0   // connections still to give out
            var weight = 0.0   // sum of raw_l * N_l over the layers that share them
            for i in 0..<count where nodes[i].hasMatrix && (nodes[i].density == .zero || nodes[i].distributedFull) {
                let n = mestk_double_u64(uint64(nodes[i].positions))
                wanted += n * Double(int(target.billionths)) / 1e9
                if nodes[i].distributedFull { wanted -= n * densest(nodes[i]) } else { weight += erdosRenyi(nodes[i]) }
            }
            if weight == 0 { return settle(0) }
            let factor = wanted / weight
            var changed = false
            for i in 0..<count where nodes[i].hasMatrix && nodes[i].density == .zero {
                if factor * erdosRenyi(nodes[i]) > densest(nodes[i]) * mestk_double_u64(uint64(nodes[i].positions)) {
                    nodes[i].density = withSparseScheme(nodes[i].scheme, Densest())
                    nodes[i].distributedFull = true
                    changed = true
                }
            }
            if !changed { return settle(factor) }
        }
    }

    private func settle(_ factor: Double) {
        for i in 0..<count where nodes[i].hasMatrix && nodes[i].density == .zero {
            let share = factor * erdosRenyi(nodes[i]) / mestk_double_u64(uint64(nodes[i].positions))
            let billionths = int64(mestk_u64_double(share * 1e9 + 0.5))
            nodes[i].density = Ratio(billionths: min(1_000_000_000, max(1, billionths)))
        }
    }

    private func densest(_ node: Node) -> Double {
        Double(int(withSparseScheme(node.scheme, Densest()).billionths)) / 1e9
    }

    /// raw_l * N_l: outputs + inputs (+ kernel_h + kernel_w).
    private func erdosRenyi(_ node: Node) -> Double {
        var sum = int(node.rows) &+ int(node.columns / node.taps)
        if node.kind == .conv2D { sum &+= int(node.geometry.kernel_h &+ node.geometry.kernel_w) }
        return Double(sum)
    }
}
