# SPDX-License-Identifier: Apache-2.0
"""Steps in slices, as Python has them; Tests/c/slices.c has the rest."""

import numpy as np
import pytest
from support import X, Y, fingerprint, tiny

import mest


def test_slices_make_a_step():
    whole, sliced = tiny(learning_rate=0.1), tiny(learning_rate=0.1)
    for quantum in (0, 7, 50, 2**63):
        expected = whole.step(X, Y)
        slices, report = 1, sliced.step_slice(X, Y, quantum=quantum)
        while report is None:
            slices, report = slices + 1, sliced.step_slice(X, Y, quantum=quantum)
        assert report == expected
        assert (slices == 1) == (quantum == 2**63)
    assert fingerprint(whole) == fingerprint(sliced)


def test_a_step_in_work_is_finished_or_dropped():
    model = tiny(learning_rate=0.1)
    before = fingerprint(model)
    assert model.step_slice(X, Y) is None
    with pytest.raises(mest.StateError, match="a step is in work"):
        model.predict(X)
    with pytest.raises(mest.MestArgumentError, match="4 samples is in work, this batch has 3"):
        model.step_slice(X[:3], Y[:3])
    model.cancel()
    with pytest.raises(mest.CancelledError):
        model.step_slice(X, Y)
    assert fingerprint(model) == before
    assert np.isfinite(model.predict(X)).all()


@pytest.mark.parametrize("quantum, error", [(-1, ValueError), (2**64, ValueError), (0.5, ValueError), ("1", TypeError)])
def test_quanta(quantum, error):
    with pytest.raises(error, match="quantum"):
        tiny().step_slice(X, Y, quantum=quantum)
