# SPDX-License-Identifier: Apache-2.0
"""How long `import mest` takes: processor time, new processes in turns, bytecode there before.

    python benchmarks/imports.py --save

numpy is what the package needs, and is measured beside it, not in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import Dict, List

import common
from common import median

CODE = """
import time
start = time.process_time(); import numpy, numpy.typing
middle = time.process_time(); import mest
print(middle - start, time.process_time() - middle)
"""


def measure(rounds: int) -> Dict[str, List[float]]:
    """Seconds of each process: of numpy, and of mest after it."""
    found: Dict[str, List[float]] = {"numpy": [], "mest": []}
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for number in range(rounds + 1):  # the first compiles
            said = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
            if number:
                for name, seconds in zip(found, said.stdout.split()):
                    found[name].append(float(seconds))
    return found


def main() -> None:
    made = common.parser(__doc__)
    made.set_defaults(rounds=25)
    arguments = made.parse_args()
    found = measure(arguments.rounds)
    text = common.table(
        ["import", ">ms"], [[name, f"{1e3 * median(seconds):.0f}"] for name, seconds in found.items()]
    )
    print(text)
    if arguments.save:
        notes = [f"Python {sys.version.split()[0]}; medians of {arguments.rounds} processes"]
        records = [{"module": name, "seconds": seconds} for name, seconds in found.items()]
        common.save("imports", "Imports", notes, text, records)


if __name__ == "__main__":
    main()
