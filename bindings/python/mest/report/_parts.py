# SPDX-License-Identifier: Apache-2.0
"""The sections of a report, each from the run as it was read."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from .. import plot
from ..config import Config
from ..plot._source import Layer, column, layers_of
from ..plot._style import size
from ..plot.samples import NEVER_LEARNED, picture_of
from ..plot.sizes import PARTS, compared
from . import _svg
from ._page import Cell, cards, code, figure, figures, folded, table, text

Run = Any  # mest.Run


def known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def number(value: Any, form: str = ".4f") -> str:
    return format(value, form) if known(value) else ""


def count(value: Any) -> str:
    return f"{value:,.0f}" if known(value) else ""


def percent(value: Any) -> str:
    return f"{100 * value:.2f} %" if known(value) else ""


def drawn(draw: Callable[[Any], Any], alt: str, caption: str, height: float = 2.8) -> str:
    """A figure, or nothing where the run has not what it shows, or nothing to draw with is installed."""
    if not _svg.available():
        return ""
    try:
        return figure(_svg.picture(draw, alt, height=height), caption)
    except ValueError:  # what plots say when a run lacks something
        return ""


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
    shape = "x".join(str(first.get(k)) for k in ("channels", "height", "width") if first.get(k, 1) != 1) or "1"
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
        items.append(("memory in all", size(plan.get("total_bytes") or 0), f"{plan.get('threads', '?')} threads"))
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
            items.append((what, percent(last[field]), f"best {percent(best[field])} in epoch {best['epoch']}"))
            break
    beside = last.get("validation_loss")
    items.append(("loss", number(last.get("loss"), ".4g"), f"validation {beside:.4g}" if known(beside) else ""))
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
        parts.append(drawn(lambda ax: plot.curves(run, ax, what="accuracy"), f"Accuracy by epoch. {said}", said + "."))
    loss = f"loss {number(last.get('loss'))}, validation {number(last.get('validation_loss')) or 'not measured'}"
    parts.append(drawn(lambda ax: plot.curves(run, ax, what="loss"), f"Loss by epoch. In the end {loss}",
                       f"In the end {loss}. Training: as it went, with dropout and augmentation."))  # fmt: skip
    return figures(parts) + folded(f"All {len(run.epochs)} epochs as a table", epochs_table(run))


def epochs_table(run: Run) -> str:
    header = [">epoch", ">loss", ">accuracy", ">validation loss", ">validation accuracy", ">learning rate", ">density",
              ">dropped", ">grown", ">forgotten", ">samples", ">frozen", ">seconds"]  # fmt: skip
    rows = [
        [e.get("epoch"), number(e.get("loss")), percent(e.get("accuracy")), number(e.get("validation_loss")),
         percent(e.get("validation_accuracy")), number(e.get("learning_rate"), ".3g"), percent(e.get("density")),
         *(count(e.get(f)) for f in ("dropped", "grown", "forgotten", "samples", "frozen")),
         number(e.get("seconds"), ".3f")]
        for e in run.epochs
    ]  # fmt: skip
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
        pictures.append(drawn(lambda ax: plot.comparison(run, ax), f"Dense against sparse: {said}", f"{said}.", 2.4))
    return figures(pictures) + folded("The same as a table", table(["what", ">bytes", ">share"], rows, "Memory"))


# ----------------------------------------------------------------------------------- mutations ---


def mutations(run: Run) -> str:
    moved = run.mutations
    weights = layers_of(run)
    pictures, lead = [], ""
    high = max(2.2, 0.9 + 0.2 * sum(layer.sparse for layer in weights))
    if moved:
        dropped, grown = (int(np.nansum(column(moved, name))) for name in ("dropped", "grown"))
        said = f"{len(moved)} mutations dropped {dropped:,} and grew {grown:,} connections"
        explored = moved[-1].get("explored")
        more = f" {percent(explored)} of all positions have been connected at some time." if known(explored) else ""
        lead = f"<p>{text(said)}.{text(more)}</p>"
        pictures += [
            drawn(lambda ax: plot.churn(run, ax), f"Churn by epoch: {said}", f"{said}."),
            drawn(lambda ax: plot.survival(run, ax), "First connections that still exist, by epoch",
                  "How many of the first connections still exist."),
            drawn(lambda ax: plot.churn(run, ax, by="layer"), "Heat map: dropped connections by layer and mutation",
                  "Where connections were dropped.", high),
            drawn(lambda ax: plot.survival(run, ax, by="layer"), "Heat map: first connections that still exist, by "
                  "layer and mutation", "Where the first connections survived.", high),
        ]  # fmt: skip
    if weights:
        said = "Share of the weight matrix that exists in the end, by layer"
        pictures.append(drawn(lambda ax: plot.density(run, ax), f"{said}: {_densities(weights)}",
                              f"{said}.", max(1.6, 0.7 + 0.22 * len(weights))))  # fmt: skip
    if run.importance:
        pictures.append(drawn(lambda ax: plot.importance(run, ax), "Histogram of |weight| of the connections",
                              "How large the connections' weights are in the end."))  # fmt: skip
    return lead + figures(pictures) + _mutation_table(moved)


def _densities(weights: Sequence[Layer]) -> str:
    shown = [f"{layer.name} {100 * layer.density:.3g} %" for layer in weights[:12]]
    return ", ".join(shown) + (", ..." if len(weights) > 12 else "")


def _mutation_table(moved: Sequence[Mapping[str, Any]]) -> str:
    if not moved:
        return ""
    rows = [
        [m.get("epoch"), *(count(m.get(name)) for name in ("dropped", "grown", "active")),
         percent(m.get("density")), percent(m.get("explored"))]
        for m in moved
    ]  # fmt: skip
    header = [">epoch", ">dropped", ">grown", ">connections after it", ">density", ">ever connected"]
    return folded(f"All {len(moved)} mutations as a table", table(header, rows, "Mutations"))


# ---------------------------------------------------------------------------------- forgetting ---


def forgetting(run: Run) -> str:
    if not run.forgetting:
        return ""
    last = run.forgetting[-1]
    kept, learned, never = (last.get(name, 0) for name in ("unforgettable", "learned", "never_learned"))
    said = (f"{count(kept)} of {count(last.get('samples', 0))} samples were learned and never forgotten, "
            f"{count(learned - kept)} were forgotten at least once, {count(never)} were never learned")  # fmt: skip
    events = int(np.nansum(column(run.epochs, "forgotten")))
    parts = [
        drawn(lambda ax: plot.forgetting(run, ax), f"Histogram of forgetting: {said}", f"{said}."),
        drawn(lambda ax: plot.forgotten(run, ax), f"Samples forgotten by epoch, {events:,} in all",
              "Answered rightly at one presentation and wrongly at the next."),
    ]  # fmt: skip
    return f"<p>{text(said)}.</p>" + figures(parts) + _most_forgotten(run)


def _most_forgotten(run: Run) -> str:
    found = run.most_forgotten or {}
    ids, counts, images = found.get("ids") or [], found.get("counts") or [], found.get("images")
    if not ids:
        return ""
    items = []
    for place, (sample, forgotten) in enumerate(zip(ids, counts)):
        times = "never learned" if forgotten == NEVER_LEARNED else f"{forgotten} times"
        shown = ""
        if images is not None and place < len(images) and _svg.available():
            shown = f'<img src="{_svg.png(picture_of(images[place]))}" alt="sample {text(sample)}" loading="lazy">'
        items.append(f"<li>{shown}#{text(sample)}<br>{text(times)}</li>")
    return ('<figure><ul class="images">' + "".join(items)
            + "</ul><figcaption>Samples forgotten most often: number and count.</figcaption></figure>")  # fmt: skip


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
    header = [">", "layer", "kind", "output", "weights", "scheme", ">density", ">connections", ">bytes", ">activations"]
    return ("<p>Bytes: weights, indices, gradients and optimizer state. Activations share memory by life-time: "
            "their sum is more than the block holds.</p>") + table(header, rows, "Layers", sorts=True)  # fmt: skip


# --------------------------------------------------------------------------------------- config ---


def configuration(run: Run) -> str:
    changed, usual = _changed(run.run.get("config") or {})
    header = ["field", "<value"]
    shown = table(header, changed.items(), "Fields that differ from the defaults") if changed else "<p>All defaults.</p>"
    return shown + folded(f"{len(usual)} fields at their defaults", table(header, usual.items(), "Fields at their defaults"))


def _changed(config: Mapping[str, Any]) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Fields that differ from Config's defaults, and those that do not."""
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    changed = {name: _plain(value) for name, value in config.items() if name not in defaults or value != defaults[name]}
    return changed, {name: value for name, value in config.items() if name not in changed}


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def reproduce(run: Run, command: Optional[str]) -> str:
    facts = run.run
    changed, _ = _changed(facts.get("config") or {})
    rows = [[what, facts.get(key) or "not recorded"] for what, key in (
        ("package mest", "mest"), ("libmest", "libmest"), ("machine", "machine"), ("started", "started"))]  # fmt: skip
    said = "<p>Results do not depend on the number of threads or on the machine: the same data in the same order, "
    said += "the same layers and this config give the same bits.</p>"
    if command:
        said += code([command])
    lines = ["config = mest.Config(", *(f"    {name}={value!r}," for name, value in changed.items()), ")"]
    return said + code(["import mest", "", *lines]) + table(["what", "<"], rows, "Origin")
