# SPDX-License-Identifier: Apache-2.0
"""Sparse networks with scikit-learn's conventions: MestClassifier and MestRegressor.

    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), mest.MestClassifier(random_state=0)).fit(X, y)
    model.score(X_test, y_test)

Where scikit-learn is installed they are its estimators: they inherit from its base classes, pass its
`check_estimator`, and work in Pipeline, GridSearchCV, cross_val_score and so on.  Without it they
work too, with plainer checks of X and y.  `import mest` imports neither them nor scikit-learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..model import Model
from ..training.history import EpochRecord
from .learner import Floats, Learner
from .learning import as_before
from .without_sklearn import r2

if TYPE_CHECKING:
    from . import without_sklearn as sk
else:
    from .learner import sk

C = TypeVar("C", bound="MestClassifier")
R = TypeVar("R", bound="MestRegressor")

_PARAMETERS = """
    Parameters (Config: `help(mest.Config)`)
      hidden_layer_sizes = (128,)  sizes of the hidden layers, ReLU behind each; the last layer is
                         dense.  (): none
      network = None     instead: a list of mest layers from Input to the last, or a function that
                         makes one from (number of features, number of outputs).  With Input(c, h, w) X
                         is (n, c * h * w), images channel by channel.  For GridSearchCV with
                         scikit-learn before 1.3 layers refer to others by name or number
      density = 'auto'   share of the connections that exist, above 0 up to 1, of each hidden layer and
                         of all layers of `network` that name none; None: dense.  'auto': 0.1, but no
                         hidden unit has fewer than 8 inputs, or all where there are fewer
      scheme = None      which connections may exist, as in mest.Linear; None: any
      method = 'em&s'    how they move in training, as in Config; "static": not at all.  Where
                         everything is dense it says nothing
      epochs = 50        passes over the data; from 2 on for methods that come to rest, as EM&S does at
                         3/4 of them
      batch_size = 32    samples in a step; at most those there are
      learning_rate = 0.1, momentum = 0.9, weight_decay = 0.001, clip_norm = 1.0
                         of SGD.  clip_norm, the largest length of a gradient, keeps features that are
                         not scaled from ruining training; None: any
      schedule = 'cosine'  of the learning rate: "cosine" down to 0 in the last epoch, "constant"
      early_stopping = False  True: a part of the data is held out, training ends when the score on
                         it gets no better, and the best state is kept: Plan.checkpoint_bytes more
                         memory.  Counted from when the network is as sparse as asked: EM&S is above
                         that until 3/4 of the epochs
      validation_fraction = 0.1  the part{held}
      n_iter_no_change = 10  epochs without a score that is better by `tol` before training ends
      tol = 0.0001
      warm_start = False  True: fit begins with the connections and weights of the fit before;
                         optimizer, schedule and counts begin anew
      random_state = None  seed of all that is random, or a RandomState that draws it.  The same
                         seed gives the same bits whatever n_jobs and machine
      n_jobs = None      threads, -1: one a processor; None: at most 4, and OMP_NUM_THREADS where it is
                         set, as joblib sets it in its workers
      verbose = False    True: a line an epoch
      config = None      a dict of further fields of Config: {{"importance_lambda": 0.01}},
                         {{"budget_bytes": 2**20}}, ...

    Attributes after fit
      {own}
      n_features_in_, feature_names_in_  (where X had names that are strings), n_outputs_
      model_             the mest.Model; what it is made of: `model_.csr(1)`, `model_.tensor(1)`
      plan_              its memory, every byte; print it
      density_           share of the connections of sparse layers that exist
      n_iter_            epochs trained, of partial_fit calls
      loss_curve_, loss_  training loss of each, and the last
      history_           a record an epoch: history_.column("grown"); empty after partial_fit alone
      validation_scores_, best_validation_score_  of early_stopping; None without
      training_rows_     rows of X that were trained on: all, without early_stopping

    partial_fit takes data as they come: each call is one pass over X at a constant learning rate,
    and memory stays what it was at the first call, whatever the size of X: batches of batch_size.  The
    network and its method are those of the first call; learning_rate, momentum, weight_decay, clip_norm
    and batch_size may change.  An epoch, by which methods count when to mutate and when to rest, is
    a call, or as many as 32 updates take: "em&s" has up to 0.05 above `density` for 3/4 of `epochs`
    such epochs, and rests then; "vanilla" and "set" are always at it, and go on adapting.  After fit
    it goes on with the fitted model, whose connections rest.  A call that fails midway keeps what the
    batches before have taught.

    Features are not scaled here: put a StandardScaler before, as for any network.  There are no
    sample weights and no class_weight, since the library has none.  Threads may share an
    estimator; calls of one model take turns.  pickle, copy.deepcopy and joblib.dump keep all of it: a
    copy predicts, and goes on training, to the same bits.  Errors: ValueError for what cannot be
    meant, and those of `mest.errors`, DivergedError for instance; the attributes are then as they were
    before.
"""


class MestClassifier(sk.ClassifierMixin, Learner):
    _loss = "cross_entropy"
    classes_: NDArray[Any]

    def fit(self: C, X: ArrayLike, y: ArrayLike) -> C:
        """Trains a new network.  X: (n, features) numbers; y: (n,) labels of any kind."""
        with as_before(self):
            x, labels = self._data(X, y, reset=True)
            classes, numbers = np.unique(labels, return_inverse=True)
            if self.warm_start and hasattr(self, "model_") and not np.array_equal(classes, self.classes_):
                raise ValueError(f"warm_start: y has the classes {classes}, fitted were {self.classes_}")
            self._fit(x, numbers.astype(np.int32), len(classes))
            self.classes_ = classes
            self.forgetting_ = self.model_.forgetting()
        return self

    def partial_fit(self: C, X: ArrayLike, y: ArrayLike, classes: Optional[ArrayLike] = None) -> C:
        """Trains on: one pass over X.  classes: all labels that will ever come, needed in the first
        call, where nothing has been fitted before."""
        new = not hasattr(self, "model_")
        if new and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit")
        known = np.unique(np.asarray(classes)) if new else self.classes_
        if not new and classes is not None and not np.array_equal(np.unique(np.asarray(classes)), known):
            raise ValueError(f"classes={classes!r} is not the same as on the first call: {known}")
        with as_before(self):
            x, labels = self._data(X, y, reset=new)
            strange = np.setdiff1d(labels, known)
            if len(strange):
                raise ValueError(f"y has the labels {strange}, which are not among the classes {known}")
            self._partial_fit(x, np.searchsorted(known, labels).astype(np.int32), len(known))
            self.classes_ = known
        return self

    def _data(self, X: ArrayLike, y: ArrayLike, reset: bool) -> Any:
        x, labels = sk.samples_and_targets(self, X, y, reset, numbers=False)
        sk.check_classes(labels)
        return x, labels

    def _score(self, model: Model, record: EpochRecord, x: Floats, y: NDArray[Any]) -> float:
        return record.validation_accuracy

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """(n,) labels."""
        best = self._outputs(X).argmax(1)
        found: NDArray[Any] = self.classes_[best]
        return found

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Outputs before the softmax, (n, classes); of two classes (n,): the second's minus the first's."""
        outputs = self._outputs(X).astype(np.float64)
        if len(self.classes_) == 2:
            return outputs[:, 1] - outputs[:, 0]
        return outputs if len(self.classes_) > 2 else outputs[:, 0]

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """(n, classes) logarithms of probabilities, finite also where those are 0."""
        outputs = self._outputs(X).astype(np.float64)  # float32 would round 1 - 1e-8 to 1
        outputs -= outputs.max(1, keepdims=True)
        logarithms: NDArray[np.float64] = outputs - np.log(np.exp(outputs).sum(1, keepdims=True))
        return logarithms

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """(n, classes) probabilities, columns as in classes_."""
        return np.exp(self.predict_log_proba(X))


class MestRegressor(sk.RegressorMixin, Learner):
    _loss = "mse"

    def fit(self: R, X: ArrayLike, y: ArrayLike) -> R:
        """Trains a new network.  X: (n, features), y: (n,) or (n, outputs) numbers."""
        with as_before(self):
            x, targets, flat = self._data(X, y, reset=True)
            scaling = scaling_of(targets)
            self._fit(x, scaled(targets, *scaling), targets.shape[1])
            (self.y_mean_, self.y_scale_), self._flat = scaling, flat
        return self

    def partial_fit(self: R, X: ArrayLike, y: ArrayLike) -> R:
        """Trains on: one pass over X.  y is scaled as the first call, or fit, has found it: let that
        one have a good sample of it."""
        new = not hasattr(self, "model_")
        with as_before(self):
            x, targets, flat = self._data(X, y, reset=new)
            if not new and targets.shape[1] != self.n_outputs_:
                raise ValueError(f"y has {targets.shape[1]} targets, fitted were {self.n_outputs_}")
            scaling = scaling_of(targets) if new else (self.y_mean_, self.y_scale_)
            self._partial_fit(x, scaled(targets, *scaling), targets.shape[1])
            (self.y_mean_, self.y_scale_), self._flat = scaling, flat
        return self

    def _data(self, X: ArrayLike, y: ArrayLike, reset: bool) -> Any:
        x, targets = sk.samples_and_targets(self, X, y, reset, numbers=True)
        if targets.ndim == 2 and targets.shape[1] == 1:
            targets = sk.column(targets, warn=True)
        return x, targets.astype(np.float64).reshape(len(x), -1), targets.ndim == 1

    def _score(self, model: Model, record: EpochRecord, x: Floats, y: NDArray[Any]) -> float:
        return r2(y, model.predict(x))

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """(n,) numbers, or (n, outputs) where y had several."""
        found: NDArray[np.float64] = self._outputs(X) * self.y_scale_ + self.y_mean_
        return found.ravel() if self._flat else found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.target_tags.multi_output = True
        return tags

    def _more_tags(self) -> Any:  # the same before scikit-learn 1.6
        return {"multioutput": True}


def scaling_of(targets: NDArray[np.float64]) -> Any:
    """Mean and standard deviation of each target; 1 for one that is constant but for rounding."""
    mean, deviation = targets.mean(0), targets.std(0)
    constant = deviation <= 10 * np.finfo(np.float64).eps * np.abs(mean)
    return mean, np.where(constant, 1.0, deviation)


def scaled(targets: NDArray[np.float64], mean: Any, scale: Any) -> Floats:
    return np.ascontiguousarray((targets - mean) / scale, np.float32)


MestClassifier.__doc__ = """A network that trains sparse, as a scikit-learn classifier: cross-entropy of
    the softmax.
""" + _PARAMETERS.format(
    held="; of each class about the same share",
    own="""classes_           the labels, ascending: columns of predict_proba
      forgetting_        which samples were answered wrongly after they had been right: forgetting_.counts,
                         one for each of training_rows_; of the last fit""",
)
MestRegressor.__doc__ = """A network that trains sparse, as a scikit-learn regressor: mean squared error.

    y is scaled to mean 0 and deviation 1, each target by itself, and predictions back: losses, and
    loss_curve_, are those of scaled targets.  Like TransformedTargetRegressor with StandardScaler.
""" + _PARAMETERS.format(
    held="", own="y_mean_, y_scale_  (outputs,), how y was scaled"
)
