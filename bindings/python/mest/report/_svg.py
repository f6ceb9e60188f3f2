# SPDX-License-Identifier: Apache-2.0
"""Pictures of mest.plot as SVG inside a page: its text stays text, its colours follow the page's scheme."""

from __future__ import annotations

import base64
import html
import io
import re
import warnings
from importlib import import_module
from typing import Any, Callable, Dict

from ..plot.style import COLOURS

INK = "#010203"  # no other colour is this one; it becomes the text's

# Colours of the pictures in the light and in the dark scheme, where some would not be seen.
DARK = {
    "#0072b2": "#3f8fd6",
    "#56b4e9": "#a5dcff",
    "#7a5195": "#b48ad0",
    "#d55e00": "#f08040",
    "#8c8c8c": "#9a9a9a",
    "#009e73": "#2bbd92",
}
VARIABLES: Dict[str, str] = {colour: f"--c{colour[1:]}" for colour in sorted({*COLOURS.values()})}


def available() -> bool:
    """Whether there is something to draw with."""
    try:
        import_module("matplotlib")
        return True
    except ImportError:
        return False


def picture(draw: Callable[[Any], Any], alt: str, width: float = 4.8, height: float = 2.8) -> str:
    """<svg> of what draw(axes) draws, so many inches large (96 pixels each), narrower where the page is."""
    matplotlib, figures = import_module("matplotlib"), import_module("matplotlib.figure")
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that a font here lacks: the browser has its own
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": alt,
                "text.color": INK,
                "axes.edgecolor": INK,
                "axes.labelcolor": INK,
                "xtick.color": INK,
                "ytick.color": INK,
                "grid.color": INK,
                "grid.alpha": 0.25,
            }
        )
        figure = figures.Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True,
                       metadata={"Date": None, "Creator": None, "Format": None, "Type": None})  # fmt: skip
    return _inline(written.getvalue(), alt, width)


def _inline(svg: str, alt: str, width: float) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    head = (
        f'<svg role="img" aria-label="{html.escape(alt)}" {box.group()} style="max-width:{96 * width:.0f}px">'
    )
    svg = head + svg[svg.index(">") + 1 :]
    svg = re.sub(r"font: ([^;\"]*?px) [^;\"]*", r"font: \1 var(--sans)", svg)
    svg = (
        svg.replace("#000000", "currentColor").replace(INK, "currentColor").replace("#ffffff", "var(--card)")
    )
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    used = set(re.findall(r"#([\w-]+)", svg))  # other names would be there once in each picture
    svg = re.sub(r' id="([^"]*)"', lambda found: found.group() if found.group(1) in used else "", svg)
    return re.sub(r"\n\s*", "\n", svg).strip()


def png(image: Any) -> str:
    """A data: address of an array (height, width) or (height, width, 3) of 0 to 1."""
    written = io.BytesIO()
    import_module("matplotlib.image").imsave(written, image, format="png", cmap="gray", vmin=0, vmax=1)
    return "data:image/png;base64," + base64.b64encode(written.getvalue()).decode()
