// SPDX-License-Identifier: Apache-2.0
// Unstructured: any single weight may exist.

import CMest
import CMestKernels

enum Unstructured: RowScheme {
    static func units(_ node: Node) -> Units {
        Units(positions: node.positions, most: node.positions, lines: int64(node.rows))
    }
}
