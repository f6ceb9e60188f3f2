# SPDX-License-Identifier: Apache-2.0
"""A network in training: `Model`."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _abi, arrays
from ._environment import Environment, OnLog, OnProgress
from ._memory_io import Bytes, MemoryIO
from ._tensors import Tensors
from .config import Config, as_config, code_of, number
from .errors import CorruptError, DivergedError, MestArgumentError, MestError, StateError, VersionError
from .layers import Layer
from .plan import Plan, from_struct, layer_table
from .reports import (
    Checkpoint,
    EpochReport,
    Evaluation,
    ForgettingReport,
    LayerMutation,
    MutationReport,
    StepReport,
)
from .training import iterables
from .training.batches import Augment
from .training.callbacks import AnyCallback
from .training.history import History
from .training.iterables import Batches
from .training.keeper import Keeper
from .training.loop import fit

if TYPE_CHECKING:
    from .exchange.state import Keys

Path = Union[str, "os.PathLike[str]"]
Floats = NDArray[np.float32]

# Attributes of every model that a copy does not take over: it has its own.
_MADE_ANEW = frozenset((
    "layers", "config", "_lib", "_environment", "_ending", "_handle", "_destroy", "_plan", "_epoch",
    "_warned",
))  # fmt: skip


class Model(Tensors):
    """A network that trains sparse: weights, gradients and optimizer state only where a connection
    exists.

        model = Model(mlp(64, [128], 10), density=0.1, method="em&s", epochs=20, samples=len(x))
        print(model.plan())
        model.fit(x, y, validation=(test_x, test_y))

    layers: as in `mest.layers`; config: a Config, and/or its fields as keywords.
    on_progress(Progress): during long calls; return True to stop the call with CallbackError.
    on_log(level, message): "info" or "warning"; default: logging.getLogger("mest").

    A model can be pickled and copied, and the copy continues to the same bits; on_progress and on_log
    stay behind.  `to_bytes` gives what continuing needs alone.

    Memory is one block, known from `plan` and never grown.  One model is for one thread at a time:
    a second call that overlaps raises StateError; `cancel` alone is free.  Usable as a context
    manager; `close` gives the memory back.

    Errors: ValueError and TypeError for words and numbers that cannot be meant, and those of
    `mest.errors` from the library (ShapeError, UnsupportedError, BudgetError, ...).
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        config: Optional[Config] = None,
        *,
        on_progress: Optional[OnProgress] = None,
        on_log: Optional[OnLog] = None,
        **fields: Any,
    ) -> None:
        self.config = as_config(config, fields)
        self.history = History()  # of the last fit, also while it runs and when it was interrupted
        self._epoch = -1  # the last one begun
        self._warned = False
        super().__init__(layers, self.config.to_struct(), Environment(on_progress, on_log))

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> Dict[str, Any]:
        """For pickle and copy: what the model is, and all that continuing needs (`to_bytes`).
        Callbacks stay behind: they belong to this process.  Attributes of your own travel, whatever their
        names are: what cannot be pickled a subclass takes out of "attributes" of this."""
        own = {name: value for name, value in vars(self).items() if name not in _MADE_ANEW}
        return {
            "layers": self.layers, "config": self.config, "checkpoint": self.to_bytes(),
            "attributes": own,
        }  # fmt: skip

    def __setstate__(self, state: Dict[str, Any]) -> None:
        Model.__init__(self, state["layers"], state["config"])
        self.load_bytes(state["checkpoint"])
        vars(self).update(state["attributes"])

    def plan(self) -> Plan:
        """Every byte of this model; print it."""
        return self._plan

    def __repr__(self) -> str:
        """A table of the layers with the connections that exist now."""
        if self.closed:
            return "Model (closed)"
        total = f"{self._plan.total_bytes:,} bytes, {self._plan.threads} threads"
        try:
            active: Optional[List[int]] = self.connections()
        except StateError:  # a call is running: say what was planned
            active = None
        return "\n".join([f"Model: {total}", *layer_table(self._plan.layers, active)])

    # ----------------------------------------------------------------------------- training ---

    def step(self, x: ArrayLike, y: ArrayLike, ids: Optional[ArrayLike] = None) -> StepReport:
        """Forward, backward and, when micro-batches are complete, the update.

        x: (n, inputs) or (n, channels, height, width), n up to config.batch; y: (n,) classes, or
        for "mse" (n, outputs); ids: (n,) numbers of the samples, to count forgetting.
        Errors: ValueError, DivergedError, CancelledError; the model is then as before the call, or
        where recover_epochs has returned it to (DivergedError.returned_to).
        """
        report = self._step(self._lib.mest_model_step, x, y, ids)
        assert report is not None  # only slices are not done
        return report

    def step_slice(
        self, x: ArrayLike, y: ArrayLike, ids: Optional[ArrayLike] = None, *, quantum: int = 0
    ) -> Optional[StepReport]:
        """A part of a step, about `quantum` multiply-adds (0: one layer), and None while there is more
        to do: call it again with the same batch.  The bits are those of `step`.

        For who has other work between two layers.  Until the step is done other calls on the model
        raise StateError; `cancel()` and one slice more drop it.
        """
        amount = number("quantum", quantum, ctypes.c_uint64)
        return self._step(self._lib.mest_model_step_slice, x, y, ids, amount)

    def _step(
        self,
        function: Callable[..., int],
        x: ArrayLike,
        y: ArrayLike,
        ids: Optional[ArrayLike],
        *quantum: int,
    ) -> Optional[StepReport]:
        inputs = self._samples(x)
        known = self._answers(y, len(inputs))
        numbers = None if ids is None else arrays.sample_ids(
            ids, len(inputs), self.config.samples or 0
        )
        batch, report = self._batch(inputs, known, numbers), _abi.mest_step_report()
        try:
            if not self._call(function, ctypes.byref(batch), *quantum, ctypes.byref(report)):
                return None
        except DivergedError as error:
            if report.events & _abi.MEST_EVENT_RETURNED:
                error.returned_to = report.epoch
            raise
        finally:
            self._moved(report)
        return from_struct(StepReport, report)

    def begin_epoch(self) -> EpochReport:
        """Begins the next epoch now (the first call: epoch 0): mutates and freezes layers when it is
        time, and takes samples out of the training set at config.phase1_epochs, or lets them take
        turns (config.sieve_every).  `fit` calls this."""
        report = _abi.mest_epoch_report()
        try:
            self._call(self._lib.mest_model_begin_epoch, ctypes.byref(report))
        except DivergedError as error:
            if report.events & _abi.MEST_EVENT_RETURNED:
                error.returned_to = report.epoch
            raise
        finally:
            self._moved(report)
        return from_struct(EpochReport, report)

    def _moved(self, report: Any) -> None:
        """To the epoch of a call that is over: Ctrl-C, which comes behind it, does not undo it."""
        if report.events & _abi.MEST_EVENT_RETURNED:
            self._epoch = report.epoch - 1
        elif report.events & _abi.MEST_EVENT_EPOCH:
            self._epoch = report.epoch

    def mutate(self) -> MutationReport:
        """Drops and grows connections now, whatever config.mutation_every says."""
        self._call(self._lib.mest_model_mutate, None)
        return self.mutation()

    def mutation(self) -> MutationReport:
        """What the last mutation did, in all and by layer; zeros before the first."""
        sparse = sum(layer.sparse for layer in self._plan.layers)
        report, parts = _abi.mest_mutation_report(), _abi.array(_abi.mest_mutation_layer, sparse)
        self._call(self._lib.mest_model_mutation, ctypes.byref(report), parts, sparse)
        layers = tuple(from_struct(LayerMutation, part) for part in parts[: report.layers])
        return from_struct(MutationReport, report, layers=layers)

    def fit(
        self,
        x: Union[ArrayLike, Batches],
        y: Optional[ArrayLike] = None,
        epochs: Optional[int] = None,
        *,
        validation: Optional[Union[Tuple[ArrayLike, ArrayLike], Batches]] = None,
        augment: Optional[Augment] = None,
        shuffle: bool = True,
        progress: bool = True,
        callbacks: Sequence[AnyCallback] = (),
        checkpoint: Optional[Path] = None,
        checkpoint_every: int = 1,
        checkpoint_seconds: float = 0.0,
    ) -> History:
        """Trains for `epochs` more epochs (None: until config.epochs are complete): fit(x, y) on arrays
        or tensors, fit(batches) on any iterable of (x, y) or (x, y, ids), a torch DataLoader say.

        Arrays: all of x and y is checked before the first step; shuffle: a new order each epoch, from
        (config.seed, epoch) alone.  When config.samples is set, row i of x is sample i in the
        forgetting counts.
        Batches: at most config.batch samples each, ids as in `step`; gone through once an epoch, so a
        list, a DataLoader, or a function that makes a new iterator (from the number of the epoch, if it
        has a parameter).  An iterator gives one epoch, or with config.steps_per_epoch so many updates
        of it each.  Samples that have left the training set are taken out of their batches.  The same
        batches give the same bits as arrays do.

        validation: (x, y), or batches, to evaluate after each epoch.  augment(x, rng): changed copy of
        a batch.  progress: a line an epoch, and a bar where tqdm is installed and stderr a terminal.
        callbacks: a list of `mest.Callback`, or functions of the EpochRecord, which return True to
        stop: mest.early_stopping, mest.log_evaluation, mest.record_evaluation, mest.mutation_log,
        mest.checkpoint_every, mest.record.

        checkpoint: a file that keeps the training through a stop of the process.  It is saved after
        every `checkpoint_every`-th epoch, but no sooner than `checkpoint_seconds` after the save
        before, and after the last.  A model that has not trained yet, a new one in a script that is
        run again, resumes from the file if there is one: `epochs` then counts the epochs in it, the
        history has their records (kept beside it, in `checkpoint` + ".history"), and the result has
        the same bits as if nothing had stopped.  One training, one file: delete it to begin anew.

        Returns one EpochRecord an epoch, which `history` keeps.  Ctrl-C is raised as KeyboardInterrupt
        after the running step, what a callback or an iterable raises as it is: the model stays usable,
        records and checkpoint are those of complete epochs, and the next fit begins a new epoch.
        """
        keeper = None if checkpoint is None else Keeper(
            self, checkpoint, checkpoint_every, checkpoint_seconds
        )
        return fit(self, x, y, epochs, validation, augment, shuffle, progress, callbacks, keeper)

    # -------------------------------------------------------------------------- checkpoints ---

    def save(self, path: Path) -> Checkpoint:
        """Saves all that continuing needs in a file, which is replaced as a whole or not at all.

        At any moment between two calls.  Errors: MestIOError (an OSError).
        """
        return self._checkpoint(self._lib.mest_model_save_file, path)

    def load(self, path: Path, *, strict: bool = True) -> Checkpoint:
        """Continues where `save` was called, to the same bits, in this process or another.

            model = Model(layers, config)  # those of the model that was saved
            model.load("training.mest")

        strict: every field of the config that changes a bit must be the one that was saved; False:
        only those that what is stored depends on, so that the learning rate may be another, say.
        Errors: CorruptError, MestArgumentError (of another model: says what differs), VersionError
        (of a later libmest), MestIOError (an OSError).  The model is then as it was.
        """
        flags = 0 if strict else _abi.MEST_LOAD_OTHER_SETTINGS
        found = self._checkpoint(self._lib.mest_model_load_file, path, flags)
        self._epoch = found.epochs - 1
        return found

    def to_bytes(self) -> bytes:
        """What `save` would write, as bytes: all that continuing needs, but for layers and config.

        Plan.checkpoint_bytes says how many at most; twice that is needed for a moment.
        """
        report = _abi.mest_checkpoint_report()
        kept = self._with_bytes(self._lib.mest_model_save, b"", report)
        return kept.slot(report.slot)

    def load_bytes(self, data: Bytes, *, strict: bool = True) -> Checkpoint:
        """Continues where `to_bytes` was called, or `save`: its file has the same bytes.

        strict and errors as in `load`.  The model is as it was when this fails.
        """
        flags = 0 if strict else _abi.MEST_LOAD_OTHER_SETTINGS
        report = _abi.mest_checkpoint_report()
        try:
            self._with_bytes(self._lib.mest_model_load, data, report, flags)
        except MestError as error:  # which knows slots of a device alone
            error.args = (str(error).replace("slot 0", "the data"),)
            raise
        self._epoch = report.epochs - 1
        return from_struct(Checkpoint, report)

    @classmethod
    def from_bytes(
        cls,
        data: Bytes,
        layers: Sequence[Layer],
        config: Optional[Config] = None,
        *,
        strict: bool = True,
        **fields: Any,
    ) -> "Model":
        """A new model that continues where `to_bytes` was called on one of these layers and this
        config.  fields: as in Model, on_progress and on_log too."""
        model = cls(layers, config, **fields)
        model.load_bytes(data, strict=strict)
        return model

    def _with_bytes(self, function: Callable[..., int], data: Bytes, report: Any, *flags: int) -> MemoryIO:
        with self._idle():
            kept = MemoryIO(self._environment, data)
            arguments = ctypes.byref(kept.struct), *flags, ctypes.byref(report)
            self._call_idle(self._open(), function, *arguments)
        return kept

    def _checkpoint(self, function: Callable[..., int], path: Path, *flags: int) -> Checkpoint:
        name, report = os.fsencode(path), _abi.mest_checkpoint_report()
        if b"\0" in name:  # C would see another, shorter name
            raise MestArgumentError(f"the path {path!r} has a zero byte")
        try:
            self._call(function, name, *flags, ctypes.byref(report))
        except (CorruptError, MestArgumentError, VersionError) as error:  # MestIOError names it
            error.args = (f"{os.fsdecode(name)}: {error}",)
            raise
        return from_struct(Checkpoint, report)

    def state_dict(self, *, masks: bool = False) -> Dict[str, Floats]:
        """Copies of all parameters and statistics by torch's names, "conv1.weight": dense float32 arrays,
        weights zero where no connection is.

        masks: the weight of a sparse layer as torch.nn.utils.prune has it, "conv1.weight_orig" and
        "conv1.weight_mask"; the mask also has the connections that are 0."""
        from .exchange.state import state_dict

        return state_dict(self, masks=masks)

    def load_state_dict(self, mapping: Mapping[str, Any], strict: bool = True) -> "Keys":
        """Takes over arrays by their names: numpy's, torch's tensors or a state_dict of them.

        Connections of sparse layers become those that are not zero, or those of "<weight>_mask"; where
        the scheme wants more, the fewest that it needs.  LayerPlan.capacity has to suffice.  Dense
        layers stay dense.  Momentum begins at 0.  strict=False: names may lack on either side.
        Returns what had no counterpart: (missing, unexpected).

        Errors: MestArgumentError (names, shapes, values that are not finite, too many connections),
        UnsupportedError (connections that a scheme cannot have).  The model is then as it was.
        """
        from .exchange.state import load_state_dict

        return load_state_dict(self, mapping, strict)

    # --------------------------------------------------------------------------- forgetting ---

    def forgetting(self) -> ForgettingReport:
        """Forgetting counts so far.  StateError when config.samples is not set."""
        counts = np.zeros(self.config.samples or 0, np.uint8)
        report = _abi.mest_forgetting_report()
        self._call(
            self._lib.mest_model_forgetting,
            ctypes.byref(report),
            arrays.address(counts),
            counts.size,
        )
        histogram = np.array(report.histogram, np.uint32)
        return from_struct(ForgettingReport, report, counts=counts, histogram=histogram)

    def select(
        self,
        rule: Optional[str] = None,
        *,
        remove_count: int = 0,
        remove_number: int = 0,
        remove_fraction: float = 0.0,
        keep_lowest: int = 0,
    ) -> NDArray[np.uint32]:
        """Ids, ascending, of the samples that a rule would keep; changes nothing.

        rule: "count" removes samples forgotten at most remove_count times, "number" the
        remove_number and "fraction" the remove_fraction least forgotten; None: the training set as
        it is now.  The keep_lowest least forgotten stay: "number" and "fraction" take those that
        come next in their place.
        """
        wanted = _abi.mest_selection(
            rule=code_of("remove_rule", rule),
            remove_count=number("remove_count", remove_count),
            remove_number=number("remove_number", remove_number),
            remove_fraction=number("remove_fraction", remove_fraction),
            keep_lowest=number("keep_lowest", keep_lowest),
        )
        ids = np.zeros(self.config.samples or 0, np.uint32)
        count = ctypes.c_uint64()
        self._call(
            self._lib.mest_model_select,
            ctypes.byref(wanted),
            arrays.address(ids),
            ids.size,
            ctypes.byref(count),
        )
        return ids[: count.value].copy()

    def order(self) -> NDArray[np.uint32]:
        """All ids in the order in which samples leave: before the training set, the least forgotten
        first, come those that have left it, as they would again (by sieving: who comes back first).

        `np.save("order.npy", model.order())`, at any time, keeps it for a later run: see `set_order`.
        """
        ids = np.zeros(self.config.samples or 0, np.uint32)
        count = ctypes.c_uint64()
        self._call(self._lib.mest_model_order, arrays.address(ids), ids.size, ctypes.byref(count))
        return ids[: count.value].copy()

    def set_order(self, ids: Optional[ArrayLike]) -> None:
        """Samples leave in this order from now on, not by this run's counts; None: by the counts.

        ids: as `order` of an earlier run gave it, or an order of your own: different numbers below
        Config.samples, the first to leave first (keep_lowest keeps the first of them); samples not
        named leave last.  Needs Config.given_order; not with remove_rule "count".
        """
        order = np.zeros(0, np.uint32)
        if ids is not None:
            order = arrays.indices(ids, np.uint32, self.config.samples or 0, "ids")
        self._call(
            self._lib.mest_model_order_set,
            arrays.address(order) if order.size else None,
            order.size,
        )

    # ------------------------------------------------------------------------------- use it ---

    def predict(self, x: Union[ArrayLike, Batches]) -> Floats:
        """Outputs (n, outputs) in inference mode: running statistics, no dropout.  Classes are
        `predict(x).argmax(1)`.  x: samples, or an iterable of batches of them, of any size; of (x, y)
        the first counts."""
        return self._predict(x, 0)

    def predict_proba(self, x: Union[ArrayLike, Batches]) -> Floats:
        """Softmax of the outputs: (n, outputs), rows add up to 1; x as in `predict`.  ValueError for
        loss "mse"."""
        if self.config.loss == "mse":
            raise MestArgumentError('loss "mse" has no probabilities: predict gives the outputs')
        return self._predict(x, _abi.MEST_PREDICT_PROBABILITIES)

    def _predict(self, x: Any, flags: int) -> Floats:
        if iterables.are_batches(self, x):
            return iterables.predict(self, x, lambda batch: self._predict(batch, flags))
        inputs = self._samples(x)
        parts = self._parts(len(inputs))
        if len(parts) > 1:  # else the library sees all of x and names the right sample
            arrays.finite(inputs, "x")
        out = np.empty((len(inputs), self._plan.outputs), np.float32)
        with self._idle():
            handle = self._open()
            for part in parts:
                source, target = inputs[part], out[part]
                self._call_idle(
                    handle,
                    self._lib.mest_model_predict,
                    arrays.address(source),
                    len(source),
                    flags,
                    arrays.address(target),
                    target.size,
                )
        return out

    def evaluate(
        self, x: Union[ArrayLike, Batches], y: Optional[ArrayLike] = None
    ) -> Evaluation:
        """Loss and correct answers over any number of samples, in inference mode: evaluate(x, y), or
        evaluate(batches) of an iterable of (x, y), of any size."""
        if y is None:
            return iterables.evaluate(self, x)
        inputs = self._samples(x)  # type: ignore[arg-type]  # asks for y, so x is an array
        known, parts = self._answers(y, len(inputs), whole=True), self._parts(len(inputs))
        if len(parts) > 1:
            arrays.finite(inputs, "x")
        loss, correct, found = 0.0, 0, _abi.mest_evaluation()
        with self._idle():
            handle = self._open()
            for part in parts:
                batch = self._batch(inputs[part], known[part], None)
                evaluate = self._lib.mest_model_evaluate
                self._call_idle(handle, evaluate, ctypes.byref(batch), ctypes.byref(found))
                loss += found.loss * found.count
                correct += found.correct
        count = len(inputs)
        ranked = self.config.loss != "mse"
        return Evaluation(loss / count if count else float("nan"), correct, count, ranked)

    def _parts(self, count: int) -> List[slice]:
        """Many samples as several calls of some batches each, so that Ctrl-C is heard in between.
        Whole batches: the results are the same bits."""
        size = 16 * self.config.batch
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]

    # ------------------------------------------------------------------------------- inputs ---

    def _answers(
        self, y: ArrayLike, count: int, whole: bool = False, what: str = "y"
    ) -> NDArray[Any]:
        """Labels or targets in the form that the library reads.  whole: they may reach it in parts,
        so all values are looked at here, to name the sample in y."""
        if self.config.loss != "mse":
            return arrays.labels(y, count, self._plan.outputs, whole, what)
        known = arrays.targets(y, count, self._plan.outputs, what)
        if whole:
            arrays.finite(known, what)
        return known

    def _batch(self, x: Floats, y: NDArray[Any], ids: Optional[NDArray[np.uint32]]) -> Any:
        """A mest_batch that points into the arrays, which the caller keeps during the call."""
        batch = _abi.mest_batch(count=len(x), x=arrays.address(x))
        if self.config.loss == "mse":
            batch.targets = arrays.address(y)
        else:
            batch.labels = arrays.address(y)
        if ids is not None:
            batch.ids = arrays.address(ids)
        return batch

    def _samples(self, x: ArrayLike, what: str = "x") -> Floats:
        """x as the library reads it; an array that has to be copied is announced once, and bytes."""
        converted = arrays.samples(x, self._plan.layers[0].shape, not self._warned, what)
        if not self._warned and converted is not x:
            in_bytes = str(getattr(x, "dtype", "")).endswith("uint8")  # of tensors, too
            self._warned = isinstance(x, np.ndarray) or in_bytes and arrays.is_bytes(arrays.as_numpy(x))
        return converted
