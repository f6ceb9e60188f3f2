// SPDX-License-Identifier: Apache-2.0
// One threshold for all layers: as many connections leave as the layers together would drop, but the least
// important of the whole network, wherever they are. A layer keeps at least one.

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
        var leaving: Int64 = 0
        for i in first..<count where nodes[i].sparse {
            let amount = plan.amount(nodes[i], epoch: epoch, active: int64(nodes[i].units))
            leaving &+= max(0, int64(nodes[i].units) &- amount.keep)
        }
        var cut = globalCut(leaving, from: first)
        for i in first..<count where nodes[i].sparse {
            let importance = Importance(self, nodes + i)
            let n = int(nodes[i].units)
            var gone = 0
            for j in 0..<n where leaving > 0 {
                let bits = uint64(importance[j].bitPattern)
                if bits < cut.threshold {
                    gone &+= 1
                } else if bits == cut.threshold && cut.ties > 0 {
                    cut.ties &-= 1
                    gone &+= 1
                }
            }
            let amount = plan.amount(nodes[i], epoch: epoch, active: int64(n))
            let keep = int64(max(1, n &- gone))
            nodes[i].dropped = uint32(keep)
            nodes[i].grown = uint32(amount.after > amount.keep ? max(keep, amount.after) : keep)
        }
    }

    /// Of the `leaving` least important of all these layers the last one's importance, and how many of those that equal it
    /// are among them, in the order of the layers.
    private func globalCut(_ leaving: Int64, from first: Int) -> (threshold: UInt64, ties: Int64) {
        if leaving == 0 { return (0, 0) }
        let (threshold, smaller) = select(rank: int(leaving &- 1), bits: 32) { take in
            for i in first..<count where nodes[i].sparse {
                let importance = Importance(self, nodes + i)
                for j in 0..<int(nodes[i].units) { take(uint64(importance[j].bitPattern)) }
            }
        }
        return (threshold, leaving &- int64(smaller))
    }
}
