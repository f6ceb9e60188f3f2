// SPDX-License-Identifier: Apache-2.0
// Operands: what the kernels read for a node's output or its gradient, stored or virtual.
//
// Floats per channel that they need:
//   Node.constants          BATCH_NORM: a, b; ADD: b of both batch norms added, when it adds two
//   Node.gradientConstants  BATCH_NORM: a, b, c of its gradient, in the workspace

import CMest
import CMestKernels

extension Plan {
    /// Arrays of `channels` floats that node i keeps.
    func constants(_ n: Node) -> Int64 {
        switch n.kind {
        case .batchNorm: return 2
        case .add: return nodes[int(n.from)].isVirtual && nodes[int(n.with)].isVirtual ? 1 : 0
        default: return 0
        }
    }

    /// Bytes of a tensor's sums: [strip][channel][2] doubles.
    func sumBytes(_ n: Node) -> Int64 {
        int64(mestk_strips(n.shape(lanes: lanes, blocks: blocks))) &* int64(n.channels) &* 16
    }
}

extension Model {
    enum Constant: Int { case a, b, c }

    func constant(_ i: Int, _ which: Constant) -> UnsafeMutablePointer<Float> {
        floats(nodes[i].constants) + which.rawValue &* int(nodes[i].channels)
    }

    func gradientConstant(_ i: Int, _ which: Constant) -> UnsafeMutablePointer<Float> {
        floats(nodes[i].gradientConstants) + which.rawValue &* int(nodes[i].channels)
    }

    func raw(_ place: Place) -> UnsafeMutableRawPointer { base + int(place.offset) }
    func optionalRaw(_ place: Place) -> UnsafeMutableRawPointer? { place.exists ? raw(place) : nil }

    /// The output of node i.
    func operand(_ i: Int) -> mestk_operand {
        var v = mestk_operand()
        let from = int(nodes[i].from)
        if !nodes[i].isVirtual {
            v.x = UnsafeRawPointer(raw(nodes[i].output))
        } else if nodes[i].kind == .batchNorm {
            v.x = UnsafeRawPointer(raw(nodes[from].output))
            v.a = UnsafePointer(constant(i, .a))
            v.b = UnsafePointer(constant(i, .b))
        } else if nodes[i].kind == .relu {
            v = operand(from)
            v.relu = 1
        } else {
            v = sum(i)
        }
        return v
    }

    /// from + with of an addition: the first term is the scaled one, where there is one.
    func sum(_ i: Int) -> mestk_operand {
        let first = operand(int(nodes[i].from)), second = operand(int(nodes[i].with))
        var v = first.a == nil ? second : first
        let r = first.a == nil ? first : second
        v.r = r.x
        v.c = r.a
        if r.a != nil { v.b = UnsafePointer(floats(nodes[i].constants)) }
        return v
    }

    /// The gradient of node i's output.
    func gradientOperand(_ i: Int) -> mestk_operand {
        var v = mestk_operand()
        let n = nodes[i]
        if !n.gradientVirtual {
            v.x = UnsafeRawPointer(raw(n.gradient))
            return v
        }
        return normGradient(int(n.normedBy))
    }

    /// Batch norm backward.
    func normGradient(_ i: Int) -> mestk_operand {
        var v = mestk_operand()
        v.x = UnsafeRawPointer(raw(nodes[i].gradient))
        v.a = UnsafePointer(gradientConstant(i, .a))
        v.b = UnsafePointer(gradientConstant(i, .b))
        v.r = UnsafeRawPointer(raw(nodes[int(nodes[i].from)].output))
        v.c = UnsafePointer(gradientConstant(i, .c))
        return v
    }

    /// How node `by` completes the gradient of node i's output.
    func completes(_ i: Int, by: Int, accumulate: Bool) -> mestk_gradient {
        var g = mestk_gradient()
        guard let dx = optionalRaw(nodes[i].gradient) else { return g }
        g.dx = dx
        g.accumulate = adds(accumulate)
        var behind = i
        if nodes[i].kind == .relu && (i == by || int(nodes[i].finishedBy) == by) {
            g.masked = 1
            behind = int(nodes[i].from)
        }
        addSums(&g, behind, by)
        if nodes[behind].kind == .add {
            addSums(&g, int(nodes[behind].from), by)
            addSums(&g, int(nodes[behind].with), by)
        }
        return g
    }

    private func addSums(_ g: inout mestk_gradient, _ i: Int, _ by: Int) {
        if nodes[i].kind != .batchNorm || int(nodes[i].summedBy) != by { return }
        let normed = UnsafeRawPointer(raw(nodes[int(nodes[i].from)].output))
        let sums = at(nodes[i].backwardSums, Double.self)
        if g.normed.0 == nil {
            g.normed.0 = normed
            g.sums.0 = sums
        } else {
            g.normed.1 = normed
            g.sums.1 = sums
        }
    }
}
