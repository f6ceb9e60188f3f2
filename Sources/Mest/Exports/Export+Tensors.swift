// SPDX-License-Identifier: Apache-2.0
// Tensor access and compressed sparse rows.

import CMest
import CMestKernels

/// A tensor of a layer, found by its constant. Weights of a sparse layer are seen row by row, whatever
/// the order they are stored in; of one value a channel, channels that do not exist read as `absent`.
private struct Found {
    let values: UnsafeMutablePointer<Float>
    let count: Int64
    let readOnly: Bool
    let sparse: Bool
    let absent: Float
    let model: Model
    let node: UnsafeMutablePointer<Node>

    func copy(to out: UnsafeMutablePointer<Float>) {
        if sparse { return copyValues(model, node, stored: values, out: out) }
        let channels = ChannelIds(model, node.pointee)
        for i in 0..<int(count) { out[i] = channels.stored(i).map { values[$0] } ?? absent }
    }

    func copy(from: UnsafePointer<Float>) {
        if sparse { return copyValues(model, node, stored: values, from: from) }
        let channels = ChannelIds(model, node.pointee)
        for i in 0..<int(count) {
            if let c = channels.stored(i) { values[c] = from[i] }
        }
    }
}

private func find(_ model: Model, _ layer: UInt32, _ tensor: Int32) throws(Status) -> Found {
    let node = try node(model, layer)
    let n = node.pointee
    let matrix = n.hasMatrix
    let weights = n.sparse ? int64(n.active) : n.weight.capacity
    var place = Place.none
    var count = model.state.pointee.plan.channels(n) { $0.declared }
    switch int(tensor) {
    case MEST_TENSOR_WEIGHT: (place, count) = (matrix ? n.weight.value : .none, weights)
    case MEST_TENSOR_WEIGHT_GRADIENT: (place, count) = (matrix ? n.weight.gradient : .none, weights)
    case MEST_TENSOR_WEIGHT_MOMENTUM: (place, count) = (matrix ? n.weight.momentum : .none, weights)
    case MEST_TENSOR_BIAS: place = n.bias.value
    case MEST_TENSOR_BIAS_GRADIENT: place = n.bias.gradient
    case MEST_TENSOR_BIAS_MOMENTUM: place = n.bias.momentum
    case MEST_TENSOR_SCALE: place = matrix ? .none : n.weight.value
    case MEST_TENSOR_SCALE_GRADIENT: place = matrix ? .none : n.weight.gradient
    case MEST_TENSOR_SCALE_MOMENTUM: place = matrix ? .none : n.weight.momentum
    case MEST_TENSOR_RUNNING_MEAN: place = n.runningMean
    case MEST_TENSOR_RUNNING_VAR: place = n.runningVariance
    default: throw model.message.start("tensor ").integer(tensor).text(" is unknown; use MEST_TENSOR_*").as(.argument)
    }
    if !place.exists {
        throw model.state.pointee.plan.layer(int(layer), model.message).text(" has no tensor ").text(tensorName(tensor))
            .text(" (kind, flags or inference_only)").as(.argument)
    }
    let gradient = int(tensor) == MEST_TENSOR_WEIGHT_GRADIENT || int(tensor) == MEST_TENSOR_BIAS_GRADIENT
        || int(tensor) == MEST_TENSOR_SCALE_GRADIENT
    let weight = int(tensor) == MEST_TENSOR_WEIGHT || int(tensor) == MEST_TENSOR_WEIGHT_GRADIENT
        || int(tensor) == MEST_TENSOR_WEIGHT_MOMENTUM
    let absent: Float = int(tensor) == MEST_TENSOR_SCALE || int(tensor) == MEST_TENSOR_RUNNING_VAR ? 1 : 0
    return Found(
        values: model.floats(place), count: count, readOnly: gradient, sparse: weight && n.sparse, absent: absent,
        model: model, node: node)
}

/// As messages name it: MEST_TENSOR_* without the prefix.
private func tensorName(_ tensor: Int32) -> StaticString {
    switch int(tensor) {
    case MEST_TENSOR_WEIGHT: return "WEIGHT"
    case MEST_TENSOR_WEIGHT_GRADIENT: return "WEIGHT_GRADIENT"
    case MEST_TENSOR_WEIGHT_MOMENTUM: return "WEIGHT_MOMENTUM"
    case MEST_TENSOR_BIAS: return "BIAS"
    case MEST_TENSOR_BIAS_GRADIENT: return "BIAS_GRADIENT"
    case MEST_TENSOR_BIAS_MOMENTUM: return "BIAS_MOMENTUM"
    case MEST_TENSOR_SCALE: return "SCALE"
    case MEST_TENSOR_SCALE_GRADIENT: return "SCALE_GRADIENT"
    case MEST_TENSOR_SCALE_MOMENTUM: return "SCALE_MOMENTUM"
    case MEST_TENSOR_RUNNING_MEAN: return "RUNNING_MEAN"
    default: return "RUNNING_VAR"
    }
}

private func node(_ model: Model, _ layer: UInt32) throws(Status) -> UnsafeMutablePointer<Node> {
    if layer >= uint32(model.count) {
        throw model.message.start("layer ").integer(layer).text(" does not exist; the last is ").integer(model.count &- 1)
            .as(.argument)
    }
    return model.nodes + int(layer)
}

@c @implementation
public func mest_model_tensor_size(
    _ model: OpaquePointer?, _ layer: UInt32, _ tensor: Int32, _ out_count: UnsafeMutablePointer<UInt64>?
) -> Int32 {
    call(model) { (model) throws(Status) in
        guard let out_count else { throw null("out_count", model.message) }
        out_count.pointee = uint64(try find(model, layer, tensor).count)
    }
}

@c @implementation
public func mest_model_tensor_get(
    _ model: OpaquePointer?, _ layer: UInt32, _ tensor: Int32, _ out: UnsafeMutablePointer<Float>?, _ count: UInt64
) -> Int32 {
    call(model) { (model) throws(Status) in
        let found = try find(model, layer, tensor)
        guard let out else { throw null("out", model.message) }
        try checkCount(count, found, model)
        found.copy(to: out)
    }
}

@c @implementation
public func mest_model_tensor_set(
    _ model: OpaquePointer?, _ layer: UInt32, _ tensor: Int32, _ values: UnsafePointer<Float>?, _ count: UInt64
) -> Int32 {
    call(model) { (model) throws(Status) in
        let found = try find(model, layer, tensor)
        guard let values else { throw null("values", model.message) }
        if found.readOnly { throw model.message.start("gradients cannot be set").as(.argument) }
        try checkCount(count, found, model)
        try model.checkFinite(values, found.count, "values")
        if int(tensor) == MEST_TENSOR_RUNNING_VAR {
            for i in 0..<int(found.count) where values[i] < 0 {
                throw model.message.start("values: ").real(values[i]).text(" is no variance").as(.argument)
            }
        }
        found.copy(from: values)
        // Momentum is that of connections that train already: nobody chooses others.
        if found.sparse && int(tensor) == MEST_TENSOR_WEIGHT_MOMENTUM { model.state.pointee.chosen = true }
    }
}

private func checkCount(_ count: UInt64, _ found: Found, _ model: Model) throws(Status) {
    if count != uint64(found.count) {
        throw model.message.start("count is ").natural(count).text(", the tensor has ").integer(found.count).text(" values")
            .as(.argument)
    }
}

// MARK: - Compressed sparse rows

private func sparseNode(_ model: Model, _ layer: UInt32) throws(Status) -> UnsafeMutablePointer<Node> {
    let node = try node(model, layer)
    if !node.pointee.sparse {
        throw model.state.pointee.plan.layer(int(layer), model.message)
            .text(" is not sparse; use mest_model_tensor_get").as(.argument)
    }
    return node
}

@c @implementation
public func mest_model_csr_get(
    _ model: OpaquePointer?, _ layer: UInt32, _ out_csr: UnsafeMutablePointer<mest_csr>?
) -> Int32 {
    call(model) { (model) throws(Status) in
        let node = try sparseNode(model, layer)
        guard let out_csr else { throw null("out_csr", model.message) }
        let given = try read(UnsafePointer(out_csr), "out_csr", model.message)
        let n = node.pointee
        let rows = int(n.rows)
        var csr = mest_csr()
        csr.rows = uint32(n.rows)
        csr.columns = uint32(n.columns)
        csr.count = n.active
        csr.capacity = uint32(n.weight.capacity)
        csr.buffer = given.buffer  // the caller's, so that one struct serves layer after layer
        let momentum = model.optional(n.weight.momentum)
        if n.unit == 1 && !n.isThin {
            csr.buffer_bytes = csr.buffer == nil ? 0 : given.buffer_bytes
            csr.row_start = UnsafePointer(model.at(n.connections.rowStart, UInt32.self))
            csr.column = UnsafePointer(model.at(n.connections.column, UInt16.self))
            csr.value = UnsafePointer(model.floats(n.weight.value))
            csr.momentum = momentum.map { UnsafePointer($0) }
            write(csr, to: out_csr)
            return
        }
        // Row starts, values, momentum, columns: in the caller's memory.
        let count = int64(n.active)
        let need = uint64(int64(rows &+ 1) &* 4 &+ count &* (momentum == nil ? 6 : 10))
        csr.buffer_bytes = max(need, given.buffer_bytes)
        guard let buffer = csr.buffer else {
            csr.buffer_bytes = need
            write(csr, to: out_csr)
            return
        }
        if given.buffer_bytes < need || UInt(bitPattern: buffer) & 3 != 0 {
            throw model.message.start("out_csr.buffer has ").natural(given.buffer_bytes).text(" bytes; give ")
                .natural(need).text(", aligned to 4").as(.argument)
        }
        let start = buffer.assumingMemoryBound(to: UInt32.self)
        let value = UnsafeMutableRawPointer(start + (rows &+ 1)).assumingMemoryBound(to: Float.self)
        let copied = value + int(count)
        let column = UnsafeMutableRawPointer(momentum == nil ? copied : copied + int(count)).assumingMemoryBound(to: UInt16.self)
        withScheme(n, CopyIndex(model: model, node: node, start: start, column: column))
        copyValues(model, node, stored: model.floats(n.weight.value), out: value)
        csr.row_start = UnsafePointer(start)
        csr.column = UnsafePointer(column)
        csr.value = UnsafePointer(value)
        if let momentum {
            copyValues(model, node, stored: momentum, out: copied)
            csr.momentum = UnsafePointer(copied)
        }
        write(csr, to: out_csr)
    }
}

@c @implementation
public func mest_model_csr_set(_ model: OpaquePointer?, _ layer: UInt32, _ csr: UnsafePointer<mest_csr>?) -> Int32 {
    call(model) { (model) throws(Status) in
        let node = try sparseNode(model, layer)
        let csr = try read(csr, "csr", model.message)
        try model.requireNoGathering()
        try check(csr, model, node)
        try withScheme(node.pointee, Replace(model: model, node: node, csr: csr))
        model.state.pointee.chosen = true
    }
}

private func check(_ csr: mest_csr, _ model: Model, _ node: UnsafeMutablePointer<Node>) throws(Status) {
    let n = node.pointee
    if csr.rows != uint32(n.rows) || csr.columns != uint32(n.columns) {
        throw model.message.start("csr is ").integer(csr.rows).text(" x ").integer(csr.columns).text(", the layer is ")
            .integer(n.rows).text(" x ").integer(n.columns).as(.argument)
    }
    guard let start = csr.row_start else { throw null("csr.row_start", model.message) }
    guard let column = csr.column else { throw null("csr.column", model.message) }
    guard let value = csr.value else { throw null("csr.value", model.message) }
    if start[0] != 0 || start[int(n.rows)] != csr.count {
        throw model.message.start("csr.row_start must begin with 0 and end with count ").integer(csr.count).as(.argument)
    }
    for r in 0..<int(n.rows) where start[r] > start[r &+ 1] || start[r &+ 1] > csr.count {
        throw model.message.start("csr.row_start falls or exceeds count at row ").integer(r).as(.argument)
    }
    // Before the columns are read: where count is wrong, there may be fewer.
    let need = max(int64(csr.count), withScheme(n, RoomFor(csr: csr, node: n)))
    if need > n.weight.capacity {
        throw model.state.pointee.plan.layer(int(n.index), model.message).text(": the csr has ").integer(csr.count)
            .text(" connections, which need a capacity of ").integer(need).text(" (scheme ").text(schemeName(n.scheme))
            .text("); the layer's is ").integer(n.weight.capacity).text(": create the model with a higher density")
            .as(.argument)
    }
    for r in 0..<int(n.rows) {
        for j in int(start[r])..<int(start[r &+ 1]) {
            if int(column[j]) >= int(n.columns) {
                throw model.message.start("csr.column ").integer(int(column[j])).text(" in row ").integer(r)
                    .text(" is not below ").integer(n.columns).as(.argument)
            }
            if j > int(start[r]) && column[j] <= column[j &- 1] {
                throw model.message.start("csr.column must ascend inside a row; row ").integer(r).text(" does not").as(.argument)
            }
        }
    }
    try model.checkFinite(value, int64(csr.count), "csr.value")
    if let momentum = csr.momentum {
        try model.checkFinite(momentum, int64(csr.count), "csr.momentum")
    }
}
