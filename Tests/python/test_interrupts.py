# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C while fit trains, at any moment: files are closed and whole, the model is kept, no signal is lost.

Each case is a process of its own that trains with callbacks, a checkpoint, a record and tqdm on a real
terminal, is interrupted, and then says what is left.
"""

import json
import os
import random
import signal
import struct
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from test_header import run_python

import mest

pytestmark = pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")

CHILD = """
import json, os, signal, sys
sys.path.insert(0, {tests!r})
import numpy as np
import mest
from support import fingerprint, tiny

signal.alarm(120)  # a signal that is lost must not hang the test
signal.signal(signal.SIGINT, signal.default_int_handler)
moment, again, folder = sys.argv[1:]
rng = np.random.default_rng(0)
x, y = rng.normal(size=(60, 4)).astype(np.float32), rng.integers(0, 3, 60)
seen = []

def learner(**more):
    return tiny(samples=60, batch=10, epochs=20000, method="em", mutation_every=2, **more)

def hit(now, epoch):
    if now == moment and epoch == 3 and now not in seen:
        seen.append(now)
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(1000))  # where Python hears it

class Hits(mest.Callback):
    def mutation(self, model, report): hit("mutation", 3 if report.epoch == 2 else 0)
    def step(self, model, report): hit("step", report.epoch)
    def epoch(self, model, record): hit("epoch", record.epoch)
    def saving(self, model, path): hit("saving", model._epoch)
    def end(self, model, history, reason):
        seen.append(reason)
        if again == "again":
            os.kill(os.getpid(), signal.SIGINT)
            sum(range(1000))

def progress(at):  # once, before an epoch begins with a mutation, which nothing stops any more
    if at.stage == "mutate": hit("new epoch", model._epoch)

class Begun(mest.Callback):
    def begin(self, model): print("begun", flush=True)  # the last one: all others have, too

def augment(batch, rng):
    hit("augment", model._epoch)
    return batch

def batches(epoch):
    for i in range(0, 60, 10):
        hit("iterable", epoch)
        yield x[i:i + 10], y[i:i + 10], np.arange(i, i + 10)

def validation():
    hit("validation", model._epoch)
    yield x, y

model = learner(**({{"on_progress": progress}} if moment == "new epoch" else {{}}))
log = mest.record(os.path.join(folder, "run.jsonl"))
raised = None
try:
    model.fit(
        batches, validation=validation, augment=augment, checkpoint=os.path.join(folder, "c"),
        callbacks=[Hits(), mest.early_stopping(100000), log, Begun()], progress=True,
    )
except BaseException as error:
    raised = type(error).__name__
import tqdm
bars = len(getattr(tqdm.tqdm, "_instances", ()))
signal.signal(signal.SIGINT, signal.SIG_IGN)
epochs, steps = len(model.history), model._epoch
more = model.fit(batches, validation=validation, epochs=1, progress=False)
run = mest.read_run(os.path.join(folder, "run.jsonl"))
resumed = learner()
resumed.fit(batches, validation=validation, checkpoint=os.path.join(folder, "c"), epochs=epochs + 1, progress=False)
whole = learner()
whole.fit(batches, validation=validation, epochs=epochs + 1, progress=False)
print(json.dumps({{
    "raised": raised, "seen": seen, "epochs": epochs, "begun": steps + 1, "more": more[0].epoch, "bars": bars,
    "open": log._file is not None, "end": run.end["reason"], "message": run.end["message"],
    "recorded": [e["epoch"] for e in run.epochs], "same": fingerprint(resumed) == fingerprint(whole),
}}))
""".format(tests=str(ROOT / "Tests" / "python"))


def start(folder, moment, again="once"):
    """The process, its stderr a terminal."""
    import fcntl
    import termios

    terminal, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, moment, again, str(folder)], stdout=subprocess.PIPE, stderr=theirs, text=True,
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(mest.__file__))},
    )  # fmt: skip
    os.close(theirs)
    return child, terminal


def finish(child, terminal):
    """What it said, and what was seen on its terminal."""
    screen = b""
    try:
        while True:
            part = os.read(terminal, 65536)
            if not part:
                break
            screen += part
    except OSError:  # closed at the other side
        pass
    out, _ = child.communicate(timeout=60)
    os.close(terminal)
    assert child.returncode == 0, screen.decode()
    return json.loads(out.splitlines()[-1]), screen.decode()


def check(found, screen):
    assert found["raised"] == "KeyboardInterrupt" and "interrupted" in found["seen"]
    assert not found["open"] and found["bars"] == 0
    assert found["end"] == "interrupted" and found["message"] == "KeyboardInterrupt"
    assert found["more"] == found["begun"]  # the next fit begins a new epoch
    assert found["same"]  # the checkpoint is that of a complete epoch
    assert "Exception ignored" not in screen


@pytest.mark.parametrize(
    "moment, epochs",
    [
        ("step", 3), ("mutation", 2), ("epoch", 4), ("saving", 4), ("augment", 3), ("iterable", 3), ("validation", 3),
        ("new epoch", 4),
    ],
)
def test_ctrl_c_at(tmp_path, moment, epochs):
    found, screen = finish(*start(tmp_path, moment))
    check(found, screen)
    assert found["epochs"] == epochs and found["seen"] == [moment, "interrupted"]
    assert found["recorded"] == list(range(epochs))  # as in the history
    assert "epoch 1: " in screen  # tqdm was there


def test_a_second_ctrl_c_while_it_ends(tmp_path):
    """Those after the callback that it hits are told all the same."""
    found, screen = finish(*start(tmp_path, "step", "again"))
    check(found, screen)


def test_ctrl_c_at_any_time(tmp_path):
    """From outside, whenever it comes."""
    rng = random.Random(5)
    for number in range(4):
        folder = tmp_path / str(number)
        folder.mkdir()
        child, terminal = start(folder, "never")
        assert child.stdout.readline() == "begun\n"
        time.sleep(0.3 * rng.random())
        child.send_signal(signal.SIGINT)
        found, screen = finish(child, terminal)
        check(found, screen)
        assert found["recorded"] in [list(range(found["epochs"] - lost)) for lost in (0, 1)]  # as it was written


def alone(program, **given):
    """What it prints as JSON, in a process of its own that Ctrl-C interrupts, with names of its own for what is given."""
    done = run_python(
        f"""
import gc, io, json, os, signal, sys
sys.path.insert(0, {str(ROOT / "Tests" / "python")!r})
import numpy as np
import mest
from support import Terminal, tiny

signal.signal(signal.SIGINT, signal.default_int_handler)
ignored = []
sys.unraisablehook = lambda what: ignored.append(f"{{what.exc_value!r}} in {{what.object!r}}")
x, y = np.ones((12, 4), np.float32), np.zeros(12, np.int32)
globals().update({given!r})
{program}"""
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return json.loads(done.stdout)


EVERY_LINE = """
import tqdm

def fit_until(line):
    # Whether Ctrl-C came at that line of tqdm's, what fit raised, and the bars that are left.
    left, raised = line, None

    def of_tqdm(frame, event, argument):
        nonlocal left
        left -= event == "line"
        if event == "line" and left == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return of_tqdm

    model, sys.stderr = tiny(samples=12), Terminal()
    sys.settrace(lambda frame, event, argument: of_tqdm if frame.f_code.co_filename == tqdm.std.__file__ else None)
    try:
        model.fit(x, y, epochs=1)
    except BaseException as error:
        raised = type(error).__name__
    finally:
        sys.settrace(None)
        sys.stderr = sys.__stderr__
    return left <= 0, raised, len(tqdm.tqdm._instances)

sys.stdout = io.StringIO()
found = [fit_until(1)]
while found[-1][0]:
    found.append(fit_until(len(found) + 1))
sys.stdout = sys.__stdout__
print(json.dumps([ignored, found]))
"""


def test_ctrl_c_at_every_line_of_a_bar():
    """While tqdm builds a bar too, and while it closes one: half a bar would complain on its own, later, and a signal
    in what Python collects would be lost."""
    ignored, (*found, last) = alone(EVERY_LINE)
    assert len(found) > 100 and last == [False, None, 0]  # all of its lines
    assert not ignored and all(raised == "KeyboardInterrupt" and bars == 0 for _, raised, bars in found)


WHILE_IMPORTED = """
sys.path.insert(0, folder)
sys.stderr = Terminal()
try:
    tiny(samples=12).fit(x, y, epochs=1)
except BaseException as error:
    print(json.dumps(type(error).__name__))
"""

A_TQDM = """
import os, signal

class Hit:
    def __set_name__(self, owner, name): os.kill(os.getpid(), signal.SIGINT)

class tqdm:
    hit = Hit()
    def __init__(self, **_): pass
    def close(self): pass
"""


def test_ctrl_c_while_tqdm_is_imported(tmp_path):
    """Python 3.11 makes a RuntimeError of what is raised in the middle of a class."""
    (tmp_path / "tqdm.py").write_text(A_TQDM)
    assert alone(WHILE_IMPORTED, folder=str(tmp_path)) == "KeyboardInterrupt"


AT_A_CALLBACK = """
called, raised = False, None

def trace(frame, event, argument):  # when it begins, before it can catch anything
    global called
    if frame.f_code.co_name == name and os.path.dirname(frame.f_code.co_filename) == os.path.dirname(mest.__file__):
        called = True
        sys.settrace(None)
        os.kill(os.getpid(), signal.SIGINT)

sys.settrace(trace)
try:
    heard = {"on_progress": lambda at: None} if name == "_progress" else {}
    model = tiny(method="em", mutation_every=1, epochs=20, samples=12, **heard)
    model.load_bytes(model.to_bytes())
    for epoch in range(3):
        model.begin_epoch()
    model.close()
except BaseException as error:
    raised = type(error).__name__
sys.settrace(None)
gc.collect()
print(json.dumps([called, raised, ignored]))
"""


@pytest.mark.parametrize("name", ["_allocate", "_log", "_progress", "_write", "_sync", "_read", "_release"])
def test_ctrl_c_as_a_callback_begins(name):
    """Python hears it there before the first line; what is raised then is lost in C."""
    assert alone(AT_A_CALLBACK, name=name) == [True, "KeyboardInterrupt", []]
