# SPDX-License-Identifier: Apache-2.0
"""A model's life in Python: views, threads, cancel, callbacks, Ctrl-C, copies, fork."""

import gc
import os
import signal
import sys
import threading
import time
import warnings
import weakref

import numpy as np
import pytest
from support import X, Y, fingerprint, tiny
from test_header import run_python

import mest
from mest import Conv2d, Flatten, Input, Linear, _abi, _environment

# ---------------------------------------------------------------------- life, threads, views ---


def test_closed():
    with tiny() as model:
        model.step(X, Y)
    assert model.closed and repr(model) == "Model (closed)" and model.memory.current == 0
    for call in (
        lambda: model.step(X, Y),
        lambda: model.predict(X),
        model.begin_epoch,
        lambda: model.tensor(1),
    ):
        with pytest.raises(mest.StateError, match="closed"):
            call()
    model.close()
    model.cancel()


def test_repr_and_plan():
    model = tiny(density=0.3)
    for text in (repr(model), str(model.plan())):
        assert "8x4" in text and "0.5" in text and "dense" in text
    assert f"{model.plan().total_bytes:,}" in repr(model)
    assert model.plan() == mest.plan(model.layers, batch=4, density=0.3)


def test_views():
    """No copy, read-only, live, and alive when the model is gone."""
    model = tiny(learning_rate=1.0)
    csr = model.csr(1)
    assert not any(a.flags.writeable or a.flags.owndata for a in csr)
    before = csr.values.copy()
    model.step(np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32), Y)
    assert (csr.values != before).any() and (csr.values == model.tensor(1, "weight")).all()
    owner = weakref.ref(model._environment.block)
    model.close()
    del model
    csr.values.sum()  # stale, but still memory of this process
    assert owner() is not None
    del csr
    gc.collect()
    assert owner() is None


def test_csr_goes_into_scipy():
    sparse = pytest.importorskip("scipy.sparse")
    model = tiny()
    csr, part = model.csr(1), model.plan().layers[1]
    matrix = sparse.csr_matrix((csr.values, csr.indices, csr.indptr), (part.rows, part.columns))
    one = mest.Model([Input(4), Linear(8, density=0.5)], batch=4)
    one.set_csr(1, *csr)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.testing.assert_allclose(one.predict(x), (matrix @ x.T).T, rtol=1e-5, atol=1e-6)


def test_csr_round_trip():
    model = tiny()
    csr = [a.copy() for a in model.csr(1)]
    momentum = np.arange(len(csr[2]), dtype=np.float32)
    model.set_csr(1, *csr, momentum=momentum)
    assert all((a == b).all() for a, b in zip(csr, model.csr(1)))
    assert (model.tensor(1, "weight_momentum") == momentum).all()
    model.set_csr(1, model.csr(1), momentum=momentum)  # views of what is being replaced
    assert all((a == b).all() for a, b in zip(csr, model.csr(1)))
    assert (model.tensor(1, "weight_momentum") == momentum).all()
    for wrong in ((model.csr(1), csr[1]), (csr[0],)):
        with pytest.raises(TypeError, match="CSR"):
            model.set_csr(1, *wrong)


def test_names_and_layers_as_references():
    body = Linear(8, density=0.5, name="body")
    model = mest.Model([Input(4), body, Linear(3, density=1.0)], batch=4)
    for reference in (1, "body", body):
        assert (model.tensor(reference, "bias") == model.tensor(1, "bias")).all()


def big(**more):
    layers = [
        Input(16, 32, 32),
        Conv2d(64, 3, padding=1, density=0.5),
        Flatten(),
        Linear(2, density=0.001),
    ]
    return mest.Model(layers, batch=16, **more), np.zeros((64, 16, 32, 32), np.float32)


def test_two_threads():
    """A second call that overlaps is refused and the first goes on."""
    entered, leave = threading.Event(), threading.Event()

    def wait(_):
        entered.set()
        leave.wait(30)

    model, x = big(on_progress=wait)
    results = []
    worker = threading.Thread(target=lambda: results.append(model.predict(x)))
    worker.start()
    assert entered.wait(30)
    for call in (lambda: model.predict(x), model.begin_epoch, model.close, lambda: model.csr(1)):
        with pytest.raises(mest.StateError, match="in use"):
            call()
    assert "Model" in repr(model)
    leave.set()
    worker.join(30)
    assert len(results) == 1 and results[0].shape == (64, 2)


def test_models_in_many_threads():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 4)).astype(np.float32), rng.integers(0, 3, 4)
    hashes = []

    def train():
        model = tiny(threads=1)
        for _ in range(50):
            model.step(x, y)
        hashes.append(fingerprint(model))

    workers = [threading.Thread(target=train) for _ in range(6)]
    [w.start() for w in workers]
    [w.join(60) for w in workers]
    assert len(hashes) == 6 and len(set(hashes)) == 1


def test_cancel():
    """Before a call: that call.  During one, from another thread: that one.  Used up afterwards."""
    model, x = big()
    before = fingerprint(model)
    model.cancel()
    with pytest.raises(mest.CancelledError):
        model.step(x[:16], np.zeros(16, int))
    assert fingerprint(model) == before
    started = threading.Event()
    model, x = big(on_progress=lambda _: started.set())
    many = np.repeat(x, 20, axis=0)
    stopper = threading.Thread(target=lambda: (started.wait(30), model.cancel()))
    stopper.start()
    with pytest.raises(mest.CancelledError):
        model.predict(many)
    stopper.join(30)
    model.predict(x[:1])


# ---------------------------------------------------------------------------------- callbacks ---


class Oops(Exception):
    pass


def raise_oops(*_):
    raise Oops("from the callback")


def test_exception_in_progress():
    model = tiny(on_progress=raise_oops)
    before = fingerprint(model)
    for call in (lambda: model.step(X, Y), lambda: model.predict(X), lambda: model.evaluate(X, Y)):
        with pytest.raises(Oops):
            call()
    assert fingerprint(model) == before
    model._environment.on_progress = lambda _: None
    model.step(X, Y)


def test_progress_may_stop():
    seen = []
    model = tiny(
        on_progress=lambda p: seen.append(p) or len(seen) == 2, method="em", epochs=4, samples=4
    )
    model.begin_epoch()
    with pytest.raises(mest.CallbackError):
        for _ in range(3):
            model.step(X, Y)
    assert {p.stage for p in seen} <= {"step", "mutate"}
    seen[:] = [0] * 5
    model.predict(X), model.evaluate(X, Y)
    assert {p.stage for p in seen[5:]} == {"predict", "evaluate"}
    assert all(0 <= p.done <= p.total for p in seen[5:])


def test_exception_in_log():
    """Stored and raised after the call, whenever the library has something to say."""
    environment = tiny()._environment
    environment.on_log = raise_oops
    with pytest.raises(Oops), environment.during():
        environment.struct.log(_abi.MEST_LOG_INFO, b"hello", None)
    with environment.during():
        pass


def test_log_goes_to_logging(caplog):
    environment = tiny()._environment
    with caplog.at_level("INFO", logger="mest"):
        environment.struct.log(_abi.MEST_LOG_WARNING, "wörds".encode(), None)
    assert caplog.records[0].levelname == "WARNING" and caplog.records[0].message == "wörds"


def test_no_memory(monkeypatch):
    def refuse(*_):
        raise MemoryError

    monkeypatch.setattr(np, "empty", refuse)
    with pytest.raises(mest.MestMemoryError):
        tiny()
    monkeypatch.setattr(np, "empty", raise_oops)
    with pytest.raises(Oops):
        tiny()


@pytest.mark.parametrize("on_progress", [None, lambda _: None], ids=["quiet", "with progress"])
def test_ctrl_c(on_progress):
    """The call stops, or ends; KeyboardInterrupt is raised; the model is usable."""
    model, x = big(on_progress=on_progress)
    many = np.repeat(x, 30, axis=0)
    model.predict(x)
    timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        while time.perf_counter() < start + 20:
            model.predict(many)
    assert time.perf_counter() < start + 10
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    model.predict(x)


@pytest.mark.parametrize("micro", [1, 3])
def test_ctrl_c_in_fit(micro):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, 4)).astype(np.float32), rng.integers(0, 3, 90)
    steps = []

    def interrupt(batch, _):
        steps.append(len(batch))
        if len(steps) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return batch

    model = tiny(batch=10, samples=90, epochs=9, micro_batches=micro)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, augment=interrupt, progress=False)
    assert len(steps) <= 6
    history = model.fit(x, y, 2, progress=False)
    assert history.column("epoch").tolist() == [1, 2]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that interrupts")
def test_an_interrupt_never_leaves_a_model_locked():
    """Wherever in a short call it comes: the next call works."""
    model, interrupts = tiny(), 0

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for n in range(3000):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-6 * (20 + n % 60))
                for _ in range(20):
                    model.predict(X)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupts += 1
            model.predict(X)
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupts > 100


@pytest.mark.parametrize("then", ["ctrl-c", "same model", "another model"])
def test_no_exception_of_another_signal_takes_ctrl_c_away(then):
    """Raised at any line of what keeps Ctrl-C until a call is over: it is heard at once, and after the next call."""
    models, at, left = [tiny(), tiny()], 0, 0

    class Alarm(Exception):
        pass

    while True:
        at += 1
        events = 0

        def trace(frame, event, _):
            nonlocal events
            if frame.f_code.co_filename != _environment.__file__:
                return None
            events += 1
            if events == at:
                raise Alarm
            return trace

        sys.settrace(trace)
        try:
            models[0].predict(X)
            break
        except Alarm:
            pass
        finally:
            sys.settrace(None)
        left += signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        if then == "ctrl-c":
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
                sum(range(1000))  # where Python hears it
        else:
            models[then == "another model"].predict(X)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert at > 15 and left > 0


def test_copies_are_announced_once():
    model = tiny()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.step(X, Y)
        model.step(X.reshape(4, 4, 1, 1), Y)
        model.step([[1, 2, 3, 4]], [0])
    model = tiny()
    with pytest.warns(mest.CopyWarning, match="float64"):
        model.step(X.astype(float), Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.step(X.astype(float), Y)
    with pytest.warns(mest.CopyWarning, match="non-contiguous"):
        tiny().predict(np.ones((4, 8), np.float32)[:, ::2])


class Tensor:
    """What of a tensor of torch is asked for here."""

    def __init__(self, array):
        self.array, self.dtype = array, f"torch.{array.dtype}"

    def detach(self):
        return self

    def cpu(self):
        return self.array


def test_bytes_are_told_to_be_scaled():
    pictures = np.array([[0, 255, 3, 4]] * 4, np.uint8)
    scale = r"numbers up to 255.*x.astype\(np.float32\) / 255"
    with pytest.warns(mest.CopyWarning, match="uint8: pass C-contiguous float32.*" + scale):
        tiny().step(pictures, Y)
    for batches in ([(pictures, Y)] * 2, [(Tensor(pictures), Y)] * 2):
        with pytest.warns(mest.CopyWarning, match="^batch 0: x (was copied|is uint8).*" + scale) as told:
            tiny().fit(batches, epochs=1, progress=False)
        assert [w.filename for w in told] == [__file__]
    with pytest.warns(mest.CopyWarning) as told:  # 0 and 1 are no grey
        tiny().step(np.ones((4, 4), np.uint8), Y)
    assert "scale" not in str(told[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny().step(Tensor(np.ones((4, 4), np.uint8)), Y)
        tiny().step(Tensor(X), Y)


def test_copies_are_announced_where_they_are_asked_for():
    x = X.astype(float)
    for call in (
        lambda model: model.step(x, Y),
        lambda model: model.predict(x),
        lambda model: model.predict_proba(x),
        lambda model: model.evaluate(x, Y),
    ):
        with pytest.warns(mest.CopyWarning, match="^x was copied") as told:
            call(tiny())
        assert [w.filename for w in told] == [__file__]
    with pytest.warns(mest.CopyWarning, match="^the training array x was copied") as told:
        tiny(epochs=2).fit(x, Y, validation=(x, Y), progress=False)
    assert [w.filename for w in told] == [__file__]
    with pytest.warns(mest.CopyWarning, match="^the validation array x was copied") as told:
        tiny(epochs=2).fit(X, Y, validation=(x, Y), progress=False)
    assert [w.filename for w in told] == [__file__]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_child_has_its_own_copy(threads):
    """As servers and process pools do it: the model is made before, used after.  mest.h: Fork."""
    done = run_python(
        "import mest, numpy as np, os, sys\n"
        "x, y = np.random.default_rng(0).normal(size=(64, 64)).astype('f'), np.arange(64) % 10\n"
        f"m = mest.Model(mest.mlp(64, [512], 10), batch=64, density=0.5, threads={threads})\n"
        "m.step(x, y)\n"
        "pid = os.fork()\n"
        "steps = 3 if pid == 0 else 1\n"  # what one of them does the other does not see
        "for _ in range(steps): m.step(x, y)\n"
        # One write a line: two processes have the same pipe.
        "def tell(n): os.write(1, f'{n} {hash(m.predict(x).tobytes())} {m.step(x, y).update}\\n'.encode())\n"
        "tell(steps)\n"
        "if pid == 0: sys.exit(7)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7\n"
        "for _ in range(1): m.step(x, y)\n"
        "tell(3)\n",
    )
    assert done.returncode == 0, done.stderr
    lines = sorted(done.stdout.splitlines())
    assert len(lines) == 3 and lines[0].startswith("1 ") and lines[1] == lines[2] and lines[1].endswith(" 5")
