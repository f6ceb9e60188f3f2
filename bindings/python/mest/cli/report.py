# SPDX-License-Identifier: Apache-2.0
"""mest report: one HTML file of a run."""

from __future__ import annotations

import argparse
import os
from typing import Any

from .. import report
from ..report import _svg
from ..runs.reading import read_run
from ._options import command
from ._output import say

EXAMPLES = """examples:
  mest report run.jsonl                     writes run.html beside it
  mest report run.jsonl -o /tmp/run.html --title "Digits, 10 %"
"""


def add(commands: Any) -> None:
    made = command(commands, "report", run, "One self-contained HTML file that tells a run.", EXAMPLES)
    made.add_argument("record", metavar="RUN.jsonl", help="what mest train --record or mest.record wrote")
    made.add_argument("-o", "--output", metavar="FILE.html", help="default: the record's name with .html")
    made.add_argument("--title", help="default: method and density")


def run(options: argparse.Namespace) -> None:
    output = options.output or os.path.splitext(options.record)[0] + ".html"
    if os.path.abspath(output) == os.path.abspath(options.record):
        output += ".html"
    report.write(read_run(options.record), output, title=options.title)
    if not _svg.available():
        say("without pictures: they need matplotlib (pip install matplotlib)")
    print(output)
