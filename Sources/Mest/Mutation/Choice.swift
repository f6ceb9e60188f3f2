// SPDX-License-Identifier: Apache-2.0
// Methods that choose the connections once, by the batch of the first step, and then leave them: SNIP and GraSP. They
// score; the largest scores of all layers stay, as many as the targets add up to, at least one of each layer.

import CMest
import CMestKernels

extension Plan {
    var choosesOnce: Bool { config.method == MEST_METHOD_SNIP || config.method == MEST_METHOD_GRASP }
}

extension Model {
    /// Before the first step trains: the first of its passes that score.
    func beginChoice() throws(Status) -> Step.Stage {
        try poll(MEST_STAGE_MUTATE, done: 0, total: uint64(sparseLayers))
        return state.pointee.plan.scoresAll ? .dense : .here
    }

    func prepareChoice(_ stage: Step.Stage, _ pass: inout Pass) {
        if stage == .dense {
            pass.inParts = true
        } else {
            pass.temperature = temperature
            pass.adds = stage == .behind
        }
    }

    /// The pass that comes next: after the last of these the step trains.
    func finishChoicePass() throws(Status) -> Step.Stage {
        switch state.pointee.step.stage {
        case .here:
            try goAhead()
            return .ahead
        case .ahead:
            goBehind()
            return .behind
        case .behind:
            comeBack()
            try scoreCandidates()
        default: break
        }
        choose()
        return .training
    }

    /// What the pass in work has changed for its time.
    func undoChoicePass() {
        switch state.pointee.step.stage {
        case .dense: for i in 0..<count where nodes[i].sparse { Unstructured.store(self, nodes + i).refresh() }
        case .ahead, .behind: comeBack()
        default: return
        }
    }

    private func choose() {
        let scoresAll = state.pointee.plan.scoresAll
        var cut = bestScores()
        for i in 0..<count where nodes[i].sparse {
            if scoresAll { takeChosen(nodes + i, &cut) } else { keepChosen(nodes + i, &cut) }
            nodes[i].unexplored = 1 - Float(int(nodes[i].active)) / Float(int(nodes[i].positions))
        }
        state.pointee.chosen = true
        finishMutation(epoch: state.pointee.epoch)
        tellMoves()
    }

    /// The scores that stay, as keys that fall with the score. They lie where the gradients of the layers do. The best of
    /// each layer becomes infinite.
    private func bestScores() -> Cut {
        var scored: Int64 = 0, wanted: Int64 = 0
        for i in 0..<count where nodes[i].sparse {
            let score = floats(nodes[i].weight.gradient)
            var best = 0
            for j in 0..<int(nodes[i].scored) where score[j] > score[best] { best = j }
            score[best] = .infinity
            scored &+= int64(nodes[i].scored)
            wanted &+= state.pointee.plan.targetUnits(nodes[i])
        }
        return Cut(least: int(min(wanted, scored)), bits: 32) { take in
            for i in 0..<count where nodes[i].sparse {
                let score = floats(nodes[i].weight.gradient)
                for j in 0..<int(nodes[i].scored) { take(falling(score[j])) }
            }
        }
    }

    func notFinite() -> Status {
        message.start("not finite: the score of a connection; none was chosen. Give inputs of a usual size").as(.diverged)
    }
}
