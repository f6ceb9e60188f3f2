# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have, those of Config made from its fields and their description."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import inspect
import re
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

from ..config import _ALIASES, _TWO_EPOCHS, _WORDS, Config, code_of, word_of
from ._output import Failure

# Shown by --help; the others by --help-all.
USUAL = (
    "seed batch threads loss learning_rate momentum weight_decay clip_norm epochs schedule density scheme "
    "method mutation_every"
).split()


class Described(argparse.HelpFormatter):
    """Examples as they are written, and room for long options."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=100)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in text.splitlines())


def command(commands: Any, name: str, run: Callable[[argparse.Namespace], Any], what: str, more: str) -> Any:
    """A parser for a command.  what: one line; more: examples and remarks."""
    made = commands.add_parser(
        name, help=what[0].lower() + what[1:].rstrip("."), description=what, epilog=more, allow_abbrev=False,
        formatter_class=Described,
    )  # fmt: skip
    made.set_defaults(run=run, parser=made)
    return made


def unknown(words: Sequence[str], parser: argparse.ArgumentParser) -> str:
    """A message on options that the command has not."""
    said = f"unrecognized arguments: {' '.join(words)}"
    if not words[0].startswith("-"):
        return said
    name = words[0].lstrip("-").split("=")[0].replace("-", "_").lower()
    known = [option[2:] for option in parser._option_string_actions if option.startswith("--")]
    if name == "samples":  # a field of Config, but the data tell how many
        return f"{said} (mest train counts the forgetting of all samples of its data)"
    close = difflib.get_close_matches(name.replace("_", "-"), known, 1)
    meant = _as_options(_ALIASES.get(name, ""), known) or (f"--{close[0]}" if close else "")
    return f"{said} (did you mean {meant}?)" if meant else said


def _as_options(text: str, known: Sequence[str]) -> str:
    """A hint on fields of Config in options; nothing where the command has not all of them."""
    named = [field.name for field in dataclasses.fields(Config) if re.search(rf"\b{field.name}\b", text)]
    if not named or any(name.replace("_", "-") not in known for name in named):
        return ""
    return re.sub(rf"\b({'|'.join(named)})\b", lambda found: "--" + found[0].replace("_", "-"), text)


# --------------------------------------------------------------------------------- config fields ---


def descriptions() -> Dict[str, Tuple[str, str]]:
    """(group, what it is) of each field, as Config's docstring has it."""
    found: Dict[str, Tuple[str, str]] = {}
    group, name = "", ""
    # Python 3.13 takes the indentation off a docstring, others leave it.
    for line in inspect.cleandoc(Config.__doc__ or "").splitlines():
        entry = re.match(r"  (\w+) = \S+\s+(\S.*)$", line)
        heading = re.match(r"([A-Z][^.]*)$", line)
        if entry:
            name = entry.group(1)
            found[name] = group, entry.group(2)
        elif heading:
            group, name = heading.group(1).split(":")[0], ""
        elif name and line.startswith(" " * 4) and line.strip():
            found[name] = group, f"{found[name][1]} {line.strip()}"
        elif not line.strip():
            name = ""
    return found


def add_config(parser: Any, *, without: Sequence[str] = ()) -> None:
    """An option for each field of Config: --learning-rate 0.1.  The less usual ones are in --help-all."""
    shows_all = _HelpAll(parser)
    parser.add_argument("--help-all", action=shows_all, nargs=0, default=argparse.SUPPRESS,
                        help="all options, and exit")  # fmt: skip
    groups: Dict[str, Any] = {}
    known = descriptions()
    for field in dataclasses.fields(Config):
        if field.name in without:
            continue
        heading, what = known[field.name]
        group = groups.setdefault(heading, parser.add_argument_group(heading))
        option = "--" + field.name.replace("_", "-")
        shown = _escaped(what) if field.name in USUAL else argparse.SUPPRESS
        fixed: Dict[str, Any] = {"dest": f"config_{field.name}", "default": argparse.SUPPRESS, "help": shown}
        added = group.add_argument(option, **fixed, **_type_of(field))
        added.described = _escaped(what)  # for --help-all
        if (
            str(field.type) == "bool"
        ):  # argparse.BooleanOptionalAction shows what is suppressed before Python 3.10
            no = group.add_argument(
                "--no-" + option[2:], action="store_false", **{**fixed, "help": argparse.SUPPRESS}
            )
            no.described = "the opposite"


def _HelpAll(parser: Any) -> Any:
    class HelpAll(argparse.Action):
        def __call__(self, *_: Any) -> None:
            for action in parser._actions:
                action.help = getattr(action, "described", action.help)
            parser.print_help()
            parser.exit()

    return HelpAll


def _escaped(what: str) -> str:
    return " ".join(what.split()).replace("%", "%%")


def _type_of(field: Any) -> Dict[str, Any]:
    """How argparse reads a field."""
    name, kind = field.name, str(field.type)
    if kind == "bool":
        return {"action": "store_true"}
    if name in _WORDS:
        return {"type": _word(name), "metavar": "WORD"}
    optional = kind.startswith("Optional")
    if name in _TWO_EPOCHS:
        return {"type": _pair, "metavar": "EPOCH,EPOCH"}
    number: Any = float if "float" in kind else int

    def read(text: str) -> Any:
        return None if optional and text.lower() == "none" else number(text)

    read.__name__ = "number" if number is float else "integer"  # argparse: "invalid integer value"
    return {"type": read, "metavar": "X" if number is float else "N"}


def _word(name: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return word_of(name, code_of(name, text))
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def _pair(text: str) -> Tuple[int, ...]:
    try:
        first, second = (int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: two epochs are wanted, 9,12 for example") from None
    return first, second


def config_of(options: argparse.Namespace) -> Dict[str, Any]:
    """The fields that were given."""
    return {
        name[len("config_") :]: value for name, value in vars(options).items() if name.startswith("config_")
    }


# -------------------------------------------------------------------------------------- others ---


def add_json(parser: Any) -> None:
    parser.add_argument("--json", action="store_true", help="for machines: JSON on stdout")


def add_timing(parser: Any, rounds: int) -> None:
    parser.add_argument(
        "--batch", type=natural, default=32, metavar="N", help="samples in a step; default 32"
    )
    parser.add_argument(
        "--threads", type=natural, default=None, metavar="N", help="default: a core each, at most 4"
    )
    parser.add_argument("--rounds", type=natural, default=rounds, metavar="N",
                        help=f"turns of each variant; default {rounds}")  # fmt: skip


def natural(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: 1 or more is wanted")
    return value


natural.__name__ = "integer"


def densities(text: str) -> List[float]:
    """0.2,0.1: shares above 0 and below 1."""
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: numbers are wanted, 0.2,0.1 for example") from None
    for value in found:
        if not 0 < value < 1:
            raise argparse.ArgumentTypeError(
                f"{value:g}: a density is above 0 and below 1; 1 is dense, measured always"
            )
    return sorted(set(found), reverse=True)


def schemes(text: str) -> List[str]:
    read = _word("scheme")
    return [read(word) or "unstructured" for word in text.split(",")]


def missing_fields() -> Iterator[str]:
    """Fields of Config whose description is not found: a test wants none."""
    known = descriptions()
    return (field.name for field in dataclasses.fields(Config) if field.name not in known)


def integers(text: str, what: str) -> List[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise Failure(f"{what} {text!r}: integers with commas between them are wanted") from None
