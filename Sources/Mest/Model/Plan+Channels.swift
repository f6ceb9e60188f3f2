// SPDX-License-Identifier: Apache-2.0
// Channels: which of them exist together, and how many. Schemes FILTER and CHANNEL drop whole channels. One
// that does not exist is stored nowhere: everything that has it is thin, and the kernels see a dense network
// of fewer channels. So it must be missing in every tensor that it would reach.
//
// A group: the outputs of a LINEAR or CONV2D and what keeps them apart, which is all but the next LINEAR and
// CONV2D: batch norm, ReLU, dropout, pools, FLATTEN (some values for a channel), depthwise convolutions; and
// ADD makes one group of two. Networks' inputs and outputs are as described: groups that reach them are not
// thin.
//
// Of a group sqrt(density) of the channels exist: a layer thin on both sides has `density` of its weights.

import CMest
import CMestKernels

extension Plan {
    /// Finds the groups and gives all that is stored its size. Nodes have the most channels there will be.
    func thinChannels(_ message: Message) throws(Status) {
        findGroups()
        try ask(message)
        for i in 0..<count where nodes[i].thin.asker >= 0 { countChannels(i) }
        for i in 0..<count where nodes[int(nodes[i].group)].thin.asker < 0 { (nodes[i].group, nodes[i].span) = (-1, 1) }
        try followAll(message)
        fitChannels(nodes, count)
        for i in 0..<count where nodes[i].group >= 0 {
            if nodes[i].bias.exists { nodes[i].bias.capacity = int64(nodes[i].channels) }
            if nodes[i].kind == .batchNorm && nodes[i].weight.exists { nodes[i].weight.capacity = int64(nodes[i].channels) }
        }
    }

    private func findGroups() {
        for i in 0..<count {
            if i == 0 || nodes[i].hasMatrix && !nodes[i].isDepthwise {
                nodes[i].group = int32(i)
                continue
            }
            let from = nodes[int(nodes[i].from)]
            nodes[i].group = from.group
            nodes[i].span = nodes[i].kind == .flatten ? from.span &* int32(from.pixels) : from.span
            if nodes[i].kind == .add { join(i, nodes[int(nodes[i].with)]) }
        }
        nodes[int(nodes[0].group)].thin.isFixed = true
        nodes[int(last.pointee.group)].thin.isFixed = true
    }

    /// Makes the groups of an addition's operands one, the one that begins first.
    private func join(_ add: Int, _ other: Node) {
        let first = min(nodes[add].group, other.group)
        let second = max(nodes[add].group, other.group)
        // Pixels of one operand are channels of the other.
        let mixes = nodes[add].span != other.span
        nodes[int(first)].thin.isFixed = nodes[int(first)].thin.isFixed || nodes[int(second)].thin.isFixed || mixes
        for i in 0...add where nodes[i].group == second { nodes[i].group = first }
    }

    /// What layers of these schemes ask of the groups that can be thin.
    private func ask(_ message: Message) throws(Status) {
        for i in 0..<count where nodes[i].isThin {
            let ofRows = int(nodes[i].scheme) == MEST_SCHEME_FILTER
            let g = int(ofRows ? nodes[i].group : nodes[int(nodes[i].from)].group)
            if nodes[g].thin.isFixed { continue }
            if nodes[g].thin.asker < 0 {
                nodes[g].thin.asker = int32(i)
                nodes[g].thin.density = nodes[i].density
            }
            if nodes[g].thin.density != nodes[i].density {
                let text = layer(i, message).text(": density is ").real(nodes[i].density.float).text(", but layer ")
                throw name(int(nodes[g].thin.asker), after: text).text(", which shares channels with it, has ")
                    .real(nodes[g].thin.density.float)
                    .text(config.distribution == MEST_DISTRIBUTION_ERK ? ", by distribution ERK; use UNIFORM" : "; give both the same")
                    .as(.argument)
            }
            if ofRows { nodes[g].thin.byRows = true } else { nodes[g].thin.byColumns = true }
        }
    }

    private func countChannels(_ g: Int) {
        nodes[g].thin.declared = nodes[g].channels
        let pool = pool(g)
        let start = initialUnits(pool)
        let most = training ? mostUnits(pool) : start
        nodes[g].thin.start = int32(start)
        nodes[g].thin.most = int32(most)
        nodes[g].thin.alive = int32(most)
        nodes[g].thin.target = int32(Plan.rounded(int64(pool.thin.declared), pool.density.squareRoot))
    }

    /// A group as the mutation schedule sees it: a layer whose units are the channels.
    func pool(_ g: Int) -> Node {
        var pool = nodes[g]
        pool.sparse = true
        pool.scheme = int32(MEST_SCHEME_FILTER)
        pool.density = pool.thin.density
        return pool
    }

    /// Dense layers become as thin as their neighbours; those of other schemes cannot.
    private func followAll(_ message: Message) throws(Status) {
        for i in 1..<count where nodes[i].hasMatrix {
            let rows = nodes[i].group, columns = nodes[i].isDepthwise ? -1 : nodes[int(nodes[i].from)].group
            if rows < 0 && columns < 0 {
                if !nodes[i].isThin { continue }
                let filter = int(nodes[i].scheme) == MEST_SCHEME_FILTER
                throw layer(i, message).text(": scheme ").text(schemeName(nodes[i].scheme)).text(" asks for fewer ")
                    .text(filter ? "outputs" : "inputs").text(", but these reach the network's own, which are complete, and no layer ")
                    .text(filter ? "asks for fewer inputs" : "asks for fewer outputs").text("; set density 1").as(.argument)
            }
            if nodes[i].sparse && !nodes[i].isThin {
                let text = layer(i, message).text(": scheme ").text(schemeName(nodes[i].scheme)).text(" beside layer ")
                throw name(int(nodes[int(rows < 0 ? columns : rows)].thin.asker), after: text)
                    .text(", which drops channels that both have, is not in this version; use that layer's scheme, or density 1")
                    .as(.unsupported)
            }
            if !nodes[i].sparse { nodes[i].scheme = int32(rows < 0 ? MEST_SCHEME_CHANNEL : MEST_SCHEME_FILTER) }
            nodes[i].sparse = true
        }
    }

    /// Channels of a node's output, thin ones as `of` counts them.
    func channels(_ n: Node, _ of: (ChannelGroup) -> Int32) -> Int64 {
        n.group < 0 ? int64(n.channels) : int64(of(nodes[int(n.group)].thin)) &* int64(n.span)
    }

    /// Weights of a dense or thin matrix.
    func weights(_ n: Node, _ of: (ChannelGroup) -> Int32) -> Int64 {
        channels(n, of) &* (n.isDepthwise ? 1 : channels(nodes[int(n.from)], of)) &* int64(n.taps)
    }
}

/// Gives every node the shape that its group's channels make now. A weight has been explored when its output and its
/// input have: as if each had met all of the other side.
func fitChannels(_ nodes: UnsafeMutablePointer<Node>, _ count: Int) {
    func explored(_ n: Node) -> Float { n.group < 0 ? 1 : 1 - nodes[int(n.group)].thin.unexplored }
    for i in 1..<count {
        let from = nodes[int(nodes[i].from)]
        let isMatrix = nodes[i].hasMatrix && !nodes[i].isDepthwise
        if nodes[i].group >= 0 {
            nodes[i].channels = nodes[int(nodes[i].group)].thin.alive &* nodes[i].span
            nodes[i].geometry.out.channels = nodes[i].channels
            if nodes[i].kind == .batchNorm { nodes[i].statistics = nodes[i].channels }
        }
        if from.group >= 0 {
            nodes[i].geometry.in.channels = from.channels
            if isMatrix { nodes[i].inputs = from.channels }
        }
        if nodes[i].isThin {
            nodes[i].units = uint32(nodes[i].storedDense)
            nodes[i].active = nodes[i].units
            nodes[i].unexplored = 1 - explored(nodes[i]) * (isMatrix ? explored(from) : 1)
        }
    }
}
