# SPDX-License-Identifier: Apache-2.0
"""Pictures of a model, a run or a history, drawn with matplotlib.

    mest.plot.density(model)
    mest.plot.curves(history)
    ax = mest.plot.survival("run.jsonl")
    ax.figure.savefig("survival.svg")

Every function takes `ax`, the axes to draw on (None: new ones), and returns the axes.  Where a run is
drawn, the path of its record will do.  matplotlib is imported by the first picture, with ImportError
where it is not installed (pip install matplotlib); no display is needed.
"""

from __future__ import annotations

from .connections import churn, connections, density, importance, survival
from .learning import curves
from .samples import forgetting, forgotten, most_forgotten
from .sizes import comparison, memory

__all__ = [
    "churn", "comparison", "connections", "curves", "density", "forgetting", "forgotten", "importance",
    "memory", "most_forgotten", "survival",
]  # fmt: skip
