// SPDX-License-Identifier: Apache-2.0
// One threshold for all layers: together they keep what their shares add up to, the most important of the whole
// network, wherever they are. A layer keeps at least one.

import CMest
import CMestKernels

extension Plan {
    var thresholdIsGlobal: Bool {
        config.mutation_flags & UInt32(MEST_MUTATION_GLOBAL) != 0 || config.method == MEST_METHOD_LOTTERY
    }
}

extension Model {
    /// What every sparse layer from `first` on keeps and has afterwards: in its `dropped` and `grown`, until it mutates.
    func cutGlobally(epoch: UInt32, from first: Int) {
        let plan = state.pointee.plan
        var leaving: Int64 = 0  // a layer that is below its share spares the others as many
        for i in first..<count where nodes[i].sparse {
            let amount = plan.amount(nodes[i], epoch: epoch, active: int64(nodes[i].units))
            leaving &+= int64(nodes[i].units) &- amount.keep
        }
        var cut = leastImportant(int(max(0, leaving)), from: first)
        for i in first..<count where nodes[i].sparse {
            let importance = Importance(self, nodes + i)
            let n = int(nodes[i].units)
            var gone = 0
            for j in 0..<n where cut.takes(uint64(importance[j].bitPattern)) { gone &+= 1 }
            let amount = plan.amount(nodes[i], epoch: epoch, active: int64(n))
            let keep = int64(max(1, n &- gone))
            nodes[i].dropped = uint32(keep)
            nodes[i].grown = uint32(amount.after > amount.keep ? max(keep, amount.after) : keep)
        }
    }

    /// Of all these layers; of equal ones those of earlier layers.
    private func leastImportant(_ leaving: Int, from first: Int) -> Cut {
        Cut(least: leaving, bits: 32) { take in
            for i in first..<count where nodes[i].sparse {
                let importance = Importance(self, nodes + i)
                for j in 0..<int(nodes[i].units) { take(uint64(importance[j].bitPattern)) }
            }
        }
    }
}
