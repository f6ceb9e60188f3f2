# SPDX-License-Identifier: Apache-2.0
"""mest versions: what a bug report needs."""

from __future__ import annotations

import argparse
from typing import Any

from .._versions import show_versions, versions
from ._options import add_json, command
from ._output import print_json


def add(commands: Any) -> None:
    help = "Package, library, Python, numpy, machine: for bug reports."
    made = command(commands, "versions", run, help, "")
    add_json(made)


def run(options: argparse.Namespace) -> None:
    if options.json:
        print_json(dict(versions()))
    else:
        show_versions()
