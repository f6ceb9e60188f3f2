# SPDX-License-Identifier: Apache-2.0
"""Reads a checkpoint without a model: header, sections, CRCs, where training stands.

The format is Sources/Mest/Checkpoint's (Archive.swift, Sections.swift): a header of 40 bytes, sections of
id, layer, size, content and CRC, all little-endian; a CRC is that of all bytes before it but the CRCs.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

from ..config import _WORDS
from ..plan import _KINDS

MAGIC = b"mestsava"
FORMAT = 1
HEADER = 40
CHUNK = 1024  # a slot begins at a multiple of it

NAMES = {
    1: "config", 2: "position", 3: "layer", 10: "channels", 11: "index", 20: "weight", 21: "weight momentum",
    22: "weight average", 23: "weight gradient", 24: "bias", 25: "bias momentum", 26: "bias gradient",
    30: "running mean", 31: "running variance", 40: "forgettings", 41: "previous", 42: "learned", 43: "seen",
    44: "removed", 45: "margin sum", 46: "margin count", 47: "label", 48: "rank", 49: "queue", 99: "end",
}  # fmt: skip

# The first numbers of the sections of fields; later versions append.
_POSITION = (
    ("began", "I"),
    ("epoch", "I"),
    ("step_in_epoch", "I"),
    ("steps_per_epoch", "I"),
    ("updates", "Q"),
    ("passes", "Q"),
    ("gathered", "I"),
    ("batches_in_epoch", "I"),
    ("caller_begins", "I"),
    ("events", "I"),
    ("last_loss", "f"),
    ("mutations", "I"),
    ("mutation_epoch", "I"),
    ("threshold", "f"),
    ("phase", "I"),
    ("training_samples", "I"),
    ("forgotten", "Q"),
    ("forgotten_in_epoch", "Q"),
    ("presentations", "Q"),
    ("presentations_saved", "Q"),
    ("order_given", "I"),
    ("bytes_written", "Q"),
    ("chosen", "I"),
    ("frozen", "I"),
)
_CONFIG = (
    ("layers", "I"),
    ("inference_only", "i"),
    ("samples", "I"),
    ("forgetting_flags", "I"),
    ("seed", "Q"),
    ("batch", "I"),
    ("micro_batches", "I"),
    ("gradient_chunks", "I"),
    ("loss", "i"),
    ("label_smoothing", "f"),
    ("learning_rate", "f"),
    ("momentum", "f"),
    ("weight_decay", "f"),
    ("clip_norm", "f"),
    ("optimizer_flags", "I"),
    ("epochs", "I"),
    ("steps_per_epoch", "I"),
    ("schedule", "i"),
    ("schedule_flags", "I"),
    ("schedule_every", "I"),
    ("schedule_gamma", "f"),
    ("learning_rate_min", "f"),
    ("warmup_epochs", "I"),
    ("density", "f"),
    ("distribution", "i"),
    ("allow_empty_rows", "i"),
    ("method", "i"),
)
_LAYER = (
    "kind",
    "from",
    "with",
    "channels",
    "height",
    "width",
    "kernel_h",
    "kernel_w",
    "stride_h",
    "stride_w",
    "pad_h",
    "pad_w",
    "groups",
    "flags",
    "bias",
    "scheme",
)


@dataclass
class Section:
    name: str
    layer: Optional[int]  # None: of the whole model
    bytes: int  # of the content
    whole: bool  # its CRC is right


@dataclass
class Slot:
    """What stands in one slot, or in a file."""

    offset: int
    state: str  # "whole", "damaged", "empty", "of a later version"
    why: str = ""  # not whole
    format: int = 0
    version: str = ""  # of the library that saved it
    sequence: int = 0
    bytes: int = 0
    header_whole: bool = False
    sections: List[Section] = field(default_factory=list)
    position: Dict[str, Any] = field(default_factory=dict)
    config: Dict[str, Any] = field(default_factory=dict)
    layers: List[Dict[str, Any]] = field(default_factory=list)


def slots(image: bytes) -> List[Slot]:
    """Of a file one; of an image of flash two, the second where its header is found."""
    found = [_slot(image, 0)]
    second = _second(image, found[0])
    if second is not None:
        found.append(_slot(image, second))
    elif found[0].state == "whole" and found[0].bytes != len(image):
        rest = image[found[0].bytes :].strip(b"\0").strip(b"\xff")
        if rest:
            found[0].state = "damaged"
            found[0].why = f"the checkpoint has {found[0].bytes:,} bytes, the file {len(image):,}"
    return found


def _second(image: bytes, first: Slot) -> Optional[int]:
    """Where a second header stands, behind the first checkpoint if that is known to be one."""
    start = max(CHUNK, first.bytes if first.header_whole else 0)
    at = image.find(MAGIC, start)
    while at >= 0:
        if at % CHUNK == 0 or _header_crc(image, at):
            return at
        at = image.find(MAGIC, at + 1)
    return None


def _header_crc(image: bytes, at: int) -> bool:
    head = image[at : at + HEADER]
    return len(head) == HEADER and zlib.crc32(head[:-4]) == struct.unpack("<I", head[-4:])[0]


def newest(found: List[Slot]) -> Optional[Slot]:
    """That a load would take."""
    return max(
        (slot for slot in found if slot.state == "whole"), key=lambda slot: slot.sequence, default=None
    )


def _slot(image: bytes, at: int) -> Slot:
    head = image[at : at + HEADER]
    if not head.strip(b"\0") or not head.strip(b"\xff"):
        return Slot(at, "empty")
    if head[:8] != MAGIC:
        return Slot(at, "damaged", "no checkpoint begins here")
    if len(head) < HEADER:
        return Slot(at, "damaged", f"the file ends after {len(image) - at} bytes")
    format_, version, sequence, size = struct.unpack_from("<IIQQ", head, 8)
    text = f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"
    slot = Slot(at, "damaged", "its header is damaged", format_, text, sequence, size, _header_crc(image, at))
    if not slot.header_whole:
        return slot
    if format_ > FORMAT:
        slot.state, slot.why = "of a later version", f"format {format_}; this version reads {FORMAT}"
        return slot
    body = image[at : at + size]
    slot.why = _walk(body, slot) or (
        f"it has {size:,} bytes, and {len(body):,} are there" if len(body) < size else ""
    )
    slot.state = "damaged" if slot.why else "whole"
    return slot


def _walk(body: bytes, slot: Slot) -> str:
    """Reads the sections; what is wrong, or nothing."""
    at, crc = HEADER, zlib.crc32(body[: HEADER - 4])
    while at + 16 <= len(body):
        number, layer, size = struct.unpack_from("<IiQ", body, at)
        name = NAMES.get(number, f"section {number}")
        end = at + 16 + size
        if end + 4 > len(body):
            return f"section {name} ends behind the end"
        crc = zlib.crc32(body[at:end], crc)
        whole = crc == struct.unpack_from("<I", body, end)[0]
        slot.sections.append(Section(name, None if layer < 0 else layer, size, whole))
        if not whole:  # the CRC covers what came before: nothing behind it can be trusted
            return f"section {name}{'' if layer < 0 else f' of layer {layer}'} is damaged"
        _read(number, layer, body[at + 16 : end], slot)
        at = end + 4
        if number == 99:
            return "" if at == slot.bytes else f"it ends after {at:,} bytes of {slot.bytes:,}"
    return "it has no end"


def _read(number: int, layer: int, content: bytes, slot: Slot) -> None:
    if number == 1:
        slot.config = _fields(_CONFIG, content)
        for name in ("loss", "schedule", "distribution", "method"):
            if name in slot.config:
                slot.config[name] = _word(name, slot.config[name])
    elif number == 2:
        slot.position = _fields(_POSITION, content)
        slot.position["epochs"] = slot.position.get("epoch", 0) + 1 if slot.position.get("began") else 0
    elif number == 3:
        slot.layers.append(_layer(layer, content))


def _fields(names: Tuple[Tuple[str, str], ...], content: bytes) -> Dict[str, Any]:
    found, at = {}, 0
    for name, kind in names:
        size = struct.calcsize(kind)
        if at + size > len(content):
            break
        found[name] = struct.unpack_from("<" + kind, content, at)[0]
        at += size
    return found


def _layer(index: int, content: bytes) -> Dict[str, Any]:
    """Kind, shape, scheme, and units of connections that exist (blocks, kernels, single weights)."""
    numbers = struct.unpack_from(f"<{len(content) // 4}I", content)
    known = dict(zip(_LAYER, numbers))
    density = struct.unpack_from("<f", content, 4 * len(_LAYER))[0]
    # After density: momentum, epsilon, rate, then what exists.
    units, channels, dropped, grown = (*numbers[len(_LAYER) + 4 :], 0, 0, 0, 0)[:4]
    return {
        "layer": index, "kind": _KINDS.get(known["kind"], str(known["kind"])), "channels": known["channels"],
        "height": known["height"], "width": known["width"], "scheme": _word("scheme", known["scheme"]),
        "density": density, "units": units, "alive": channels, "dropped": dropped, "grown": grown,
    }  # fmt: skip


def _word(name: str, code: int) -> Any:
    words = _WORDS[name]
    return words[code] if 0 <= code < len(words) else code
