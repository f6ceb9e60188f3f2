# SPDX-License-Identifier: Apache-2.0
"""The commands: `mest train`, `plan`, `bench`, `advise`, `report`, `inspect`, `versions`.

Exit codes: 0, done; 1, an error, one line on stderr, also where an option's value cannot be; 2, options
that cannot be read (unknown, not a number); 130, stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from typing import List, NoReturn, Optional, Sequence

from .. import __version__
from ..errors import MestError
from ._output import Failure, say

COMMANDS = ("train", "plan", "bench", "advise", "report", "inspect", "versions")

EXAMPLES = """
examples:
  mest plan --network resnet:20 --density 0.1      every byte, before anything is allocated
  mest train digits --network mlp:128,64 --density 0.1 --method ems --record run.jsonl
  mest report run.jsonl -o run.html                one file that tells what happened
  mest bench --network mlp:1024,1024               dense against sparse on this machine
  mest advise --network resnet:20                  where sparsity pays on this machine
  mest inspect training.mest                       what is in a checkpoint

MEST_TRACEBACK=1 in the environment shows where an error comes from.
"""


class Parser(argparse.ArgumentParser):
    """Hints at the option that was meant."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {message}\n")


def parser() -> Parser:
    made = Parser(
        prog="mest",
        description="Sparse neural networks: train, measure, look.",
        epilog=EXAMPLES,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="version", version=f"mest {__version__}")
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name in COMMANDS:
        import_module(f".{name}", __name__).add(commands)
    return made


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs one command.  arguments: None: those of the process.  Returns the exit code; SystemExit for
    --help and wrong usage."""
    from ._options import unknown

    words: List[str] = list(sys.argv[1:] if arguments is None else arguments)
    options, rest = parser().parse_known_args(words)
    if rest:
        options.parser.error(unknown(rest, options.parser))
    options.words = words
    try:
        code = options.run(options)
        sys.stdout.flush()
        return int(code or 0)
    except KeyboardInterrupt:
        say("stopped")
        return 130
    except BrokenPipeError:  # who read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Failure, MestError, OSError, ValueError, TypeError, ImportError) as error:
        if os.environ.get("MEST_TRACEBACK"):
            raise
        print(f"mest {options.command}: {_line(error)}", file=sys.stderr)
        return 1


# What the package's messages advise, in options.
_IN_OPTIONS = {
    "Create the model with a lower learning_rate or with clip_norm": "Take a lower --learning-rate, or "
    "--clip-norm 1; --standardise helps where features are large",
    "set it so, or load with strict=False": "set it so, or go on from it all the same with --other-settings",
    "set epochs to 2 or more, or mutation_epochs": "say --epochs 2 or more, or --mutation-epochs FIRST,LAST",
}


def _line(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    said = " ".join(str(error).split()) or type(error).__name__
    for theirs, ours in _IN_OPTIONS.items():
        said = said.replace(theirs, ours)
    return said
