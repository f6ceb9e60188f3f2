# SPDX-License-Identifier: Apache-2.0
"""One HTML file that tells a run: what was trained, what it reached, what it took, what moved.

    mest.report.write("run.jsonl", "run.html")

The file needs nothing else, neither network nor other files; its pictures are mest.plot's, inside it.
Without matplotlib it has the tables alone.
"""

from __future__ import annotations

import os
from typing import Any, Optional, Union

from .. import _files

Path = Union[str, "os.PathLike[str]"]

__all__ = ["html", "write"]


def html(run: Any, *, title: Optional[str] = None) -> str:
    """The page.  run: a Run, or the path of its record; title: None: from its network and method."""
    from ..plot.source import is_run, opened, wrong
    from . import _events, _parts, _svg
    from ._page import page, text
    from ._parts import when

    run = opened(run)
    if not is_run(run):
        raise wrong(run, "a Run: mest.read_run(path)")
    facts = run.run
    config = facts.get("config") or {}
    ended, message = _parts.outcome(run)
    lead = f'<p class="soft">{text(_parts.network(run))}. {text(when(facts))}: {text(ended)}.</p>'
    if message:
        lead += f'<p class="box bad">{text(message)}</p>'
    if not _svg.available():
        lead += '<p class="box bad">Without pictures: they need matplotlib (pip install matplotlib).</p>'
    density = config.get("density")
    of = f", density {density:g}" if density else ""
    heading = title or f"Training with {config.get('method') or 'mest'}{of}"
    return page(heading, lead, [
        ("summary", "Summary", _parts.summary(run)),
        ("learning", "Learning", _parts.curves(run)),
        ("memory", "Memory", _parts.memory(run)),
        ("connections", "Connections and mutations", _events.mutations(run)),
        ("forgetting", "Forgetting", _events.forgetting(run)),
        ("layers", "Layers", _parts.layers(run)),
        ("config", "Configuration", _parts.configuration(run)),
        ("reproduce", "How to reproduce it", _parts.reproduce(run, facts.get("command"))),
    ])  # fmt: skip


def write(run: Any, path: Path, *, title: Optional[str] = None) -> None:
    """Writes `html` to path, which is replaced as a whole or not at all.  Errors: OSError."""
    _files.replace(path, html(run, title=title).encode())
