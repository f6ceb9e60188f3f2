# SPDX-License-Identifier: Apache-2.0
"""Bytes and microseconds: where a model's memory goes, and the dense network beside the sparse one."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from .source import is_run, opened, plan_numbers, plan_of, wrong
from .style import COLOURS, SMALL, Axes, axes_of, dress, legend_above, plain, size, size_unit, three_digits

# Parts of a plan in the order in which they are drawn.
PARTS = (
    ("weights", "weight_bytes"),
    ("indices", "index_bytes"),
    ("gradients", "gradient_bytes"),
    ("optimizer state", "state_bytes"),
    ("activations, scratch", "workspace_bytes"),
    ("batch", "batch_bytes"),
    ("forgetting counts", "forgetting_bytes"),
    ("recovery", "recovery_bytes"),
    ("tables", "table_bytes"),
)


def memory(source: Any, ax: Optional[Axes] = None) -> Axes:
    """Every byte of a model as a stacked bar.

    source: a Plan, a Model, a Run or its path; or a dict {name: one of them}, a bar each.
    """
    bars = _named(source)
    plans = {name: plan_numbers(one) for name, one in bars.items()}
    most = max(int(plan.get("total_bytes") or 0) for plan in plans.values())
    if not most:
        raise ValueError("this run has no plan")
    unit, word = size_unit(most)
    ax = axes_of(ax, 6.5, 1.5 + 0.45 * len(plans))
    for row, plan in enumerate(plans.values()):
        left = 0.0
        for what, field in PARTS:
            width = (plan.get(field) or 0) / unit
            ax.barh(row, width, 0.6, left=left, color=COLOURS[what], edgecolor="white", linewidth=0.4,
                    label=what if row == 0 else None)  # fmt: skip
            left += width
        ax.annotate(size(plan["total_bytes"]), (left, row), (4, 0), va="center", textcoords="offset points",
                    fontsize=SMALL)  # fmt: skip
    ax.set_yticks(range(len(plans)), [plain(name) for name in plans])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(plans) - 0.4, -0.6)
    ax.set_xlim(0, 1.16 * most / unit)
    title = "Memory of the model while it trains"
    dress(ax, title if len(plans) > 1 else f"{title}: {most:,} bytes", word, grid="x")
    used = [what for what, field in PARTS if any(plan.get(field) for plan in plans.values())]
    handles, labels = ax.get_legend_handles_labels()
    kept = [(h, label) for h, label in zip(handles, labels) if label in used]
    ax.legend([h for h, _ in kept], [label for _, label in kept], fontsize=SMALL - 0.5, frameon=False,
              ncols=4 if ax.figure.get_figwidth() > 6 else 3,
              loc="upper center", bbox_to_anchor=(0.45, 0), borderaxespad=4)  # fmt: skip
    return ax


def _named(source: Any) -> Dict[str, Any]:
    """{name: source}; a dict of numbers is a plan itself."""
    if isinstance(source, Mapping) and "total_bytes" not in source:
        return dict(source)
    return {"": source}


class Pair(NamedTuple):
    """One quantity of the dense network and of the sparse ones."""

    what: str
    dense: float
    sparse: List[float]

    def said(self, value: float) -> str:
        if "bytes" in self.what:
            return size(value)
        return f"{value:,.0f} µs" if "time" in self.what else short(value)


def short(value: float) -> str:
    """1,234 as it is, 1234567 as 1.23 M."""
    if abs(value) < 10000:
        return f"{value:,.0f}"
    for unit in ("K", "M"):
        value /= 1000
        if abs(value) < 999.5:
            return f"{three_digits(value)} {unit}"
    return f"{three_digits(value / 1000)} G"


def comparison(
    source: Any, ax: Optional[Axes] = None, *, times: Optional[Mapping[str, float]] = None
) -> Axes:
    """The dense network beside the sparse one: parameters, bytes, multiply-adds and, if measured, the
    time of a training step, each as a share of the dense network's.

    source: a Plan, a Model, a Run or its path; or what `mest bench --json` prints, a list of dicts of
    which the first is dense.  times: {"dense": microseconds, "sparse": microseconds} of a step.
    """
    names, pairs = compared(source, times)
    ax = axes_of(ax, 6.5, 0.9 + 0.3 * len(pairs) * (1 + len(names)))
    thick = 0.8 / (1 + len(names))
    colours = [COLOURS["sparse"]] if len(names) == 1 else _shades(len(names))
    for row, pair in enumerate(pairs):
        for place, value in enumerate([pair.dense, *pair.sparse]):
            share = 100 * value / pair.dense if pair.dense else 0.0
            at = row - 0.4 + thick * (place + 0.5)
            colour = COLOURS["dense"] if place == 0 else colours[place - 1]
            label = None if row else plain(["dense", *names][place])
            ax.barh(at, share, thick, color=colour, label=label)
            said = pair.said(value) if place == 0 else f"{pair.said(value)}, {share:.3g} %"
            ax.annotate(
                said, (share, at), (3, 0), va="center", textcoords="offset points", fontsize=SMALL - 1
            )
    ax.set_yticks(range(len(pairs)), [pair.what for pair in pairs])
    ax.set_ylim(len(pairs) - 0.5, -0.5)
    widest = max([100.0, *(100 * v / p.dense for p in pairs for v in p.sparse if p.dense)])
    ax.set_xlim(0, 1.3 * widest)
    dress(ax, "Dense against sparse", "% of the dense network", grid="x")
    legend_above(ax)
    return ax


def _shades(count: int) -> List[Any]:
    """Of the colour for what is sparse, light to dark."""
    red, green, blue = (int(COLOURS["sparse"][i : i + 2], 16) / 255 for i in (1, 3, 5))
    shares = [0.45 + 0.55 * i / max(1, count - 1) for i in range(count)]
    return [(1 - s + s * red, 1 - s + s * green, 1 - s + s * blue) for s in shares]


def compared(source: Any, times: Optional[Mapping[str, float]] = None) -> Tuple[List[str], List[Pair]]:
    """Names of the sparse ones, and what of them is compared with the dense network's."""
    source = opened(source)
    if isinstance(source, Sequence) and not is_run(source) and plan_of(source) is None:
        if not all(isinstance(record, Mapping) for record in source):
            raise wrong(source, "a Plan, a Model, a Run, or the list of dicts of mest bench --json")
        records = [dict(record) for record in source]
        if len(records) < 2:
            raise ValueError("two records at least are compared: the dense one, then sparse ones")
        fields = (("parameters", "parameters"), ("model bytes", "model_bytes"), ("all bytes", "total_bytes"),
                  ("time of a step", "microseconds"))  # fmt: skip
        pairs = [Pair(what, records[0][f], [r[f] for r in records[1:]]) for what, f in fields
                 if all(r.get(f) is not None for r in records)]  # fmt: skip
        return [record.get("name", "sparse") for record in records[1:]], pairs
    plan = plan_numbers(source)
    if "sparse_bytes" not in plan:
        plan["sparse_bytes"] = sum(
            plan.get(f) or 0 for f in ("weight_bytes", "index_bytes", "gradient_bytes", "state_bytes")
        )
    both = (("parameters", "parameters", "active"), ("model bytes", "dense_bytes", "sparse_bytes"),
            ("multiply-adds", "dense_macs", "macs"))  # fmt: skip
    pairs = [Pair(what, plan[d], [plan[s]]) for what, d, s in both if plan.get(d) and plan.get(s) is not None]
    if times is not None:
        pairs.append(Pair("time of a step", times["dense"], [times["sparse"]]))
    if not pairs:
        raise ValueError("this run does not tell what the dense network would need")
    return ["sparse"], pairs
