// SPDX-License-Identifier: Apache-2.0
// Tensor access and compressed sparse rows.

import CMest
import CMestKernels

/// A tensor of a layer, found by its constant.
private struct Found {
    let values: UnsafeMutablePointer<Float>
    let count: Int64
    let readOnly: Bool
}

private func find(_ model: Model, _ layer: UInt32, _ tensor: Int32) throws(Status) -> Found {
    let node = try node(model, layer)
    let n = node.pointee
    let matrix = n.hasMatrix
    var place = Place.none
    var count = int64(n.statistics)
    switch int(tensor) {
    case MEST_TENSOR_WEIGHT: (place, count) = (matrix ? n.weight.value : .none, model.weightCount(n))
    case MEST_TENSOR_WEIGHT_GRADIENT: (place, count) = (matrix ? n.weight.gradient : .none, model.weightCount(n))
    case MEST_TENSOR_WEIGHT_MOMENTUM: (place, count) = (matrix ? n.weight.momentum : .none, model.weightCount(n))
    case MEST_TENSOR_BIAS: (place, count) = (n.bias.value, n.bias.capacity)
    case MEST_TENSOR_BIAS_GRADIENT: (place, count) = (n.bias.gradient, n.bias.capacity)
    case MEST_TENSOR_BIAS_MOMENTUM: (place, count) = (n.bias.momentum, n.bias.capacity)
    case MEST_TENSOR_SCALE: place = matrix ? .none : n.weight.value
    case MEST_TENSOR_SCALE_GRADIENT: place = matrix ? .none : n.weight.gradient
    case MEST_TENSOR_SCALE_MOMENTUM: place = matrix ? .none : n.weight.momentum
    case MEST_TENSOR_RUNNING_MEAN: place = n.runningMean
    case MEST_TENSOR_RUNNING_VAR: place = n.runningVariance
    default: throw model.message.start("tensor ").integer(tensor).text(" is unknown; use MEST_TENSOR_*").as(.argument)
    }
    if !place.exists {
        throw model.state.pointee.plan.layer(int(layer), model.message).text(" has no tensor ").integer(tensor)
            .text(" (kind, flags or inference_only)").as(.argument)
    }
    let gradient = int(tensor) == MEST_TENSOR_WEIGHT_GRADIENT || int(tensor) == MEST_TENSOR_BIAS_GRADIENT
        || int(tensor) == MEST_TENSOR_SCALE_GRADIENT
    return Found(values: model.floats(place), count: count, readOnly: gradient)
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
        for i in 0..<int(found.count) { out[i] = found.values[i] }
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
        try model.checkFinite(values, found.count, perSample: max(1, found.count), "values")
        if int(tensor) == MEST_TENSOR_RUNNING_VAR {
            for i in 0..<int(found.count) where values[i] < 0 {
                throw model.message.start("values: ").real(values[i]).text(" is no variance").as(.argument)
            }
        }
        for i in 0..<int(found.count) { found.values[i] = values[i] }
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
        try checkSize(out_csr.pointee.struct_size, MemoryLayout<mest_csr>.size, "out_csr", model.message)
        let rows = Unstructured.rows(model, node)
        out_csr.pointee = mest_csr(
            struct_size: uint32(MemoryLayout<mest_csr>.size), rows: uint32(rows.rows), columns: uint32(rows.columns),
            count: node.pointee.active, capacity: uint32(node.pointee.weight.capacity), reserved: 0,
            row_start: UnsafePointer(rows.start), column: UnsafePointer(rows.column), value: UnsafePointer(rows.value),
            momentum: rows.momentum.map { UnsafePointer($0) })
    }
}

@c @implementation
public func mest_model_csr_set(_ model: OpaquePointer?, _ layer: UInt32, _ csr: UnsafePointer<mest_csr>?) -> Int32 {
    call(model) { (model) throws(Status) in
        let node = try sparseNode(model, layer)
        guard let csr else { throw null("csr", model.message) }
        try checkSize(csr.pointee.struct_size, MemoryLayout<mest_csr>.size, "csr", model.message)
        try model.requireNoGathering()
        try check(csr.pointee, model, node)
        Unstructured.replace(model, node, by: csr.pointee)
    }
}

private func check(_ csr: mest_csr, _ model: Model, _ node: UnsafeMutablePointer<Node>) throws(Status) {
    let n = node.pointee
    if csr.rows != uint32(n.rows) || csr.columns != uint32(n.columns) {
        throw model.message.start("csr is ").integer(csr.rows).text(" x ").integer(csr.columns).text(", the layer is ")
            .integer(n.rows).text(" x ").integer(n.columns).as(.argument)
    }
    if int64(csr.count) > n.weight.capacity {
        throw model.message.start("csr.count is ").integer(csr.count).text(", there is room for ")
            .integer(n.weight.capacity).text(" connections; create the model with a higher density").as(.argument)
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
    try model.checkFinite(value, int64(csr.count), perSample: max(1, int64(csr.count)), "csr.value")
    if let momentum = csr.momentum {
        try model.checkFinite(momentum, int64(csr.count), perSample: max(1, int64(csr.count)), "csr.momentum")
    }
}
