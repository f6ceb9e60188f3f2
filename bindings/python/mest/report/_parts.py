# SPDX-License-Identifier: Apache-2.0
"""The sections of a report, each from the run as it was read."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from .. import plot
from ..config import Config
from ..plot.sizes import PARTS, compared
from ..plot.source import column, layers_of
from ..plot.style import size
from ._page import Cell, cards, code, figures, folded, table
from ._values import Run, count, drawn, known, number, percent

# ------------------------------------------------------------------------------------- summary ---


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def network(run: Run) -> str:
    """The network in a few words: what goes in, layers with weights, what comes out."""
    layers = run.run.get("layers") or []
    if not layers:
        return "network not recorded"
    weights = layers_of(run)
    first, last = layers[0], layers[-1]
    shape = (
        "x".join(str(first.get(k)) for k in ("channels", "height", "width") if first.get(k, 1) != 1) or "1"
    )
    positions = sum(layer.rows * layer.columns for layer in weights)
    return (f"{shape} inputs, {len(weights)} layers of {positions:,} positions for weights, "
            f"{last.get('channels')} outputs")  # fmt: skip


def when(facts: Mapping[str, Any]) -> str:
    """2026-01-02 03:04:05 UTC"""
    return str(facts.get("started") or "no date recorded").replace("T", " ").replace("+00:00", " UTC")


def outcome(run: Run) -> Tuple[str, str]:
    """(how it ended, what the record says of it)"""
    if run.end is None:
        return "not ended", "the record has no end: training is running, or was killed"
    reason, message = run.end.get("reason") or "ended", run.end.get("message") or ""
    return {"done": "completed", "stopped": "stopped early"}.get(reason, reason), message


def summary(run: Run) -> str:
    """Cards."""
    config, plan, epochs = run.run.get("config") or {}, run.run.get("plan") or {}, run.epochs
    items: List[Tuple[str, str, str]] = []
    if epochs:
        items += _results(epochs)
    method = str(config.get("method") or "")
    items.append(("method", method, f"scheme {config.get('scheme') or 'unstructured'}"))
    sparse = [layer for layer in layers_of(run) if layer.sparse]
    if sparse:
        now = sum(layer.active for layer in sparse) / sum(layer.rows * layer.columns for layer in sparse)
        items.append(("density of the sparse layers", f"{100 * now:.3g} %", f"{len(sparse)} layers"))
    if plan:
        bytes_, dense = _model_bytes(plan), plan.get("dense_bytes")
        against = f"{100 * bytes_ / dense:.1f} % of the dense network's {size(dense)}" if dense else ""
        items.append(("weights, indices, gradients, state", size(bytes_), against))
        items.append(
            ("memory in all", size(plan.get("total_bytes") or 0), f"{plan.get('threads', '?')} threads")
        )
    if epochs:
        seconds = float(np.nansum(column(epochs, "seconds")))
        items.append(("time of training", duration(seconds),
                      f"{len(epochs)} epochs, {duration(seconds / len(epochs))} each"))  # fmt: skip
    if run.forgetting:
        last = run.forgetting[-1]
        items.append(("never forgotten", count(last.get("unforgettable")),
                      f"of {count(last.get('samples'))} samples"))  # fmt: skip
    return cards(items)


def _model_bytes(plan: Mapping[str, Any]) -> int:
    return sum(plan.get(f) or 0 for f in ("weight_bytes", "index_bytes", "gradient_bytes", "state_bytes"))


def _results(epochs: Sequence[Mapping[str, Any]]) -> List[Tuple[str, str, str]]:
    last, items = epochs[-1], []
    for what, field in (("validation accuracy", "validation_accuracy"), ("training accuracy", "accuracy")):
        if known(last.get(field)):
            best = max((e for e in epochs if known(e.get(field))), key=lambda e: float(e[field]))
            items.append(
                (what, percent(last[field]), f"best {percent(best[field])} in epoch {best['epoch']}")
            )
            break
    beside = last.get("validation_loss")
    items.append(
        ("loss", number(last.get("loss"), ".4g"), f"validation {beside:.4g}" if known(beside) else "")
    )
    return items


# -------------------------------------------------------------------------------------- curves ---


def curves(run: Run) -> str:
    if not run.epochs:
        return ""
    last = run.epochs[-1]
    said = f"After epoch {last['epoch']}: training {percent(last.get('accuracy'))}, validation " + (
        percent(last.get("validation_accuracy")) or "not measured"
    )
    parts = []
    if known(last.get("accuracy")):
        parts.append(
            drawn(lambda ax: plot.curves(run, ax, what="accuracy"), f"Accuracy by epoch. {said}", said + ".")
        )
    loss = (
        f"loss {number(last.get('loss'))}, validation {number(last.get('validation_loss')) or 'not measured'}"
    )
    parts.append(
        drawn(
            lambda ax: plot.curves(run, ax, what="loss"),
            f"Loss by epoch. In the end {loss}",
            f"In the end {loss}. Training: as it went, with dropout and augmentation.",
        )
    )
    return figures(parts) + folded(f"All {len(run.epochs)} epochs as a table", epochs_table(run))


def epochs_table(run: Run) -> str:
    header = [
        ">epoch",
        ">loss",
        ">accuracy",
        ">validation loss",
        ">validation accuracy",
        ">learning rate",
        ">density",
        ">dropped",
        ">grown",
        ">forgotten",
        ">samples",
        ">frozen",
        ">seconds",
    ]
    rows = [
        [
            e.get("epoch"),
            number(e.get("loss")),
            percent(e.get("accuracy")),
            number(e.get("validation_loss")),
            percent(e.get("validation_accuracy")),
            number(e.get("learning_rate"), ".3g"),
            percent(e.get("density")),
            *(count(e.get(f)) for f in ("dropped", "grown", "forgotten", "samples", "frozen")),
            number(e.get("seconds"), ".3f"),
        ]
        for e in run.epochs
    ]
    return table(header, rows, "Epochs")


# -------------------------------------------------------------------------------------- memory ---


def memory(run: Run) -> str:
    plan = run.run.get("plan") or {}
    total = plan.get("total_bytes")
    if not total:
        return ""
    parts = [(what, plan.get(field) or 0) for what, field in PARTS if plan.get(field)]
    most = max(parts, key=lambda part: part[1], default=("", 0))
    said = f"{total:,} bytes in one block, of which {100 * most[1] / total:.0f} % are {most[0]}"
    rows: List[List[Any]] = [[what, Cell(count(part), part), percent(part / total)] for what, part in parts]
    rows.append(["all", Cell(f"{total:,}", total), "100.00 %"])
    pictures = [drawn(lambda ax: plot.memory(run, ax), f"Memory of the model: {said}", f"{said}.", 2.2)]
    try:
        pairs = compared(run)[1]
    except ValueError:
        pairs = []
    if pairs:
        said = "; ".join(f"{p.what} {p.said(p.sparse[0])} instead of {p.said(p.dense)}" for p in pairs)
        pictures.append(
            drawn(lambda ax: plot.comparison(run, ax), f"Dense against sparse: {said}", f"{said}.", 2.4)
        )
    return figures(pictures) + folded(
        "The same as a table", table(["what", ">bytes", ">share"], rows, "Memory")
    )


# -------------------------------------------------------------------------------------- layers ---


def layers(run: Run) -> str:
    now = {layer.place: layer for layer in layers_of(run)}
    rows = []
    for index, part in enumerate(run.run.get("layers") or []):
        place = part.get("index", index)
        shape = "x".join(str(part.get(k)) for k in ("channels", "height", "width"))
        layer = now.get(place)
        matrix = f"{layer.rows}x{layer.columns}" if layer else ""
        rows.append([
            place, part.get("name") or "", part.get("kind") or "", shape, matrix,
            (part.get("scheme") or "dense") if layer else "",
            Cell(f"{100 * layer.density:.3g} %", layer.density) if layer else "",
            Cell(f"{layer.active:,}", layer.active) if layer else "",
            Cell(f"{part.get('bytes') or 0:,}", part.get("bytes") or 0),
            Cell(f"{part.get('activation_bytes') or 0:,}", part.get("activation_bytes") or 0),
        ])  # fmt: skip
    if not rows:
        return ""
    header = [
        ">",
        "layer",
        "kind",
        "output",
        "weights",
        "scheme",
        ">density",
        ">connections",
        ">bytes",
        ">activations",
    ]
    return (
        "<p>Bytes: weights, indices, gradients and optimizer state. Activations share memory by life-time: "
        "their sum is more than the block holds.</p>"
    ) + table(header, rows, "Layers", sorts=True)


# --------------------------------------------------------------------------------------- config ---


def configuration(run: Run) -> str:
    changed, usual = _changed(run.run.get("config") or {})
    header = ["field", "<value"]
    shown = (
        table(header, changed.items(), "Fields that differ from the defaults")
        if changed
        else "<p>All defaults.</p>"
    )
    return shown + folded(
        f"{len(usual)} fields at their defaults", table(header, usual.items(), "Fields at their defaults")
    )


def _changed(config: Mapping[str, Any]) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Fields that differ from Config's defaults, and those that do not."""
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    changed = {
        name: _plain(value)
        for name, value in config.items()
        if name not in defaults or value != defaults[name]
    }
    return changed, {name: value for name, value in config.items() if name not in changed}


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def reproduce(run: Run, command: Optional[str]) -> str:
    facts = run.run
    changed, _ = _changed(facts.get("config") or {})
    rows = [
        [what, facts.get(key) or "not recorded"]
        for what, key in (
            ("package mest", "mest"),
            ("libmest", "libmest"),
            ("machine", "machine"),
            ("started", "started"),
        )
    ]
    said = "<p>Results do not depend on the number of threads or on the machine: the same data in the "
    said += "same order, the same layers and this config give the same bits.</p>"
    if command:
        said += code([command])
    lines = ["config = mest.Config(", *(f"    {name}={value!r}," for name, value in changed.items()), ")"]
    return said + code(["import mest", "", *lines]) + table(["what", "<"], rows, "Origin")
