# SPDX-License-Identifier: Apache-2.0
"""Every code block of README.md and docs/*.md is executed as it stands.

The word behind the fence says how:

    python             the blocks of a page in order, in one namespace and one empty folder
    python torch onnx  the same; skipped where one of these packages is not installed
    sh                 the same folder, with `mest` and `python` of this environment on PATH
    c, cpp             compiled without a warning, linked with the library and run; a fragment is wrapped in main, where
                       the comment before it, <!-- given: declarations -->, tells what it takes for granted
    else               ELSEWHERE: who runs it

A page that builds or installs things is another test's: ELSEWHERE.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Dict, List, NamedTuple

import pytest

import mest
from mest import _lib

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# (page, language): the script that runs these blocks, which names the page or what is in them.
ELSEWHERE = {
    ("README.md", "sh"): "tools/run-tests.sh",
    ("c.md", "sh"): "tools/check-install.sh",
    ("c.md", "cmake"): "tools/check-install.sh",
    ("c.md", "console"): "tools/check-deb.sh",
    ("swift.md", "sh"): "tools/check-swift.sh",
    ("swift.md", "swift"): "tools/check-swift.sh",
    ("firmware.md", "sh"): "tools/check-firmware.sh",
    ("firmware.md", "c"): "tools/check-firmware.sh",
    ("firmware.md", "make"): "tools/check-firmware.sh",
    ("firmware.md", "cmake"): "tools/check-firmware.sh",
    ("firmware.md", ""): "tools/check-firmware.sh",
}


class Block(NamedTuple):
    line: int
    language: str
    needs: List[str]
    code: str
    given: str


def blocks_of(page: Path) -> List[Block]:
    found, fence, code, given = [], None, [], ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if fence is None and line.startswith("```"):
            fence, code = (number, line[3:].split()), []
        elif fence is not None and line == "```":
            words = fence[1] or [""]
            found.append(Block(fence[0], words[0], words[1:], "\n".join(code) + "\n", given))
            fence, given = None, ""
        elif fence is not None:
            code.append(line)
        elif said := re.fullmatch(r"<!-- given: (.*) -->", line):
            given = said.group(1)
        elif line:
            given = ""
    assert fence is None, f"{page.name}: the block of line {fence} does not end"
    return found


def run_python(page: Path, block: Block, namespace: Dict[str, object]) -> None:
    # As many empty lines before it as the page has: tracebacks name its lines.
    exec(compile("\n" * block.line + block.code, str(page), "exec"), namespace)


def run_shell(page: Path, block: Block, folder: Path) -> None:
    tools = folder / ".bin"
    if not tools.exists():
        tools.mkdir()
        (tools / "python").symlink_to(sys.executable)
        (tools / "mest").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mest "$@"\n')
        (tools / "mest").chmod(0o755)
    package = str(Path(mest.__file__).parents[1])
    done = subprocess.run(
        ["sh", "-eu", "-c", block.code],
        cwd=folder, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": package, "MEST_LIBRARY": _lib.path()},
    )
    assert done.returncode == 0, f"{page.name}:{block.line}\n{done.stdout}\n{done.stderr}"


def run_c(page: Path, block: Block, folder: Path) -> None:
    compiler, suffix, dialect = {"c": ("gcc", "c", "c11"), "cpp": ("g++", "cpp", "c++20")}[block.language]
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    code = block.code
    if not re.search(r"\bmain\(", code):
        lines = code.splitlines()
        head = [line for line in lines if line.startswith("#include")]
        body = [line for line in lines if not line.startswith("#include")]
        code = "\n".join(
            [*head, "int main(void) {", block.given, *body, "mest_model_destroy(model);", "return status;", "}", ""]
        )
    source, program = folder / f"line{block.line}.{suffix}", folder / f"line{block.line}"
    source.write_text(code)
    library = Path(_lib.path())
    flags = [f"-std={dialect}", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'include'}"]
    for command in (
        [compiler, *flags, source, "-o", program, library, f"-Wl,-rpath,{library.parent}"],
        [program],
    ):
        done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{page.name}:{block.line}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    namespace: Dict[str, object] = {"__name__": "__main__"}
    missing = set()
    for block in blocks_of(page):
        elsewhere = ELSEWHERE.get((page.name, block.language))
        if elsewhere is not None:
            assert (ROOT / elsewhere).exists()
            continue
        absent = [package for package in block.needs if find_spec(package) is None]
        missing.update(absent)
        if absent:
            continue
        if block.language == "python":
            run_python(page, block, namespace)
        elif block.language == "sh":
            run_shell(page, block, tmp_path)
        elif block.language in ("c", "cpp"):
            run_c(page, block, tmp_path)
        else:
            pytest.fail(f"{page.name}:{block.line}: nobody runs a block of {block.language!r}")
    if missing:
        pytest.skip(f"the rest ran, but blocks of {', '.join(sorted(missing))} did not: not installed")


def test_what_runs_elsewhere_is_there() -> None:
    """A line of ELSEWHERE whose blocks are gone, or whose script is, would say that something is tested."""
    for (name, language), script in ELSEWHERE.items():
        page = ROOT / name if name == "README.md" else ROOT / "docs" / name
        assert any(block.language == language for block in blocks_of(page)), (name, language)
        text = (ROOT / script).read_text()
        if name != "README.md":
            assert name in text, script
            continue
        # Commands, each its own: `make test` is what runs this.
        for block in blocks_of(page):
            if block.language == language:
                for command in block.code.splitlines():
                    said = re.fullmatch(r"make ([a-z-]+) +#.*", command)
                    assert said and (said.group(1) == "test" or f"'make -s {said.group(1)}'" in text), command


def test_links_lead_somewhere() -> None:
    """Every relative link of the documentation, headings included."""
    for page in [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "SECURITY.md", ROOT / "benchmarks" / "README.md"]:
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, heading = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), f"{page.name}: {target}"
            if heading:
                headings = re.findall(r"^#+ +(.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
                slugs = [re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings]
                assert heading in slugs, f"{page.name}: {target}"
