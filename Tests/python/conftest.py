# SPDX-License-Identifier: Apache-2.0
"""The package is tested where it lies: bindings/python of this repository."""

import signal
import sys
from pathlib import Path

from hypothesis import settings

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bindings" / "python"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

# Who runs the tests in the background has SIGINT ignored; they are about Ctrl-C, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A failing example is printed in full; nothing is remembered in the source tree.
settings.register_profile("mest", database=None)
settings.load_profile("mest")
