# SPDX-License-Identifier: Apache-2.0
"""The references that are made from the header and from docstrings leave nothing out."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import mest

ROOT = Path(__file__).resolve().parents[2]
HEADER = (ROOT / "include" / "mest.h").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("doxygen") is None, reason="no doxygen")
def test_doxygen_says_something_of_every_function(tmp_path: Path) -> None:
    settings = (ROOT / "docs" / "reference" / "Doxyfile").read_text()
    settings += f"OUTPUT_DIRECTORY = {tmp_path}\nGENERATE_HTML = NO\nGENERATE_XML = YES\n"
    done = subprocess.run(["doxygen", "-"], input=settings, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and not done.stderr.strip(), done.stderr
    page = ElementTree.parse(tmp_path / "xml" / "mest_8h.xml")
    described = {
        member.findtext("name"): "".join(member.find("detaileddescription").itertext()).strip()  # type: ignore[union-attr]
        for member in page.iter("memberdef")
        if member.get("kind") == "function"
    }
    declared = set(re.findall(r"MEST_API [^;]*?\b(mest_\w+)\(", HEADER))
    assert declared and declared <= set(described)
    assert [name for name in declared if not described[name]] == []
    # Marks of comments that the filter should have taken away.
    assert [name for name, text in described.items() if "*/" in text or "/*" in text or text.endswith("/")] == []


def test_every_public_name_has_a_docstring() -> None:
    silent = []
    for name in mest.__all__:
        value = getattr(mest, name)
        if inspect.isclass(value):
            silent += [
                f"{name}.{part}"
                for part, member in vars(value).items()
                if not part.startswith("_") and inspect.isfunction(member) and not inspect.getdoc(member)
            ]
        if (inspect.isclass(value) or inspect.isfunction(value)) and not inspect.getdoc(value):
            silent.append(name)
    assert silent == []
