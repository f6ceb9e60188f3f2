// SPDX-License-Identifier: Apache-2.0
// Lottery ticket (Frankle, Carbin 2019): rounds of mutation_every epochs. Each begins with fewer connections,
// the largest of the round before, at the values that they had in the beginning; everything else starts anew
// too. Those values are random numbers of the seed, so none is stored: they are drawn again.

import CMest
import CMestKernels

extension Plan {
    /// Density of the round that an epoch belongs to: (1 - rate)^round, not below the target.
    func lotteryDensity(_ node: Node, epoch: UInt32) -> Ratio {
        let stays = Ratio.one - Ratio(config.mutation_rate)
        var density = initialDensity(node)
        for _ in 0..<int(epoch / config.mutation_every) {
            if density.billionths <= node.density.billionths { break }
            density = density * stays
        }
        return Ratio(billionths: max(density.billionths, node.density.billionths))
    }

    /// Enough rounds for the target: the last one is its training.
    func checkRounds(_ message: Message) throws(Status) {
        if config.method != MEST_METHOD_LOTTERY || !training || config.epochs == 0 || !prunes(after: config.epochs &- 1) { return }
        throw message.start("method LOTTERY has not come down to its density after ").integer(config.epochs)
            .text(" epochs, ").integer((config.epochs &- 1) / config.mutation_every &+ 1).text(" rounds of ")
            .integer(config.mutation_every).text("; set more epochs, mutation_every lower or mutation_rate higher")
            .as(.argument)
    }

    /// Whether some layer has not come down to its target yet.
    func prunes(after epoch: UInt32) -> Bool {
        for i in 0..<count where nodes[i].sparse {
            if lotteryDensity(nodes[i], epoch: epoch).billionths > nodes[i].density.billionths { return true }
        }
        return false
    }

    /// The epoch that the schedule of the learning rate sees.
    func scheduleEpoch(_ epoch: UInt32) -> UInt32 {
        config.method == MEST_METHOD_LOTTERY ? epoch % config.mutation_every : epoch
    }

    var scheduleEpochs: UInt32 { config.method == MEST_METHOD_LOTTERY ? config.mutation_every : config.epochs }
}

extension Model {
    /// Every parameter back to its first value, its momentum and its statistics to none.
    func rewind() {
        for i in 0..<count {
            let n = nodes[i]
            if n.hasMatrix {
                if n.sparse {
                    rewindConnections(nodes + i)
                } else {
                    withScheme(n, Initialise(model: self, node: nodes + i))
                }
            }
            for c in 0..<int(n.statistics) {
                if n.weight.exists { floats(n.weight.value)[c] = 1 }
                floats(n.runningMean)[c] = 0
                floats(n.runningVariance)[c] = 1
            }
            clear(n.weight.momentum, n.weight.capacity)
            clear(n.weight.average, n.weight.capacity)
            clear(n.bias.value, n.bias.capacity)
            clear(n.bias.momentum, n.bias.capacity)
        }
    }

    private func clear(_ place: Place, _ count: Int64) {
        if place.exists { zero(place, to: Place(offset: place.offset &+ count &* 4)) }
    }

    /// As Store.initialise() drew them when all positions were connected.
    private func rewindConnections(_ node: UnsafeMutablePointer<Node>) {
        var values = FirstValues(self, node.pointee)
        values.fill(Unstructured.store(self, node).rows)
    }
}
