# SPDX-License-Identifier: Apache-2.0
"""How to train: mest_config with words instead of numbers."""

from __future__ import annotations

import ctypes
import dataclasses
from dataclasses import dataclass
from functools import wraps
from typing import Any, Callable, Dict, Mapping, Optional, Tuple, Type

import numpy as np

from . import _abi

# The words of each field, in the order of the header's numbers 0, 1, 2, ...
_WORDS: Dict[str, Tuple[Optional[str], ...]] = {
    "loss": ("cross_entropy", "mse"),
    "simd": ("auto", "reference", "avx2", "avx512", "neon"),
    "schedule": ("constant", "step", "cosine"),
    "distribution": ("uniform", "erk"),
    "scheme": (
        None, "unstructured", "block4", "block8", "block16", "pattern", "nm24", "fan_in", "filter",
        "channel", "row4", "row8", "row16",
    ),  # fmt: skip
    "method": (
        "static", "vanilla", "em", "em&s", "set", "gmp", "rigl", "dsr", "lottery", "snip", "grasp", "gse",
        "srigl",
    ),  # fmt: skip
    "initial": ("random", "magnitude"),
    "mutation_decay": ("staircase", "cosine"),
    "importance_gradient": ("last", "ema", "momentum"),
    "remove_rule": (None, "count", "number", "fraction"),
    "activations": ("float32", "bfloat16"),
    "recompute": (None, "block", "elementwise"),
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
        ("global_threshold", True, _abi.MEST_MUTATION_GLOBAL),
    ),
    "forgetting_flags": (
        ("margins", True, _abi.MEST_FORGETTING_MARGIN),
        ("given_order", True, _abi.MEST_FORGETTING_ORDER),
    ),
}

_KINDS: Dict[str, Any] = {name: kind for name, kind, *_ in _abi.mest_config._fields_}

# Where the library reads 0 as "the default", a 0 written here would silently become another number.
_NOT_ZERO = (
    "batch micro_batches threads budget_bytes gradient_chunks clip_norm epochs steps_per_epoch "
    "schedule_every schedule_gamma density mutation_every mutation_updates mutation_rate "
    "mutation_extra initial_density importance_beta phase1_epochs remove_class_cap freeze_share "
    "sieve_absent sieve_every sieve_share recover_epochs recover_rate"
).split()

# Of them those that the library allows below 1 alone.
_BELOW_ONE = (
    "mutation_rate mutation_extra importance_beta remove_class_cap freeze_share sieve_absent sieve_share"
).split()

# Fields of two epochs: what happens at the first, at the second, an example.
_TWO_EPOCHS = {
    "mutation_epochs": ("mutation slows down", "it ends", (9, 12)),
    "freeze_epochs": ("the first layers freeze", "all of freeze_share is frozen", (4, 10)),
}

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
    "drop_fraction": "mutation_rate",
    "death_rate": "mutation_rate",
    "prune_rate": "mutation_rate",
    "update_frequency": "mutation_every, in epochs, or mutation_updates, of rigl and gse",
    "delta_t": "mutation_every, in epochs, or mutation_updates, of rigl and gse",
    "sparse_init": "distribution",
    "milestones": "schedule_every",
    "optimizer": "momentum, nesterov, weight_decay: the optimizer is SGD",
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
                import difflib

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
    """Everything about training that is not the network; fields as keywords of Model, too.

    Below: field = its default, what it may be, what it does.  None stands for the library's
    default, named beside it.  batch, learning_rate, momentum and weight_decay begin with usual
    values, those of the MEST paper; the other defaults are those of mest.h.

    Work and memory
      seed = 0                 0 .. 2**64-1; of all that is random: first connections, growth,
                               dropout, ties among samples, the order of samples in fit
      batch = 64               1 .. 65536 samples, the most in one step; memory grows with it
      micro_batches = 1        1 .. 65536 steps whose gradients are averaged for one update
      threads = None           1 .. 256; None: one for each processor that the calling thread may
                               use, at most 4.  Results do not depend on it
      simd = 'auto'            "auto", "reference", "avx2", "avx512", "neon"; auto: the best here,
                               or what the environment variable MEST_SIMD says.  Results do not
                               depend on it
      budget_bytes = None      bytes, the most that the model may take, else BudgetError; None: no
                               limit
      gradient_chunks = None   1 .. 64; None: 16.  Partial sums of a convolution's weight gradient:
                               more for more threads, 1 for least memory; results depend on it
                               (rounding)
      inference_only = False   True: predict and evaluate alone, without gradients and optimizer
                               state
      activations = 'float32'  "float32", "bfloat16": pictures and their gradients are stored in
                               half the memory, rounded; arithmetic and features stay float32
      recompute = None         None, "block": activations inside residual blocks, or between pools,
                               are computed again in backward: less memory, more time, the same
                               bits; "elementwise": those of ReLU and additions alone, in residual
                               networks every other one

    Loss
      loss = 'cross_entropy'   "cross_entropy" of the softmax, with class numbers; "mse", mean
                               squared error over the outputs
      label_smoothing = 0.0    s in [0, 1): 1 - s on the label, s / (K - 1) on each other class;
                               for "cross_entropy"

    Stochastic gradient descent
      learning_rate = 0.1      from 0 on, a step's length times the gradient; 0 trains nothing, for
                               measurements; None is refused
      momentum = 0.9           [0, 1)
      weight_decay = 0.0001    from 0 on; L2: this times the weight is added to the gradient
      clip_norm = None         above 0: the largest Euclidean norm of the whole gradient; None: any
      nesterov = False         Nesterov's momentum
      decay_bias = True        False: weight_decay leaves biases alone
      decay_norm = True        False: weight_decay leaves scale and shift of BatchNorm alone

    Time
      epochs = None            from 1 on; None: not known, fit is then told.  The length of the
                               training, which "cosine" and the decay of mutation need; it may go
                               on beyond
      steps_per_epoch = None   updates, from 1 on; None: ceil(samples / (batch * micro_batches))
                               where samples is set, else only fit and begin_epoch begin epochs
      schedule = 'constant'    "constant"; "step", times schedule_gamma every schedule_every
                               epochs; "cosine", from learning_rate to learning_rate_min over
                               epochs
      schedule_by_update = False  True: the rate moves with every update, not once an epoch
      schedule_every = None    epochs, from 1 on; needed by "step"
      schedule_gamma = None    above 0; None: 0.1.  Factor of "step"
      learning_rate_min = 0.0  from 0 on; the last rate of "cosine"
      warmup_epochs = 0        epochs over which the rate rises linearly before the schedule begins;
                               at most epochs

    Sparsity
      density = None           0.000001 .. 1, share of a layer's connections that exist; None: 1,
                               dense.  For layers that name none; the plan tells the nearest they
                               can have
      scheme = None            which connections may exist in layers that name no scheme: see
                               Linear; None: "unstructured"
      code8_patterns = False   "pattern": True takes the 8 patterns of the authors' published code,
                               of which one lacks the centre of the kernel
      distribution = 'uniform'  "uniform": density in each layer; "erk", Erdos-Renyi-Kernel: small
                               layers get more, and density holds for all of them (not with "filter"
                               and "channel": see Linear)
      allow_empty_rows = False  True: outputs may start without a connection, not only where there
                               are too few.  Nothing to "pattern" and "fan_in", where all outputs
                               have as many, and to initial="magnitude"
      initial = 'random'       "random": any connections, values scaled to their number; "magnitude":
                               those of the largest values of a dense layer, at these values, as the
                               authors' published code begins; scheme "unstructured"

    Mutation: how connections move.  A field is read by the methods that it names, by all where it names
    none, so that one config serves to compare them
      method = 'static'        how connections leave and come; more in mest.h, MEST_METHOD_*
        "static"               they stay
        "vanilla"              MEST: every mutation_every epochs mutation_rate of them are dropped, the
                               least important, and as many grown at random
        "em"                   MEST's Elastic Mutation: the same, the rate decays to 0
        "em&s" or "ems"        MEST's Soft memory-bound EM: grows mutation_extra beyond the target and
                               drops from old and new; the extra decays to 0
        "set"                  Sparse Evolutionary Training: after every epoch but the last the smallest
                               positive and largest negative ones are dropped and as many grown at
                               N(0, 0.1^2)
        "rigl"                 RigL: the least important are dropped and those of the largest gradient
                               grown, in place of every mutation_updates-th update
        "gse"                  guided stochastic exploration: as "rigl", but of a sample of candidates
                               as large as the connections
        "srigl"                SRigL's drop, for scheme "fan_in": the least important of a layer,
                               whoever's they are; every output is filled to its number at random
        "dsr"                  dynamic sparse reparameterization: what is below one threshold for all
                               layers is dropped and as much grown where most stayed
        "gmp"                  gradual magnitude pruning: from initial_density down to the target along
                               a cubic
        "lottery"              lottery tickets: rounds of mutation_every epochs from the dense network
                               on, each with fewer connections, at the values of the beginning
        "snip"                 SNIP: the first step keeps those of the largest |w * gradient| of the
                               dense network, of all layers
        "grasp"                GraSP: of random ones at initial_density the first step keeps those that
                               the gradient flow needs most
                               Schemes: "rigl", "gse", "dsr", "lottery", "snip", "grasp" need
                               "unstructured", "srigl" needs "fan_in", the others take any
      mutation_decay = 'staircase'  of "em" and "em&s": "staircase": 1, 1/2, 0 of the rate, changing at
                               mutation_epochs; "cosine": half a cosine from 1 to 0, reached at
                               mutation_epochs[1]
      mutation_every = None    epochs between mutations, from 1 on, nothing to "rigl" and "gse"; None:
                               5, of "set", "gmp", "dsr", "srigl" 1; to be set for "lottery".  "em",
                               "em&s" and "gmp" mutate at mutation_epochs[1] as well
      mutation_updates = None  updates between mutations of "rigl" and "gse"; None: 100, of "gse"
                               1000, but at least one mutation an epoch
      mutation_epochs = None   two epochs, not falling; None: 9/16 and 3/4 of epochs, which then is
                               2 or more for all that come to rest
      mutation_rate = None     (0, 1), share of the connections; None: 0.2, of "set", "rigl" and
                               "srigl" 0.3, of "dsr" 0.1.  Of "pattern" and "fan_in" each output moves at
                               least one kernel or connection, until the rate has decayed to 0 ("srigl":
                               perhaps none).  Of "lottery" from 0.001 on
      mutation_extra = None    (0, 1), density above the target; None: 0.05, for targets below that
                               half the target.  "em&s"; the same minimum of one
      initial_density = None   (0, 1], not below the target; "gmp", "grasp"; None: 1, of "grasp" 4
                               times the target
      exclude_dropped = False  True: what was just dropped does not grow at once, unless nothing
                               else is free; nothing to "rigl", where it stays if its gradient wins
      round_compat = False     True: counts are rounded as in the authors' published code
      normalised = False       True: |w| and g are divided by their means in the layer before they
                               are added
      global_threshold = False  True: one threshold for all layers: together they keep as many as
                               their densities add up to, the most important of the network.
                               "vanilla", "em", "em&s", "gmp"
      importance_gradient = 'last'  g in importance = |w| + importance_lambda * g.  "last":
                               |gradient| of the last update; "ema": its running mean, 4 bytes more
                               a connection; "momentum": (1 - momentum) * |momentum buffer|.  Of a
                               block's column or a kernel: the Euclidean norm of its weights'
      importance_lambda = 0.0  from 0 on; 0: magnitude alone; the paper: 0.01
      importance_beta = None   (0, 1); None: 0.9.  Share of the old mean in "ema"

    Forgetting and two-phase training
      samples = None           size of the training set; None: forgetting is not counted.  To
                               count, fit gives the ids; step takes them
      phase1_epochs = None     from 1 on, below epochs: samples leave by remove_rule at the start
                               of this epoch; None: one phase.  Needs samples and "cross_entropy"
      remove_rule = None       None; "count": samples forgotten at most remove_count times leave;
                               "number": the remove_number least forgotten; "fraction": the
                               remove_fraction least forgotten
      remove_count = 0         forgettings, from 0 on
      remove_number = 0        samples; for "number", from 1 on, below samples
      remove_fraction = 0.0    [0, 1), above 0 for "fraction"
      keep_lowest = 0          samples: this many of the least forgotten stay; "number" and
                               "fraction" take those that come next in their place, "count" none
      remove_class_cap = None  (0, 1): most that may leave of one class, a share of its samples;
                               None: no cap.  2 bytes a sample, 16 a class
      margins = False          of samples forgotten as often those with the larger mean margin (the
                               label's output minus the largest other) leave first.  6 bytes a sample
      given_order = False      room for Model.set_order.  4 bytes a sample

    Freezing: front layers stop training, see mest.h
      freeze_share = None      (0, 1): share of the network's multiply-adds whose layers are frozen in
                               the end, the first ones of the description; 2/3 is usual.  Frozen layers
                               compute what predict does, and the backward pass ends behind them; those
                               of "em&s" and "gmp" come down to their target first.  Not with "lottery"
      freeze_epochs = None     two epochs, from 1 on, not falling: the first piece freezes, all of the
                               share is frozen; None: 1/4 and 5/8 of epochs

    Sieving: samples take turns in the training set, see mest.h
      sieve_absent = None      (0, 1): share of the samples that is out of it from the beginning, at first
                               drawn at random.  Needs samples and "cross_entropy"; not with
                               phase1_epochs and remove_class_cap.  4 bytes for each that is out
      sieve_every = None       epochs, from 1 on; None: 5.  Then some of the least forgotten leave and
                               as many come back, who left first
      sieve_share = None       (0, 1): share of the training set that leaves each time; None: 0.1

    Returning: after DivergedError training goes on from a good state with a lower learning rate
      recover_epochs = None    how often, in epochs, a good state is kept in the model (plan:
                               recovery_bytes); None: never.  `fit` goes on from it by itself
      recover_rate = None      (0, 1]: what the learning rate is multiplied by each time; None: 0.5
    """

    seed: int = 0
    batch: int = 64
    micro_batches: int = 1
    threads: Optional[int] = None
    simd: str = "auto"
    budget_bytes: Optional[int] = None
    gradient_chunks: Optional[int] = None
    inference_only: bool = False
    activations: str = "float32"
    recompute: Optional[str] = None

    loss: str = "cross_entropy"
    label_smoothing: float = 0.0

    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip_norm: Optional[float] = None
    nesterov: bool = False
    decay_bias: bool = True
    decay_norm: bool = True

    epochs: Optional[int] = None
    steps_per_epoch: Optional[int] = None
    schedule: str = "constant"
    schedule_by_update: bool = False
    schedule_every: Optional[int] = None
    schedule_gamma: Optional[float] = None
    learning_rate_min: float = 0.0
    warmup_epochs: int = 0

    density: Optional[float] = None
    scheme: Optional[str] = None
    code8_patterns: bool = False
    distribution: str = "uniform"
    allow_empty_rows: bool = False
    initial: str = "random"

    method: str = "static"
    mutation_decay: str = "staircase"
    mutation_every: Optional[int] = None
    mutation_updates: Optional[int] = None
    mutation_epochs: Optional[Tuple[int, int]] = None
    mutation_rate: Optional[float] = None
    mutation_extra: Optional[float] = None
    initial_density: Optional[float] = None
    exclude_dropped: bool = False
    round_compat: bool = False
    normalised: bool = False
    global_threshold: bool = False
    importance_gradient: str = "last"
    importance_lambda: float = 0.0
    importance_beta: Optional[float] = None

    samples: Optional[int] = None
    phase1_epochs: Optional[int] = None
    remove_rule: Optional[str] = None
    remove_count: int = 0
    remove_number: int = 0
    remove_fraction: float = 0.0
    keep_lowest: int = 0
    remove_class_cap: Optional[float] = None
    margins: bool = False
    given_order: bool = False

    freeze_share: Optional[float] = None
    freeze_epochs: Optional[Tuple[int, int]] = None

    sieve_absent: Optional[float] = None
    sieve_every: Optional[int] = None
    sieve_share: Optional[float] = None
    recover_epochs: Optional[int] = None
    recover_rate: Optional[float] = None

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
            elif name in _TWO_EPOCHS:
                struct_value = (ctypes.c_uint32 * 2)(*_two_epochs(name, value))
            else:
                struct_value = number(name, value)
            setattr(struct, name, struct_value)
        for target, bits in _FLAGS.items():
            setattr(struct, target, sum(b for n, when, b in bits if bool(getattr(self, n)) is when))
        return struct


def as_config(config: Optional[Config], changes: Mapping[str, Any]) -> Config:
    """`config` (None: the defaults) with some fields changed, words as mest writes them: "MSE" is
    "mse".  TypeError for an unknown field, ValueError for an unknown word."""
    if config is not None and not isinstance(config, Config):
        raise TypeError(f"config={config!r}: a mest.Config is wanted; or its fields as keywords")
    known = dataclasses.replace(config or Config(), **changes)
    for name in _WORDS:
        setattr(known, name, word_of(name, code_of(name, getattr(known, name))))
    return known


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
        begins, ends, example = _TWO_EPOCHS[name]
        raise ValueError(
            f"{name}={value!r}: two epochs are wanted, where {begins} and where {ends}, "
            f"{example} for example"
        )
    return number(name, value[0]), number(name, value[1])


def number(name: str, value: Any, kind: Any = None) -> Any:
    """The value of a field of numbers as the header has it, or of another of this C type.  TypeError,
    ValueError: what it may be."""
    # ctypes stores -1 in an unsigned field as 4294967295, so the sign is checked here.
    if not isinstance(value, (int, float)) and not hasattr(value, "__float__") or np.ndim(value):
        raise TypeError(f"{name}={value!r}: a number is wanted")
    positive, below_one = name in _NOT_ZERO, name in _BELOW_ONE
    if value < 0 or (value == 0 and positive) or (value >= 1 and below_one):
        wanted = f"{'above' if positive else 'at least'} 0{' and below 1' if below_one else ''}"
        raise ValueError(f"{name}={value!r}: must be {wanted}")
    kind = kind or _KINDS.get(name)
    if kind is ctypes.c_float:
        return float(value)
    limit = 2**64 if kind is ctypes.c_uint64 else 2**32
    if not value < limit:  # nan, too
        raise ValueError(f"{name}={value!r}: must be below {limit}")
    if value != int(value):
        raise ValueError(f"{name}={value!r}: an integer is wanted")
    return int(value)
