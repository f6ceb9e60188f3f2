// SPDX-License-Identifier: Apache-2.0
// Describe: mest_layer[] to nodes: who feeds whom, shapes, weight matrices, densities.

import CMest
import CMestKernels

extension Plan {
    /// Most values of one sample in one layer; keeps every later size below 2^63.
    static let maxElements: Int64 = 268_435_456  // 2^28

    mutating func describe(_ layers: CallersArray<mest_layer>, _ message: Message) throws(Status) {
        for i in 0..<count {
            try describe(layers[i], i, message)
        }
        for i in 0..<(count &- 1) where nodes[i].consumers == 0 {
            throw layer(i, message).text(" leads nowhere: no later layer takes its output").as(.shape)
        }
        if last.pointee.pixels != 1 {
            throw layer(count &- 1, message).text(" is the output and has ").integer(last.pointee.height).text(" x ")
                .integer(last.pointee.width).text(" pixels; end with GLOBAL_AVG_POOL or FLATTEN, then LINEAR").as(.shape)
        }
        if last.pointee.format != int32(MESTK_F32) {
            throw layer(count &- 1, message)
                .text(" is the output and a picture of one pixel, stored as bf16; put FLATTEN behind it").as(.shape)
        }
        if !last.pointee.trains && training {
            throw message.start("no layer has weights: add LINEAR or CONV2D").as(.shape)
        }
    }

    /// Mutation needs something that can move.
    func checkMutation(_ message: Message) throws(Status) {
        if config.method == MEST_METHOD_STATIC || !training { return }
        var sparse = false
        let needed = neededScheme
        for i in 0..<count where nodes[i].sparse {
            sparse = true
            if needed == MEST_SCHEME_DEFAULT || int(nodes[i].scheme) == needed { continue }
            let named = growsByGradient || sharesOut || ranksLayers || choosesOnce || config.method == MEST_METHOD_LOTTERY
            throw layer(i, message).text(named ? ": method " : ": ")
                .text(named ? methodName(config.method) ?? "" : "MEST_MUTATION_GLOBAL").text(" needs scheme ")
                .text(schemeName(int32(needed))).text(", this layer's is ")
                .text(nodes[i].isThin ? "FILTER or CHANNEL" : schemeName(nodes[i].scheme)).as(.unsupported)
        }
        if !sparse {
            throw message.start("method moves connections, but every layer is dense: set density below 1, or method STATIC")
                .as(.argument)
        }
        if config.method == MEST_METHOD_EMS && !anyHasRoom {
            throw message.start("method EMS grows above the density, and no layer's scheme can have more; use EM, or a lower density")
                .as(.argument)
        }
    }

    /// Whether EM&S can grow some layer above its target.
    private var anyHasRoom: Bool {
        for i in 0..<count where nodes[i].sparse {
            let levels = levels(nodes[i], epoch: 0)
            if levels.high.billionths > levels.low.billionths { return true }
        }
        return false
    }

    /// Magnitudes are of single weights, and of some that exist.
    func checkInitial(_ message: Message) throws(Status) {
        if config.initial == MEST_INITIAL_RANDOM { return }
        var sparse = false
        for i in 0..<count where nodes[i].sparse {
            sparse = true
            if int(nodes[i].scheme) == MEST_SCHEME_UNSTRUCTURED { continue }
            throw layer(i, message).text(": initial MAGNITUDE compares single weights, scheme ")
                .text(schemeName(nodes[i].scheme)).text(" has none; use UNSTRUCTURED").as(.unsupported)
        }
        if sparse { return }
        throw message.start("initial is MAGNITUDE, but every layer is dense: set density below 1, or initial RANDOM").as(.argument)
    }

    /// The only scheme that the method moves: DEFAULT where it moves all. Single weights wherever they are, or as
    /// many in every row.
    private var neededScheme: Int {
        if ranksLayers { return MEST_SCHEME_FAN_IN }
        return growsByGradient || sharesOut || choosesOnce || thresholdIsGlobal ? MEST_SCHEME_UNSTRUCTURED : MEST_SCHEME_DEFAULT
    }

    /// A scheme that was chosen must be able to have the density, and must have something to do.
    func checkDensities(_ layers: CallersArray<mest_layer>, _ message: Message) throws(Status) {
        var sparse = false
        for i in 0..<count where nodes[i].hasMatrix {
            let n = nodes[i]
            sparse = sparse || n.sparse
            if int(layers[i].scheme) > MEST_SCHEME_UNSTRUCTURED && !n.sparse && !n.distributedFull {
                throw layer(i, message).text(": scheme is set, but the layer is dense: set density below 1").as(.argument)
            }
            let densest = withSparseScheme(n.scheme, Densest())
            // Densities are whole billionths, 4/9 is none.
            if n.sparse && n.density.billionths > densest.billionths &+ 1000 {
                throw layer(i, message).text(": density is ").real(n.density.float).text(", scheme ").text(schemeName(n.scheme))
                    .text(" has at most ").real(densest.float).as(.argument)
            }
            let thins = config.method == MEST_METHOD_GMP || config.method == MEST_METHOD_GRASP
            let given = config.initial_density
            if n.sparse && thins && given > 0 && n.density.billionths > Ratio(given).billionths {
                throw layer(i, message).text(": density is ").real(n.density.float).text(", above initial_density, ")
                    .real(given).text("; the method grows nothing").as(.argument)
            }
        }
        if int(config.scheme) > MEST_SCHEME_UNSTRUCTURED && !sparse {
            throw message.start("scheme is set, but every layer is dense: set density below 1").as(.argument)
        }
    }

    private mutating func describe(_ layer: mest_layer, _ i: Int, _ message: Message) throws(Status) {
        (nodes + i).initialize(to: Node(kind: .input, index: int32(i)))
        guard let kind = Kind(rawValue: layer.kind) else {
            throw self.layer(i, message).text(": kind is ").integer(layer.kind)
                .text(", which this version does not know; use MEST_LAYER_*").as(.argument)
        }
        if (i == 0) != (kind == .input) {
            throw self.layer(i, message).text(": the first layer, and no other, is INPUT").as(.shape)
        }
        nodes[i].name = layerName(layer, i)
        nodes[i].kind = kind
        var node = nodes[i]
        try checkFields(layer, kind, i, message)
        if i > 0 {
            node.from = try producer(layer.from, of: i, message)
            node.trains = nodes[int(node.from)].trains
            if kind == .add {
                if layer.with == 0 {
                    throw self.layer(i, message).text(": ADD needs `with`, the second operand").as(.argument)
                }
                node.with = try producer(layer.with, of: i, message)
                node.trains = node.trains || nodes[int(node.with)].trains
            }
        }
        nodes[i] = node
        try withLayer(kind, Describe(plan: self, node: nodes + i, layer: layer, message: message))

        if nodes[i].elements > Plan.maxElements || nodes[i].elements <= 0 {
            throw self.layer(i, message).text(": output ").integer(nodes[i].channels).text(" x ").integer(nodes[i].height)
                .text(" x ").integer(nodes[i].width).text(" is larger than 2^28 values a sample").as(.shape)
        }
        if nodes[i].weight.exists || nodes[i].bias.exists { nodes[i].trains = true }
        if node.from >= 0 { nodes[int(node.from)].consumers &+= 1 }
        if node.with >= 0 { nodes[int(node.with)].consumers &+= 1 }
    }

    /// A field set that the kind does not have is a slip: a mistyped kind, a line in the wrong place.
    private func checkFields(_ layer: mest_layer, _ kind: Kind, _ i: Int, _ message: Message) throws(Status) {
        let matrix = kind == .linear || kind == .conv2D
        let window = kind == .conv2D || kind == .maxPool || kind == .avgPool
        let stray: StaticString?
        if layer.channels != 0 && !(matrix || kind == .input) { stray = "channels" }
        else if (layer.height | layer.width) != 0 && kind != .input { stray = "height or width" }
        else if (layer.kernel_h | layer.kernel_w) != 0 && !window { stray = "kernel" }
        else if (layer.stride_h | layer.stride_w) != 0 && !window { stray = "stride" }
        else if (layer.pad_h | layer.pad_w) != 0 && !window { stray = "pad" }
        else if (layer.dilation_h | layer.dilation_w) != 0 && kind != .conv2D { stray = "dilation" }
        else if layer.groups != 0 && kind != .conv2D { stray = "groups" }
        else if layer.flags != 0 && !(matrix || kind == .batchNorm) { stray = "flags" }
        else if layer.scheme != 0 && !matrix { stray = "scheme" }
        else if layer.density != 0 && !matrix { stray = "density" }
        else if (layer.momentum != 0 || layer.epsilon != 0) && kind != .batchNorm { stray = "momentum or epsilon" }
        else if layer.rate != 0 && kind != .dropout { stray = "rate" }
        else if layer.with != 0 && kind != .add { stray = "with" }
        else if layer.from != 0 && kind == .input { stray = "from" }
        else { stray = nil }
        if let stray {
            throw self.layer(i, message).text(": ").text(stray).text(" is set, which ").text(kind.word)
                .text(" does not have").as(.argument)
        }
    }

    private func producer(_ given: Int32, of i: Int, _ message: Message) throws(Status) -> Int32 {
        if given == 0 { return int32(i &- 1) }
        if given == MEST_FROM_INPUT { return 0 }
        if given < 0 || int(given) >= i {
            throw layer(i, message).text(" takes the output of layer ").integer(given)
                .text("; use an earlier layer").as(.shape)
        }
        return given
    }

    /// Matrix of a weighted layer: shared by LINEAR and CONV2D.
    func describeMatrix(
        _ node: inout Node, _ layer: mest_layer, inputs: Int32, taps: Int32, _ message: Message
    ) throws(Status) {
        let i = int(node.index)
        if layer.channels == 0 || layer.channels > 65536 {
            throw self.layer(i, message).text(": channels is ").integer(layer.channels).text("; use 1 to 65536").as(.argument)
        }
        if layer.scheme < 0 || int(layer.scheme) > MEST_SCHEME_ROW16 {
            throw self.layer(i, message).text(": scheme is ").integer(layer.scheme)
                .text(", which this version does not know; use MEST_SCHEME_*").as(.unsupported)
        }
        if layer.density != 0 && !validDensity(layer.density) {
            throw self.layer(i, message).text(": density is ").real(layer.density).text("; use 0.000001 to 1, or 0 for the config's").as(.argument)
        }
        if layer.flags & ~UInt32(MEST_FLAG_NO_BIAS) != 0 {
            throw self.layer(i, message).text(": flags are ").integer(layer.flags).text("; ").text(node.kind.word)
                .text(" has MEST_FLAG_NO_BIAS alone").as(.argument)
        }
        node.channels = int32(layer.channels)
        node.rows = node.channels
        node.taps = taps
        node.columns = inputs &* taps
        node.inputs = inputs
        if int64(inputs) &* int64(taps) > 65536 || int64(node.rows) &* int64(taps) > 65536 {
            throw self.layer(i, message).text(": a weight matrix of ").integer(node.rows).text(" x ")
                .integer(int64(inputs) &* int64(taps)).text(" is wider than 65536 (inputs * kernel, outputs * kernel)").as(.unsupported)
        }
        node.flags = layer.flags
        node.scheme = layer.scheme == MEST_SCHEME_DEFAULT ? config.scheme : layer.scheme
        let threeByThree = node.kind == .conv2D && node.geometry.kernel_h == 3 && node.geometry.kernel_w == 3
        if node.scheme == MEST_SCHEME_PATTERN && !threeByThree { node.scheme = int32(MEST_SCHEME_FAN_IN) }
        // Millionths; zero stands for "as distributed" until distributeDensity().
        node.density = layer.density == 0 ? .zero : Ratio(layer.density)
        node.weight.capacity = node.positions
        if layer.flags & UInt32(MEST_FLAG_NO_BIAS) == 0 { node.bias.capacity = int64(node.rows) }
    }

    /// "layer 3 (conv1)", the beginning of every message about a layer.
    func layer(_ i: Int, _ message: Message) -> Message { name(i, after: message.start("layer ")) }

    /// "3 (conv1)"
    func name(_ i: Int, after text: Message) -> Message {
        let text = text.integer(i)
        return withUnsafeBytes(of: nodes[i].name) { name in
            guard let start = name.baseAddress, start.load(as: UInt8.self) != 0 else { return text }
            return text.text(" (").text(start, limit: name.count).text(")")
        }
    }

    /// The given name, or the kind in lower case and the index: "conv3".
    private func layerName(_ layer: mest_layer, _ i: Int) -> (UInt64, UInt64, UInt64) {
        var name: (UInt64, UInt64, UInt64) = (0, 0, 0)
        var given = layer.name
        withUnsafeMutableBytes(of: &name) { to in
            withUnsafeBytes(of: &given) { from in
                var n = 0
                while n < to.count &- 1 && from[n] != 0 {
                    to[n] = from[n]
                    n &+= 1
                }
                if n > 0 { return }
                let kind = kindName(layer.kind)
                for j in 0..<kind.utf8CodeUnitCount { to[j] = kind.utf8Start[j] }
                var digits = 1
                var rest = i
                while rest >= 10 {
                    digits &+= 1
                    rest /= 10
                }
                rest = i
                for d in 0..<digits {
                    to[kind.utf8CodeUnitCount &+ digits &- 1 &- d] = uint8(48 &+ rest % 10)
                    rest /= 10
                }
            }
        }
        return name
    }

    private func kindName(_ kind: Int32) -> StaticString {
        switch Kind(rawValue: kind) {
        case .input: return "input"
        case .linear: return "linear"
        case .conv2D: return "conv"
        case .batchNorm: return "norm"
        case .relu: return "relu"
        case .maxPool: return "maxpool"
        case .avgPool: return "avgpool"
        case .globalAvgPool: return "globalpool"
        case .add: return "add"
        case .flatten: return "flatten"
        case .dropout: return "dropout"
        case nil: return "layer"
        }
    }
}
