# SPDX-License-Identifier: Apache-2.0
"""The text of NAME.h and NAME.c, put together from the pieces of C beside this file."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from string import Template
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from .buffers import Buffers, buffers_of
from .program import WEIGHTED, Program, Step
from .quantise import IntegerProgram, IntegerStep
from .sparse_code import Stored, dense, stored

_HERE = Path(__file__).resolve().parent / "pieces"
_ROWS = ("conv2d", "depthwise")  # of int8: gather sums of a row of pixels
_BYTES = {"float": 4, "int32_t": 4, "uint32_t": 4, "uint16_t": 2, "int8_t": 1, "uint8_t": 1}
_LAST = ("bias", "multiplier", "shift", "weight", "entries", "step8", "step16")
_DESCRIPTION = {"float": 18 * 4, "int8_t": 22 * 4}  # of the struct `layer` where pointers have 4 bytes


class Part(NamedTuple):
    """A layer in C.  storage: "dense", "sparse8" or "sparse16" (bits of an index), "" without weights;
    weights: those that are stored; bytes: of all its constants."""

    name: str
    kind: str
    storage: str
    weights: int
    bytes: int


class Text(NamedTuple):
    header: str
    source: str
    constant_bytes: int
    scratch_bytes: int
    parts: Tuple[Part, ...]


def write(name: str, program: Program, integers: Optional[IntegerProgram], version: str) -> Text:
    """program: that of integers, where there are any."""
    return _Writer(name, program, integers).text(version)


class _Writer:
    def __init__(self, name: str, program: Program, integers: Optional[IntegerProgram]) -> None:
        self.name, self.program, self.integers = name, program, integers
        self.value = "float" if integers is None else "int8_t"
        self.word = "float" if integers is None else "int32_t"
        self.steps: Sequence[Tuple[Step, Optional[IntegerStep]]] = (
            [(step, None) for step in program.steps]
            if integers is None
            else [(step.step, step) for step in integers.steps]
        )
        # The sums of a row come first, in words; then bytes.
        wide = [program.shapes[s.target][2] for s in program.steps if s.op in _ROWS]
        self.sums = 4 * max([0, *wide]) if integers is not None else 0
        theirs = (0, program.output)
        self.buffers: Buffers = buffers_of(program, theirs, placed=integers is not None)
        self.pieces: List[str] = ["predict"]
        self.constants: List[str] = []
        self.calls: List[str] = []
        self.parts: List[Part] = []
        self.entry = "uint16_t"
        self.bytes = 0

    def text(self, version: str) -> Text:
        size = 4 if self.integers is None else 1
        weights = {
            step.target: (stored if step.op in ("linear", "conv2d") else dense)(step.weight, size)
            for step in self.program.steps
            if step.op in WEIGHTED
        }
        if any(found.entries.size and found.entries.max() > 65535 for found in weights.values()):
            self.entry = "uint32_t"
        for index, (step, integer) in enumerate(self.steps):
            if step.op != "view":
                self.step(index, step, integer, weights.get(step.target))
        words = max(1, -(-(self.buffers.total * (1 if self.integers else 4) + self.sums) // 4))
        known = self.known(version, words)
        texts = [self.fill(file, known) for file in ("network.h.in", "network.c.in")]
        digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:8]
        known["fingerprint"] = f"0x{digest}u"
        header, source = (self.fill(file, known) for file in ("network.h.in", "network.c.in"))
        return Text(header, source, self.bytes, 4 * words, tuple(self.parts))

    def fill(self, file: str, known: Dict[str, Any]) -> str:
        text = Template((_HERE / file).read_text("utf-8")).substitute(known)
        return re.sub(r"\n{3,}", "\n\n", text)

    # ---- a step ----

    def step(
        self, index: int, step: Step, integer: Optional[IntegerStep], weights: Optional[Stored]
    ) -> None:
        label = f"{identifier(step.name)}_{index}"
        before, kind = self.bytes, step.op
        fields = [] if step.op == "relu" else self.geometry(step)
        if integer is None:
            fields += [("relu", 1)] if step.relu else []
        elif step.op != "relu":
            fields += [("in_zero", integer.in_zero), ("out_zero", integer.out_zero), ("least", integer.least)]
        if weights is not None:
            sums = "int32_t" if integer else "float"
            bias: Any = integer.bias if integer else step.bias.astype(np.float32)
            fields += [self.constant(label, "weight", self.value, weights.values)]
            fields += [self.constant(label, "bias", sums, bias)]
            if weights.bits:
                kind += f"_sparse{weights.bits}"
                fields += [self.constant(label, "entries", self.entry, weights.entries)]
                step_kind = f"uint{weights.bits}_t"
                fields += [self.constant(label, f"step{weights.bits}", step_kind, weights.steps)]
        if integer is not None and integer.multiplier.size:
            fields += [self.constant(label, "multiplier", "int32_t", integer.multiplier)]
            fields += [self.constant(label, "shift", "uint8_t", integer.shift)]
            if step.op == "add":
                fields += [self.constant(label, "bias", "int32_t", np.array([integer.second_zero]))]
        self.pieces.append(kind)
        self.call(label, kind, step, integer)
        if fields:
            self.describe(label, fields)
        storage = "" if weights is None else f"sparse{weights.bits}" if weights.bits else "dense"
        count = 0 if weights is None else weights.values.size
        self.parts.append(Part(step.name, step.op, storage, count, self.bytes - before))

    def geometry(self, step: Step) -> List[Tuple[str, Any]]:
        channels, *size = self.program.shapes[step.sources[0]]
        outputs, *out = self.program.shapes[step.target]
        if step.op == "linear":
            channels, size = channels * size[0] * size[1], [1, 1]
        pairs = [
            ("inputs", channels), ("in_height", size[0]), ("in_width", size[1]),
            ("outputs", outputs), ("out_height", out[0]), ("out_width", out[1]),
        ]  # fmt: skip
        for what, two in (("kernel", step.kernel), ("stride", step.stride), ("pad", step.padding)):
            pairs += [(f"{what}_h", two[0]), (f"{what}_w", two[1])]
        return pairs

    def constant(self, label: str, what: str, kind: str, numbers: NDArray[Any]) -> Tuple[str, str]:
        if not numbers.size:  # C has no empty arrays
            numbers = np.zeros(1, numbers.dtype)
        self.bytes += numbers.size * _BYTES[kind]
        name = f"{label}_{what}"
        self.constants.append(f"static const {kind} {name}[{numbers.size}] = {{\n{_numbers(numbers)}\n}};\n")
        return what, name

    def describe(self, label: str, fields: List[Tuple[str, Any]]) -> None:
        self.bytes += _DESCRIPTION[self.value]
        # In the order of the struct, as C++20 wants it.
        fields.sort(key=lambda pair: _LAST.index(pair[0]) if pair[0] in _LAST else -1)
        said = ", ".join(f".{what} = {value}" for what, value in fields)
        self.constants.append(f"static const layer {label} = {{\n{_wrapped(said)}\n}};\n")

    def call(self, label: str, kind: str, step: Step, integer: Optional[IntegerStep]) -> None:
        places = ", ".join(self.place(value) for value in (*step.sources, step.target))
        if step.op == "relu":
            count = int(np.prod(self.program.shapes[step.target]))
            zero = "0.0f" if integer is None else str(integer.in_zero)
            self.calls.append(f"relu({count}, {zero}, {places});")
        else:
            sums = "scratch, " if integer is not None and step.op in _ROWS else ""
            self.calls.append(f"{kind}(&{label}, {sums}{places});")

    def place(self, value: int) -> str:
        """Where a value is, inside of run()."""
        buffer = self.buffers.of[value]
        if buffer == self.buffers.of[0]:
            return "input"
        if buffer == self.buffers.of[self.program.output]:
            return "output"
        return self.at(buffer)

    def at(self, buffer: int) -> str:
        offset = self.buffers.offsets[buffer]
        return f"scratch + {offset}" if self.integers is None else f"(int8_t *)scratch + {self.sums + offset}"

    # ---- the whole ----

    def known(self, version: str, words: int) -> Dict[str, Any]:
        program, integers = self.program, self.integers
        inputs, outputs = (int(np.prod(program.shapes[v])) for v in (0, program.output))
        known: Dict[str, Any] = {
            "name": self.name, "NAME": self.name.upper(), "version": version, "fingerprint": "0u",
            "value": self.value, "word": self.word, "entry": self.entry,
            "inputs": inputs, "outputs": outputs, "words": words, "scratch_bytes": f"{4 * words:,}",
            "constant_bytes": f"{self.bytes:,}", "shape": " x ".join(map(str, program.shapes[0])),
            "sort": "single precision" if integers is None else "8-bit integers",
            "contents": "\n".join(f" *   {_row(part)}" for part in self.parts),
            "integer_header": "", "integer_static": "",
            "numbers": "    int32_t relu;\n    const float *bias;",
        }  # fmt: skip
        if integers is not None:
            first, last = integers.scales[0], integers.output
            known.update(
                numbers="    int32_t in_zero, out_zero, least;\n"
                "    const int32_t *bias, *multiplier;\n    const uint8_t *shift;",
                in_scale=_float(np.float32(first.scale)), in_zero=first.zero,
                in_inverse=_float(np.float32(1) / np.float32(first.scale)),
                in_most=127 - first.zero, in_least=-128 - first.zero,
                out_scale=_float(np.float32(last.scale)), out_zero=last.zero,
                in_place=self.at(self.buffers.of[0]), out_place=self.at(self.buffers.of[program.output]),
            )  # fmt: skip
            known["integer_header"] = self.fill("int8.h.in", known)
            known["integer_static"] = self.fill("int8_static.c.in", known)
        body = "".join(f"    {line}\n" for line in self.calls)
        if "scratch" not in body:
            body = "    (void)scratch;\n" + body
        arguments = f"{self.word} *scratch, const {self.value} *input, {self.value} *output"
        known["core"] = f"static void run({arguments})\n{{\n{body}}}\n"
        known["constants"] = "\n".join(self.constants)
        pieces = self.chosen(known)
        known["predict"] = pieces.pop("predict")
        known["kinds"] = pieces.pop("layer", "")
        known["kernels"] = "\n".join(pieces.values())
        return known

    def chosen(self, known: Dict[str, Any]) -> Dict[str, str]:
        """The text of every piece that is needed, in an order in which C may read them."""
        all_pieces: Dict[str, Tuple[List[str], str]] = {}
        for file in ("common.c.in", "float.c.in" if self.integers is None else "int8.c.in"):
            text = (_HERE / file).read_text("utf-8")
            for found in re.finditer(r"^//@ (\w+)(.*)\n((?:(?!//@).*\n)*)", text, flags=re.M):
                all_pieces[found.group(1)] = found.group(2).split(), found.group(3).rstrip() + "\n"
        wanted: Dict[str, List[int]] = {}  # piece: bits of its steps
        todo = list(dict.fromkeys(self.pieces))
        while todo:
            piece = todo.pop()
            sized = re.fullmatch(r"(.+_sparse)(\d+)", piece)
            key, bits = (sized.group(1), int(sized.group(2))) if sized else (piece, 0)
            if bits in wanted.setdefault(key, []):
                continue
            wanted[key].append(bits)
            todo += all_pieces[key][0]
        text_of = {}
        for key, (_, text) in all_pieces.items():
            for size in sorted(wanted.get(key, [])):
                more = {**known, "bits": size, "index": f"uint{size}_t"}
                text_of[key + (str(size) if size else "")] = Template(text).substitute(more)
        return text_of


def identifier(name: str) -> str:
    """A layer's name as C may have it."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
    return plain if plain[:1].isalpha() else f"layer_{plain}".rstrip("_")


def _row(part: Part) -> str:
    storage = f"{part.storage}, {part.weights:,} weights" if part.storage else ""
    return f"{identifier(part.name):<20} {part.kind:<10} {part.bytes:>9,} {storage}".rstrip()


def _float(number: Any) -> str:
    """The shortest decimal number that is this float32."""
    said = str(number)
    return said + ("f" if any(mark in said for mark in ".e") else ".0f")


def _numbers(numbers: NDArray[Any]) -> str:
    if numbers.dtype == np.float32:
        said = [_float(number) for number in numbers]
    else:
        said = list(map(str, numbers.tolist()))
    wide = 8 if numbers.dtype == np.float32 else 24
    return "\n".join(f"    {', '.join(said[i : i + wide])}," for i in range(0, len(said), wide))


def _wrapped(said: str) -> str:
    lines, line = [], "   "
    for part in said.split(", "):
        if len(line) + len(part) > 105:
            lines.append(line)
            line = "   "
        line += f" {part},"
    return "\n".join([*lines, line])
