// SPDX-License-Identifier: Apache-2.0
// The initial connections of the MEST authors' code, MEST_INITIAL_MAGNITUDE: those of a dense layer whose first values
// are largest, at these values. The dense layer is drawn value by value and exists nowhere.

import CMest
import CMestKernels

extension Plan {
    var beginsWithLargest: Bool { config.initial == MEST_INITIAL_MAGNITUDE }

    /// Workspace that the largest layer's candidates need.
    func initialScratch() -> Int64 {
        if !beginsWithLargest { return 0 }
        var most: Int64 = 0
        for i in 0..<count where nodes[i].sparse { most = max(most, Candidates.bytes(int64(nodes[i].units))) }
        return aligned(most)
    }
}

extension Store {
    func initialiseLargest() {
        let wanted = int(node.pointee.units)
        var largest = Candidates(wanted: wanted, keys: model.at(model.state.pointee.plan.workspace, UInt64.self))
        var values = FirstValues(model, node.pointee)
        var position: Int64 = 0
        while position < units.positions {
            largest.offer(values.next(), position)
            position &+= 1
        }
        largest.keepLargest()
        rows.replace(with: largest.positions(), wanted)
        values.fill(rows)
        refresh()
    }
}
