# SPDX-License-Identifier: Apache-2.0
"""mest versions: what a bug report needs."""

from __future__ import annotations

import argparse
import contextlib
import io
from typing import Any, Dict

from .. import show_versions
from ._options import add_json, command
from ._output import print_json


def add(commands: Any) -> None:
    made = command(
        commands, "versions", run, "Package, library, Python, numpy, machine: for bug reports.", ""
    )
    add_json(made)


def run(options: argparse.Namespace) -> None:
    if not options.json:
        show_versions()
        return
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        show_versions()
    found: Dict[str, str] = {}
    for line in written.getvalue().splitlines():
        name, value = line[:12].strip(), line[12:].strip()
        if name:
            found[name] = value
        elif found:  # a second line of the last one
            found[list(found)[-1]] += " " + value
    print_json(found)
