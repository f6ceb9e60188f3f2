# SPDX-License-Identifier: Apache-2.0
"""How to train: mest_config with words instead of numbers."""

from __future__ import annotations

import ctypes
import dataclasses
import difflib
from dataclasses import dataclass
from functools import wraps
from typing import Any, Callable, Dict, Mapping, Optional, Tuple, Type

from . import _abi

# The words of each field, in the order of the header's numbers 0, 1, 2, ...
_WORDS: Dict[str, Tuple[Optional[str], ...]] = {
    "loss": ("cross_entropy", "mse"),
    "simd": ("auto", "reference", "avx2", "avx512", "neon"),
    "schedule": ("constant", "step", "cosine"),
    "distribution": ("uniform", "erk"),
    "scheme": (
        None, "unstructured", "block4", "block8", "block16", "pattern", "nm24", "fan_in",
    ),  # fmt: skip
    "mutation": (None, "vanilla", "em", "em&s"),
    "mutation_decay": ("staircase", "cosine"),
    "importance_gradient": ("last", "ema", "momentum"),
    "remove_rule": (None, "count", "number", "fraction"),
    "activations": ("float32", "bfloat16"),
    "recompute": (None, "block"),
}
_SYNONYMS = {"none": None, "ems": "em&s", "2:4": "nm24"}

# Bits of the header's flag fields: here each is a field of its own.  Decay is said positively.
_FLAGS: Dict[str, Tuple[Tuple[str, bool, int], ...]] = {
    "optimizer_flags": (
        ("nesterov", True, _abi.MEST_SGD_NESTEROV),
        ("decay_bias", False, _abi.MEST_NO_DECAY_BIAS),
        ("decay_norm", False, _abi.MEST_NO_DECAY_NORM),
    ),
    "schedule_flags": (("schedule_by_update", True, _abi.MEST_SCHEDULE_BY_UPDATE),),
    "scheme_flags": (("code8_patterns", True, _abi.MEST_PATTERNS_CODE8),),
    "mutation_flags": (
        ("exclude_dropped", True, _abi.MEST_MUTATION_EXCLUDE_DROPPED),
        ("round_compat", True, _abi.MEST_MUTATION_ROUND_COMPAT),
        ("normalised", True, _abi.MEST_MUTATION_NORMALISED),
    ),
}

_KINDS: Dict[str, Any] = {name: kind for name, kind, *_ in _abi.mest_config._fields_}

# Where the library reads 0 as "the default", a 0 written here would silently become another number.
_NOT_ZERO = (
    "batch micro_batches gradient_chunks schedule_gamma density mutation_every mutation_rate "
    "mutation_extra importance_beta"
).split()

# What other libraries call it, where spelling alone would not lead there.
_ALIASES = {
    "lr": "learning_rate",
    "sparsity": "density, that is 1 - sparsity",
    "wd": "weight_decay",
    "batch_size": "batch",
    "n_epochs": "epochs",
    "max_epochs": "epochs",
    "num_epochs": "epochs",
    "accumulation_steps": "micro_batches",
    "num_threads": "threads",
    "random_state": "seed",
}


def _suggesting(kind: Type[Config]) -> Type[Config]:
    """A TypeError for an unknown field that names the one that was meant."""
    plain: Callable[..., None] = kind.__init__
    known = [field.name for field in dataclasses.fields(kind)]

    @wraps(plain)
    def init(self: Config, *values: Any, **named: Any) -> None:
        for name in named:
            if name not in known:
                close = difflib.get_close_matches(name.lower(), known, 1)
                meant = _ALIASES.get(name.lower()) or (close[0] if close else None)
                hint = f"did you mean {meant}?" if meant else "help(mest.Config) lists them"
                raise TypeError(f"Config has no field {name!r}: {hint}")
        plain(self, *values, **named)

    kind.__init__ = init  # type: ignore[method-assign]
    return kind


@_suggesting
@dataclass
class Config:
    """Everything about training that is not the network.  None: the library's default.

    The first values are a usual start (batch, learning rate, momentum and weight decay of the
    MEST paper); all others are the defaults of mest.h, where each field is explained.
    """

    # Work and memory
    seed: int = 0
    batch: int = 64
    micro_batches: int = 1
    threads: Optional[int] = None  # one a core, at most 4
    simd: str = "auto"  # the best here, or what the environment variable MEST_SIMD says
    budget_bytes: Optional[int] = None  # no limit
    gradient_chunks: Optional[int] = None  # 16
    inference_only: bool = False
    activations: str = "float32"  # "bfloat16" stores pictures in half the memory
    recompute: Optional[str] = None  # "block": less memory, more time

    # Loss
    loss: str = "cross_entropy"
    label_smoothing: float = 0.0

    # Stochastic gradient descent
    learning_rate: float = 0.1  # 0 trains nothing, for measurements; None is refused
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip_norm: Optional[float] = None  # no clipping
    nesterov: bool = False
    decay_bias: bool = True
    decay_norm: bool = True

    # Time
    epochs: Optional[int] = None  # needed by the cosine schedule and the decay of mutation
    steps_per_epoch: Optional[int] = None  # from samples, when those are known
    schedule: str = "constant"
    schedule_by_update: bool = False
    schedule_every: Optional[int] = None  # "step": epochs
    schedule_gamma: Optional[float] = None  # "step": 0.1
    learning_rate_min: float = 0.0
    warmup_epochs: int = 0

    # Sparsity
    density: Optional[float] = None  # dense
    scheme: Optional[str] = None  # "unstructured"; of layers that name none
    code8_patterns: bool = False  # "pattern": those of the MEST authors' published code
    distribution: str = "uniform"
    allow_empty_rows: bool = False

    # Mutation
    mutation: Optional[str] = None
    mutation_decay: str = "staircase"
    mutation_every: Optional[int] = None  # 5 epochs
    mutation_epochs: Optional[Tuple[int, int]] = None  # 9/16 and 3/4 of epochs
    mutation_rate: Optional[float] = None  # 0.2
    mutation_extra: Optional[float] = None  # 0.05; for densities below 0.05 half the density
    exclude_dropped: bool = False
    round_compat: bool = False
    normalised: bool = False
    importance_gradient: str = "last"
    importance_lambda: float = 0.0  # magnitude only; the paper: 0.01
    importance_beta: Optional[float] = None  # 0.9

    # Forgetting and two-phase training
    samples: Optional[int] = None  # None: forgetting is not counted
    phase1_epochs: Optional[int] = None  # one phase
    remove_rule: Optional[str] = None
    remove_count: int = 0
    remove_number: int = 0
    remove_fraction: float = 0.0
    keep_lowest: int = 0

    def to_struct(self) -> Any:
        """The mest_config.  ValueError for a word or number that cannot be meant."""
        flags = {name for bits in _FLAGS.values() for name, _, _ in bits}
        if self.learning_rate is None and not self.inference_only:
            # The library's default is 0, which would train nothing without a word.
            raise ValueError("learning_rate=None: set it, 0.1 for example")
        struct = _abi.mest_config(abi_version=_abi.MEST_ABI_VERSION)
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if name in _WORDS:
                struct_value: Any = code_of(name, value)
            elif name in flags or value is None:
                continue
            elif name == "mutation_epochs":
                struct_value = (ctypes.c_uint32 * 2)(*_two_epochs(name, value))
            else:
                struct_value = _number(name, value)
            setattr(struct, name, struct_value)
        for target, bits in _FLAGS.items():
            setattr(struct, target, sum(b for n, when, b in bits if bool(getattr(self, n)) is when))
        return struct


def as_config(config: Optional[Config], changes: Mapping[str, Any]) -> Config:
    """`config` (None: the defaults) with some fields changed.  TypeError for an unknown field."""
    return dataclasses.replace(config or Config(), **changes)


def code_of(field: str, word: Optional[str]) -> int:
    """The header's number for a word.  ValueError listing the choices when there is none."""
    words = _WORDS[field]
    plain = word.lower().replace("-", "_") if isinstance(word, str) else word
    plain = _SYNONYMS.get(plain, plain) if isinstance(plain, str) else plain
    if plain not in words:
        raise ValueError(f"{field}={word!r}: choose from {', '.join(map(repr, words))}")
    return words.index(plain)


def word_of(field: str, code: int) -> Optional[str]:
    """The word for a number of the header's."""
    return _WORDS[field][code]


def _two_epochs(name: str, value: Any) -> Tuple[int, int]:
    if isinstance(value, str) or not hasattr(value, "__len__") or len(value) != 2:
        raise ValueError(
            f"{name}={value!r}: two epochs are wanted, where mutation slows down and where it "
            "ends, (9, 12) for example"
        )
    return _number(name, value[0]), _number(name, value[1])


def _number(name: str, value: Any) -> Any:
    # ctypes stores -1 in an unsigned field as 4294967295, so the sign is checked here.
    if not isinstance(value, (int, float)) and not hasattr(value, "__float__"):
        raise TypeError(f"{name}={value!r}: a number is wanted")
    if value < 0 or (value == 0 and name in _NOT_ZERO):
        raise ValueError(f"{name}={value!r}: must be {'above' if value == 0 else 'at least'} 0")
    kind = _KINDS.get(name)
    if kind is ctypes.c_float:
        return float(value)
    if value != int(value):
        raise ValueError(f"{name}={value!r}: an integer is wanted")
    limit = 2**64 if kind is ctypes.c_uint64 else 2**32
    if value >= limit:
        raise ValueError(f"{name}={value!r}: must be below {limit}")
    return int(value)
