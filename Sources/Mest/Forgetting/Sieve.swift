// SPDX-License-Identifier: Apache-2.0
// Sieve, circular (SpFDE: Yuan et al. 2022): a part of the samples is always out of the training set, and takes
// turns. Every sieve_every epochs the least forgotten leave, as many come back, and counting begins anew. Who left
// first comes back first: the ids of those that are out wait in a queue.

import CMest
import CMestKernels

extension mest_config {
    var sieves: Bool { sieve_absent > 0 }

    /// Samples that are out of the training set.
    var absentSamples: Int64 { Ratio(sieve_absent).round(of: int64(samples)) }

    func sieves(at epoch: UInt32) -> Bool { sieves && epoch % sieve_every == 0 }
}

extension Model {
    /// At the start of an epoch. Returns how many samples left and how many came back.
    func sieve() -> (left: UInt32, returned: UInt32) {
        let s = state
        guard let forgetting = Forgetting(self), let queue = forgetting.queue, let removed = forgetting.removed
        else { return (0, 0) }
        let before = int(config.samples &- s.pointee.trainingSamples)
        let first = before == 0
        if !first && !forgetting.knows(s.pointee.orderGiven) {
            log(MEST_LOG_WARNING) { $0.text("nothing is sieved: no sample was counted; pass ids with the batches") }
            return (0, 0)
        }
        // Of samples that nobody has seen the order is random.
        let exchanged = min(before, int(Ratio(config.sieve_share).round(of: int64(forgetting.training))))
        let number = uint32(first ? int(config.absentSamples) : exchanged)
        let rule = mest_selection(
            struct_size: 0, rule: int32(MEST_REMOVE_NUMBER), remove_count: 0, remove_number: number, remove_fraction: 0,
            keep_lowest: config.keep_lowest)
        let selection = Selection(self, forgetting, rule)
        // Whoever leaves is marked by its last answer, which the order does not ask for, and which is cleared below.
        var left = 0
        for i in 0..<forgetting.samples {
            let leaves = forgetting.inTraining(i) && !selection.keeps(i)
            forgetting.previous[i] = leaves
            if leaves { left &+= 1 }
        }
        let returned = first ? 0 : left
        for k in 0..<returned { removed[int(queue[k])] = false }
        var waiting = before &- returned
        for k in 0..<waiting { queue[k] = queue[k &+ returned] }
        let leaving = queue + waiting
        for i in 0..<forgetting.samples where forgetting.previous[i] {
            removed[i] = true
            queue[waiting] = uint32(i)
            waiting &+= 1
        }
        let order = SampleOrder(self, forgetting)
        sort(leaving, left) { order[int($0)] }
        forgetting.clear()
        s.pointee.sievings &+= 1
        s.pointee.forgotten = 0
        takeTrainingSet(of: config.samples &- uint32(waiting))
        log(MEST_LOG_INFO) {
            $0.text("epoch ").integer(s.pointee.epoch).text(": ").integer(left).text(" samples leave, ").integer(returned)
                .text(" come back, ").integer(s.pointee.trainingSamples).text(" in the training set")
        }
        return (uint32(left), uint32(returned))
    }
}
