# SPDX-License-Identifier: Apache-2.0
"""Records of runs that tests of pictures, reports and commands read: of a real training of seconds."""

import json

import numpy as np

import mest
from mest.datasets import digits


def network():
    return [
        mest.Input(1, 8, 8), mest.Conv2d(8, 3, padding=1, name="conv <a> & b"), mest.ReLU(), mest.MaxPool(2),
        mest.Flatten(), mest.Linear(24, name="hidden"), mest.ReLU(), mest.Linear(10, density=1.0, name="classifier"),
    ]  # fmt: skip


FIELDS = dict(density=0.2, method="em&s", mutation_every=1, epochs=6, batch=32, samples=300, learning_rate=0.05, seed=3)


def places(model, index):
    csr = model.csr(index)
    rows = np.repeat(np.arange(len(csr.indptr) - 1), np.diff(csr.indptr.astype(np.int64)))
    return set(zip(rows.tolist(), csr.indices.tolist()))


def write(path, **fields):
    """Trains and writes path as mest.record does; the model."""
    data = digits()
    x, y = data.x_train[:300], data.y_train[:300]
    model = mest.Model(network(), **{**FIELDS, **fields})
    plan, lines = model.plan(), []
    sparse = [i for i, part in enumerate(plan.layers) if part.sparse]
    first = {i: places(model, i) for i in sparse}
    layer = ("name", "kind", "channels", "height", "width", "rows", "columns", "scheme", "sparse", "active",
             "capacity", "bytes", "activation_bytes")  # fmt: skip
    total = ("weight_bytes", "index_bytes", "gradient_bytes", "state_bytes", "forgetting_bytes", "batch_bytes",
             "workspace_bytes", "table_bytes", "total_bytes", "threads")  # fmt: skip
    lines.append({
        "kind": "run", "format": 1, "mest": mest.__version__, "libmest": "0.1.0", "started": "2026-01-02T03:04:05",
        "machine": "a <machine>", "config": vars(model.config),
        "layers": [{"index": i, **{n: getattr(p, n) for n in layer}} for i, p in enumerate(plan.layers)],
        "plan": {n: getattr(plan, n) for n in total},
    })  # fmt: skip

    def after(record):
        if record.mutated:
            moved = model.mutation()
            told = {n: getattr(moved, n) for n in ("epoch", "dropped", "grown", "active", "positions", "density", "explored")}
            parts = [{**vars(p), "survivors": len(places(model, p.layer) & first[p.layer]), "first": len(first[p.layer])}
                     for p in moved.layers]  # fmt: skip
            lines.append({"kind": "mutation", **told, "layers": parts})
        lines.append({"kind": "epoch", **vars(record), "connections": model.connections()})
        if model.config.samples:
            seen = model.forgetting()
            told = ("samples seen learned never_learned unforgettable training phase events events_epoch").split()
            lines.append({"kind": "forgetting", "epoch": record.epoch, "histogram": seen.histogram.tolist(),
                          **{n: getattr(seen, n) for n in told}})  # fmt: skip

    model.fit(x, y, validation=(data.x_test, data.y_test), progress=False, callback=after)
    histograms = []
    for i in sparse:
        counts, edges = np.histogram(np.abs(model.csr(i).values), 32)
        histograms.append({"layer": i, "edges": edges.tolist(), "counts": counts.tolist()})
    lines.append({"kind": "importance", "epoch": 5, "layers": histograms})
    if model.config.samples:
        counts = model.forgetting().counts
        ids = np.argsort(-np.where(counts == 255, 0, counts).astype(int), kind="stable")[:12]
        images = (x[ids, 0] - x.min()) / (x.max() - x.min())
        lines.append({"kind": "most_forgotten", "ids": ids.tolist(), "counts": counts[ids].tolist(),
                      "images": images.round(3).tolist()})  # fmt: skip
    lines.append({"kind": "end", "reason": "done", "seconds": 1.5, "message": ""})
    text = "\n".join(json.dumps(line, default=float).replace("NaN", "null") for line in lines)
    path.write_text(text + "\n")
    return model
