// SPDX-License-Identifier: Apache-2.0
// Selection: which samples a rule would take out of the training set. SampleOrder says who comes first; the
// cuts are found by radix over its numbers. Nothing is sorted, and nothing is stored but one cut a class
// where a class may give a share of its samples only.

import CMest
import CMestKernels

struct Selection {
    private let forgetting: Forgetting
    private let order: SampleOrder
    private let capped: Bool
    private var low: UInt64 = 0   // removed: low <= number < high, unless the class has given its share
    private var high: UInt64 = 0

    init(_ model: Model, _ forgetting: Forgetting, _ rule: mest_selection) {
        self.forgetting = forgetting
        order = SampleOrder(model, forgetting)
        let share = model.config.remove_class_cap
        capped = share > 0
        let remaining = forgetting.training
        if rule.rule == MEST_REMOVE_NONE || remaining == 0 { return }
        if int64(rule.keep_lowest) >= int64(remaining) { return }
        low = cut(int(rule.keep_lowest)) { forgetting.inTraining($0) }
        if capped { findCuts(Ratio(share)) }
        switch int(rule.rule) {
        case MEST_REMOVE_COUNT:
            high = uint64(int(min(rule.remove_count, uint32(int(Forgetting.most))))) &<< 56 &+ 1 &<< 56
        case MEST_REMOVE_NUMBER:
            high = cut(int(min(int64(rule.remove_number), int64(remaining)))) { mayLeave($0) }
        default:
            high = cut(int(Ratio(rule.remove_fraction).round(of: int64(remaining)))) { mayLeave($0) }
        }
    }

    /// Whether sample i is in the training set and stays there.
    func keeps(_ i: Int) -> Bool { forgetting.inTraining(i) && !(mayLeave(i) && order[i] < high) }

    /// Behind those that stay whatever the rule, and before what its class keeps.
    private func mayLeave(_ i: Int) -> Bool {
        if !forgetting.inTraining(i) || order[i] < low { return false }
        guard capped, let classes = forgetting.classes else { return true }
        let label = classes.label[i]
        return label != Classes.unknown && order[i] < classes.cut[int(label)].first
    }

    /// The number of the sample with `rank` chosen ones before it; .max when there are no more.
    private func cut(_ rank: Int, chosen: (Int) -> Bool) -> UInt64 {
        if rank >= forgetting.samples { return .max }
        return select(rank: rank, of: forgetting.samples, bits: 64) { chosen($0) ? order[$0] : .max }.key
    }

    /// Of each class the first that stays, as it gives at most `share` of its samples: all classes bit by bit, as
    /// `select` finds one cut byte by byte. O(64 samples), whatever the number of classes.
    private func findCuts(_ share: Ratio) {
        guard let classes = forgetting.classes else { return }
        for c in 0..<classes.count { classes.cut[c] = ClassCut(first: 0, rank: 0, counted: 0) }
        count(classes) { _ in true }
        for c in 0..<classes.count { classes.cut[c].rank = uint32(share.floor(of: int64(classes.cut[c].counted))) }
        var bit: UInt64 = 1 &<< 63
        while bit > 0 {
            count(classes) { order[$0] >= low && (order[$0] ^ classes.cut[int(classes.label[$0])].first) & (0 &- bit) == 0 }
            for c in 0..<classes.count where classes.cut[c].rank >= classes.cut[c].counted {
                classes.cut[c].rank &-= classes.cut[c].counted
                classes.cut[c].first |= bit
            }
            bit &>>= 1
        }
    }

    /// Counts the chosen samples of each class that are in the training set.
    private func count(_ classes: Classes, _ chosen: (Int) -> Bool) {
        for c in 0..<classes.count { classes.cut[c].counted = 0 }
        for i in 0..<forgetting.samples
        where classes.label[i] != Classes.unknown && forgetting.inTraining(i) && chosen(i) {
            classes.cut[int(classes.label[i])].counted &+= 1
        }
    }
}
