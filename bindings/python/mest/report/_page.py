# SPDX-License-Identifier: Apache-2.0
"""The frame of a report: style sheet, headings, tables, cards.  Everything is escaped here."""

from __future__ import annotations

import html
from typing import Any, Iterable, List, Sequence, Tuple

from ._svg import DARK, VARIABLES

# Nothing may be fetched, even if a name in the record tried to.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

STYLE = """
:root { color-scheme: light dark; --sans: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  --ink: #1b1f24; --soft: #59636e; --page: #f4f5f7; --card: #ffffff; --line: #d9dde2; --mark: #0060a0; LIGHT }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #a3adb8; --page: #14171b;
  --card: #1e2227; --line: #363c44; --mark: #6cb6f5; DARK } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 var(--sans); }
main { max-width: 1160px; margin: 0 auto; padding: 1.2rem 1rem 3rem; }
h1 { font-size: 1.6rem; margin: 0.2rem 0; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 0.7rem; }
a { color: var(--mark); }
p { margin: 0.3rem 0 0.8rem; max-width: 75ch; }
.soft, figcaption, small { color: var(--soft); }
nav { margin: 0.6rem 0 1.2rem; display: flex; flex-wrap: wrap; gap: 0.2rem 1rem; font-size: 0.9rem; }
.cards { display: grid; gap: 0.7rem; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); padding: 0;
  margin: 0; }
.card, figure, .box { background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.card { padding: 0.6rem 0.8rem; }
.card dt { color: var(--soft); font-size: 0.82rem; }
.card dd { margin: 0; font-size: 1.35rem; font-weight: 600; line-height: 1.3; overflow-wrap: anywhere; }
.card dd small { display: block; font-size: 0.8rem; font-weight: 400; }
.pictures { display: grid; gap: 0.8rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr));
  align-items: start; margin-bottom: 0.8rem; }
figure { margin: 0; padding: 0.7rem; }
figure svg { display: block; width: 100%; height: auto; margin: 0 auto; }
figcaption { font-size: 0.85rem; margin-top: 0.4rem; }
.box { padding: 0.4rem 0.8rem; margin: 0.8rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.86rem; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.25rem 0.6rem; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
.n { text-align: right; }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
td.long { white-space: normal; overflow-wrap: anywhere; min-width: 12rem; }
summary { cursor: pointer; padding: 0.2rem 0; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.85rem; margin: 0.4rem 0; }
.images { display: flex; flex-wrap: wrap; gap: 0.5rem; list-style: none; padding: 0; margin: 0.4rem 0; }
.images li { text-align: center; font-size: 0.75rem; color: var(--soft); }
.images img { display: block; width: 72px; height: 72px; image-rendering: pixelated;
  border: 1px solid var(--line); margin: 0 auto; object-fit: contain; }
.bad { border-left: 4px solid #d55e00; }
@media (max-width: 480px) { main { padding: 0.8rem 0.6rem 2rem; } .card dd { font-size: 1.1rem; }
  .cards { grid-template-columns: 1fr 1fr; } figure { padding: 0.4rem; } }
@media print { :root { --page: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb; LIGHT }
  body { font-size: 11px; } nav { display: none; } .card, figure, tr, .images li { break-inside: avoid; }
  h2 { break-after: avoid; } .wide { overflow: visible; } .pictures { grid-template-columns: 1fr 1fr; } }
"""

# Sorts a table by the column whose heading is pressed; opens what is folded before printing.
SCRIPT = """
document.querySelectorAll("table.sorts").forEach(function (table) {
  table.querySelectorAll("th").forEach(function (head, column) {
    var button = document.createElement("button");
    button.append.apply(button, head.childNodes); head.append(button);
    button.addEventListener("click", function () {
      var up = head.getAttribute("aria-sort") !== "ascending", body = table.tBodies[0];
      table.querySelectorAll("th").forEach(function (other) { other.removeAttribute("aria-sort"); });
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      Array.from(body.rows).sort(function (a, b) {
        var x = a.cells[column].dataset.value || a.cells[column].textContent,
            y = b.cells[column].dataset.value || b.cells[column].textContent;
        var order = isNaN(x) || isNaN(y) || x === "" || y === "" ? x.localeCompare(y) : x - y;
        return up ? order : -order;
      }).forEach(function (row) { body.append(row); });
    });
  });
});
addEventListener("beforeprint", function () {
  document.querySelectorAll("details").forEach(function (part) { part.open = true; });
});
"""


def text(value: Any) -> str:
    return html.escape(str(value))


def page(title: str, lead: str, sections: Sequence[Tuple[str, str, str]]) -> str:
    """sections: (id, heading, content); those without content are left out."""
    shown = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{name}">{text(heading)}</a>' for name, heading, _ in shown)
    body = "".join(
        f'<section aria-labelledby="{name}"><h2 id="{name}">{text(heading)}</h2>\n{content}\n</section>\n'
        for name, heading, content in shown
    )
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{text(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n<style>{_style()}</style>\n'
        f"</head>\n<body>\n<main>\n<header><h1>{text(title)}</h1>\n{lead}</header>\n"
        f'<nav aria-label="sections">{links}</nav>\n'
        f"{body}</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _style() -> str:
    light = " ".join(f"{variable}: {colour};" for colour, variable in VARIABLES.items())
    dark = " ".join(f"{VARIABLES[colour]}: {other};" for colour, other in DARK.items())
    return STYLE.replace("LIGHT", light).replace("DARK", dark)


def cards(items: Iterable[Tuple[str, str, str]]) -> str:
    """(what, number, more of it), most important first."""
    parts = [
        f'<div class="card"><dt>{text(what)}</dt><dd>{text(value)}'
        + (f"<small>{text(more)}</small>" if more else "") + "</dd></div>"
        for what, value, more in items
    ]  # fmt: skip
    return f'<dl class="cards">{"".join(parts)}</dl>'


def figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{text(caption)}</figcaption></figure>\n"


def figures(parts: Iterable[str]) -> str:
    together = "".join(parts)
    return f'<div class="pictures">{together}</div>' if together else ""


class Cell:
    """What a cell shows, and the number it is sorted by."""

    def __init__(self, shown: str, value: float) -> None:
        self.shown, self.value = shown, value


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], caption: str, sorts: bool = False) -> str:
    """Columns whose heading begins with ">" hold numbers, with "<" long text."""
    right = ["n" if name.startswith(">") else "long" if name.startswith("<") else "" for name in header]

    def cell(value: Any, kind: str) -> str:
        said = f' class="{kind}"' if kind else ""
        if isinstance(value, Cell):
            return f'<td{said} data-value="{value.value:g}">{text(value.shown)}</td>'
        return f"<td{said}>{text(value)}</td>"

    head = "".join(f'<th scope="col"{_class(k)}>{text(h.lstrip("<>"))}</th>' for h, k in zip(header, right))
    body = "".join(f"<tr>{''.join(map(cell, row, right))}</tr>\n" for row in rows)
    kind = ' class="sorts"' if sorts else ""
    return (
        f'<div class="box wide" tabindex="0" role="region" aria-label="{text(caption)}"><table{kind}>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def _class(kind: str) -> str:
    return ' class="n"' if kind == "n" else ""


def folded(heading: str, content: str) -> str:
    return f"<details><summary>{text(heading)}</summary>{content}</details>"


def code(lines: List[str]) -> str:
    return f'<div class="box"><pre><code>{text(chr(10).join(lines))}</code></pre></div>'
