# SPDX-License-Identifier: Apache-2.0
"""What every benchmark shares: turns of competitors, medians, tables, results with their origin.

Two libraries with threads of their own disturb each other in one process: OpenMP threads spin for a
while after their last work, LLVM's 200 ms unless told otherwise, GNU's some 10 ms; ours look around for
some 0.1 ms.  So the variants take turns, a pause before each lets the threads of the one before fall
asleep (`quiet_threads` keeps LLVM's to 2 ms), and short steps are timed several in a row after one that
wakes their own threads.
No library is measured with sleeping threads, none against another's spinning ones.  mest/measure/timing.py does it.

A busy neighbour costs most where threads wait for each other without giving way, PyTorch's for example:
up to fifty times the time.  Rounds in which other processes took part are therefore taken again.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence

try:
    from mest.measure import timing
except ImportError as error:
    raise SystemExit("mest is not installed: `make build && pip install -e bindings/python`, or `make bench`") from error
from mest.measure.timing import (  # noqa: F401
    PAUSE, TURN, Bystanders, Call, K, Tally, fastest, median, ratio, seconds,
)  # fmt: skip

RESULTS = Path(__file__).resolve().parent / "results"
THREADS_NOTE = (
    "LLVM's OpenMP: KMP_BLOCKTIME={} ms; a pause of 20 ms before each turn, short steps several in a row after one untimed"
)


class NotInThisBuild(Exception):
    """The library refused a variant; the message is its reason."""


# ----------------------------------------------------------------------------------- libraries ---


def quiet_threads() -> None:
    """Call before a library with threads is loaded.  What the user has set stays."""
    os.environ.setdefault("KMP_BLOCKTIME", "2")
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no workers that start while others are timed


def optional(name: str) -> Any:
    """The module, or None with a line on stderr when it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        print(f"{name}: absent ({error}), not compared", file=sys.stderr)
        return None


@contextmanager
def refusals() -> Iterator[None]:
    """Turns the ways in which the package and the library refuse a description into NotInThisBuild."""
    import mest

    try:
        yield
    except mest.VersionError:  # library and package do not belong together: nothing can be measured
        raise
    except (mest.MestError, ValueError) as error:
        raise NotInThisBuild(str(error)) from None
    except TypeError as error:  # a field or keyword of a later version; any other is a defect here
        if "has no field" not in str(error) and "unexpected keyword" not in str(error):
            raise
        raise NotInThisBuild(str(error)) from None


# -------------------------------------------------------------------------------------- timing ---


TALLY = Tally()


def interleave(calls: Mapping[K, Call], rounds: int, pause: float = PAUSE, turn: float = TURN) -> Dict[K, List[float]]:
    """Milliseconds of every timed call, by variant; within a round each variant has one turn."""
    return timing.interleave(calls, rounds, pause, turn, TALLY)


def conditions(options: argparse.Namespace) -> List[str]:
    """Notes on how it was measured.  What was disturbed is not saved unless --busy says so."""
    notes = [THREADS_NOTE.format(os.environ.get("KMP_BLOCKTIME", "default"))]
    notes.append(f"{TALLY.repeated} rounds taken again because of other processes, {TALLY.kept} disturbed ones kept")
    if TALLY.kept:
        print(f"warning: {notes[-1]}: threads that wait for each other suffer most", file=sys.stderr)
        if options.save and not options.busy:
            options.save = False
            print("not saved: the machine was busy (--busy saves all the same)", file=sys.stderr)
    return notes


# -------------------------------------------------------------------------------------- output ---


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown.  Columns whose name begins with ">" are aligned to the right."""
    rule = "|".join("---:" if name.startswith(">") else "---" for name in header)
    lines = ["| " + " | ".join(line) + " |" for line in [[name.lstrip(">") for name in header], *rows]]
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


def times(value: Optional[float], digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}x"


class Goal(NamedTuple):
    """Something promised, and what was found."""

    what: str
    reached: Optional[float]
    wanted: Optional[float]  # None: for information
    unit: str = "x"  # or "%"
    most: bool = False  # what is wanted is a limit from above

    def met(self) -> bool:
        if self.reached is None or self.wanted is None:
            return False
        return self.reached <= self.wanted if self.most else self.reached >= self.wanted

    def cell(self) -> str:
        """What was reached, and the goal; bold where it is met."""
        limit = "at most " if self.most else ""
        said = "" if self.wanted is None else f" (goal {limit}{self._show(self.wanted, 'g')})"
        if self.reached is None:
            return f"-{said}"
        mark = "**" if self.met() else ""
        return f"{mark}{self._show(self.reached, '.2f' if self.unit == 'x' else '.2g')}{mark}{said}"

    def _show(self, value: float, form: str) -> str:
        return f"{value:{form}}{self.unit}" if self.unit == "x" else f"{value:{form}} {self.unit}"

    def record(self) -> Dict[str, Any]:
        """For the results; `step.py --goals` collects these of all benchmarks."""
        return {"goal": self._asdict()}


def cpu() -> str:
    """Name, family, model and usable cores; virtual machines often hide the full name."""
    facts: Dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    name = facts.get("model name", platform.processor() or platform.machine())
    return f"{name}, family {facts.get('cpu family', '?')} model {facts.get('model', '?')}, {os.cpu_count()} cores"


def command(arguments: Sequence[str]) -> str:
    """The command line without the paths of this machine."""
    words = [Path(word).name if os.sep in word else word for word in arguments]
    return " ".join(["python", "benchmarks/" + words[0], *words[1:]])


def origin() -> Dict[str, str]:
    """Where results come from."""
    import mest
    from mest import _lib

    found = {
        "command": command(sys.argv),
        "date": str(datetime.date.today()),
        "CPU": cpu(),
        "build": f"mest {mest.__version__}, {_lib.library().mest_build_info().decode()}",
    }
    loaded = [name for name in ("torch", "onnxruntime", "sparseprop") if name in sys.modules]
    rivals = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in loaded)
    return {**found, "compared with": rivals} if rivals else found


def commit() -> str:
    """Of this checkout; a + says that code differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=RESULTS.parents[1], capture_output=True, text=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "Sources", "bindings", "benchmarks/*.py")
        return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("+" if changed else "")
    except OSError:  # no git
        return "unknown"


def save(name: str, title: str, notes: Sequence[str], text: str, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes results/NAME.md for people and results/NAME.jsonl, origin and notes first, every sample."""
    source = origin()
    lines = [f"# {title}", "", *(f"- {what}: {value}" for what, value in source.items()), *(f"- {n}" for n in notes)]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n".join([*lines, "", text, ""]))
    with (RESULTS / f"{name}.jsonl").open("w") as file:
        for record in [{**source, "notes": list(notes)}, *records]:
            file.write(json.dumps(rounded(record)) + "\n")
    print(f"\nwritten to {RESULTS.name}/{name}.md and .jsonl", file=sys.stderr)


def rounded(value: Any, places: int = 4) -> Any:
    """Floats to four places: a sample is not known better."""
    if isinstance(value, float):
        return round(value, places)
    if isinstance(value, Mapping):
        return {key: rounded(item, places) for key, item in value.items()}
    return [rounded(item, places) for item in value] if isinstance(value, (list, tuple)) else value


def load(name: str) -> List[Dict[str, Any]]:
    """The records of results/NAME.jsonl, origin first."""
    return [json.loads(line) for line in (RESULTS / f"{name}.jsonl").read_text().splitlines()]


def parser(doc: Optional[str]) -> argparse.ArgumentParser:
    """Options that all benchmarks have."""
    made = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    made.add_argument("--rounds", type=int, default=7)
    made.add_argument("--save", action="store_true", help="write to benchmarks/results/")
    made.add_argument("--busy", action="store_true", help="save even what other processes disturbed")
    return made


def sparseprop_option(made: argparse.ArgumentParser) -> None:
    made.add_argument("--sparseprop", metavar="FOLDER", help="that holds the package sparseprop: see README.md here")
