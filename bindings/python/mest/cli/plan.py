# SPDX-License-Identifier: Apache-2.0
"""mest plan: what a network will need, before anything is allocated."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from ..plan import plan
from ._network import add_shape, of_options
from ._options import add_config, add_json, command, config_of
from ._output import print_json

EXAMPLES = """examples:
  mest plan --network resnet:20 --density 0.1 --method ems
  mest plan --network mlp:256 --input 64 --outputs 10 --density 0.1 --samples 1797
  mest plan --network net.py:make --input 1,28,28 --outputs 10 --json
"""


def add(commands: Any) -> None:
    made = command(commands, "plan", run, "Every byte of a network in training, before it exists.", EXAMPLES)
    add_shape(made)
    add_json(made)
    add_config(made)


def run(options: argparse.Namespace) -> None:
    found = plan(of_options(options)(), **config_of(options))
    if options.json:
        print_json({**dataclasses.asdict(found), "sparse_bytes": found.sparse_bytes})
    else:
        print(found)
