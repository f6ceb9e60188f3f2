# SPDX-License-Identifier: Apache-2.0
"""Networks outside of models: weights by name out and in, models of weights, nothing changed by a failure."""

import cases
import numpy as np
import pytest
from support import dense_weight, fingerprint, randomise

import mest
from mest import BatchNorm, Conv2d, Dropout, Flatten, GlobalAvgPool, Input, Linear, Network, ReLU
from mest.exchange.graph import copied, living
from mest.exchange.prune import keep

NETWORKS = {
    "residual": cases.residual,
    "depthwise": cases.depthwise,
    **{scheme: lambda s=scheme: cases.of_scheme(s) for scheme in cases.SCHEMES},
    **{f"{scheme} conv": lambda s=scheme: cases.conv_of_scheme(s) for scheme in cases.SCHEMES},
}


def made(layers, seed=0, **config):
    model = mest.Model(layers, **{"batch": 4, "threads": 1, "seed": seed, **config})
    randomise(model, np.random.default_rng(seed))
    return model


def samples(model, count=4, seed=1):
    shape = model.plan().layers[0].shape
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def picture(scheme=None, density=None, **config):
    """1 x 6 x 6 -> two convolutions with batch norm -> 3."""
    layers = [
        Input(2, 6, 6), Conv2d(8, 3, padding=1, name="first"), BatchNorm(name="norm"), ReLU(),
        Conv2d(8, 3, padding=1, bias=False, name="second"), ReLU(), GlobalAvgPool(),
        Dropout(0.1), Linear(3, density=1.0, name="last"),
    ]  # fmt: skip
    return made(layers, scheme=scheme, density=density, **config)


# ---------------------------------------------------------------------------------- state_dict ---


@pytest.mark.parametrize("name", NETWORKS)
def test_state_dict_is_the_dense_network(name):
    model = made(NETWORKS[name]())
    state = model.state_dict()
    for index, (layer, part) in enumerate(zip(model.layers, model.plan().layers)):
        if isinstance(layer, (Linear, Conv2d)):
            weight = state[f"{part.name}.weight"]
            assert weight.dtype == np.float32 and weight.shape[0] == part.rows
            assert weight.ndim == (2 if isinstance(layer, Linear) else 4)
            assert np.array_equal(weight.reshape(part.rows, -1), dense_weight(model, index))
            assert (f"{part.name}.bias" in state) == layer.bias
        if isinstance(layer, BatchNorm):
            assert np.array_equal(state[f"{part.name}.weight"], model.tensor(index, "scale"))
            assert np.array_equal(state[f"{part.name}.running_var"], model.tensor(index, "running_var"))
    state[next(iter(state))][:] = 7  # a copy
    assert model.state_dict()[next(iter(state))].flat[0] != 7


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_into_another_model(name, masks):
    model, other = made(NETWORKS[name]()), made(NETWORKS[name](), seed=5)
    x = samples(model)
    assert not np.array_equal(model.predict(x), other.predict(x))
    keys = other.load_state_dict(model.state_dict(masks=masks))
    assert keys == ([], [])
    assert np.array_equal(model.predict(x), other.predict(x))
    assert other.connections() == model.connections()
    again = other.state_dict()
    assert all(np.array_equal(array, again[key]) for key, array in model.state_dict().items())


def test_momentum_begins_at_zero():
    model = picture(density=0.4)
    x, y = samples(model), np.zeros(4, int)
    model.step(x, y)
    state = model.state_dict()
    model.load_state_dict(state)
    assert not model.tensor("first", "weight_momentum").any()
    assert not model.tensor("last", "weight_momentum").any() and not model.tensor("norm", "scale_momentum").any()
    twin = picture(density=0.4, seed=3)
    twin.load_state_dict(state)
    assert fingerprint(model) == fingerprint(twin)


def test_connections_that_are_zero():
    """What a mutation has grown is 0: masks keep it, names alone keep what the scheme needs."""
    model = picture("fan_in", 0.3, method="vanilla", epochs=4)
    model.mutate()
    assert (model.csr("first").values == 0).any()
    other = picture("fan_in", 0.3, seed=1, method="vanilla", epochs=4)
    other.load_state_dict(model.state_dict(masks=True))
    assert np.array_equal(other.csr("first").indices, model.csr("first").indices)
    other.load_state_dict(model.state_dict())
    assert len(set(np.diff(other.csr("first").indptr))) == 1
    x = samples(model)
    assert np.array_equal(other.predict(x), model.predict(x))


class TensorLike:
    """The methods of torch.Tensor that are used, no more."""

    def __init__(self, array, layout="torch.strided", where="cuda"):
        self.array, self.layout, self.where = array, layout, where

    def detach(self):
        return TensorLike(self.array, self.layout, self.where)

    def to_dense(self):
        return TensorLike(self.array, where=self.where)

    def cpu(self):
        return TensorLike(self.array, self.layout, "cpu")

    def is_floating_point(self):
        return True

    def float(self):
        return TensorLike(self.array.astype(np.float32), self.layout, self.where)

    def numpy(self):
        assert self.where == "cpu" and "strided" in self.layout
        return self.array


def test_what_arrays_may_be():
    scipy = pytest.importorskip("scipy.sparse")
    model, other = picture(density=0.4), picture(density=0.4, seed=2)
    state = model.state_dict()
    state["first.weight"] = TensorLike(state["first.weight"].astype(np.float64))
    state["second.weight"] = TensorLike(state["second.weight"], "torch.sparse_csr")
    state["last.weight"] = scipy.csr_matrix(state["last.weight"])
    state["last.bias"] = state["last.bias"].tolist()
    state["norm.num_batches_tracked"] = np.int64(3)  # torch's, of no use here
    assert other.load_state_dict(state) == ([], [])
    assert np.array_equal(model.predict(samples(model)), other.predict(samples(model)))


def test_a_convolution_as_a_matrix():
    """As scipy and torch's CSR have it: (outputs, inputs * kernel)."""
    model, other = picture(density=0.4), picture(density=0.4, seed=2)
    state = model.state_dict()
    state["first.weight"] = state["first.weight"].reshape(8, -1)
    other.load_state_dict(state)
    assert np.array_equal(model.predict(samples(model)), other.predict(samples(model)))


def test_not_strict():
    model = picture(density=0.4)
    before, bias = model.state_dict(), np.arange(3, dtype=np.float32)
    keys = model.load_state_dict({"last.bias": bias, "other": bias}, strict=False)
    assert keys.unexpected == ["other"] and "first.weight" in keys.missing and "last.bias" not in keys.missing
    after = model.state_dict()
    assert np.array_equal(after.pop("last.bias"), bias)
    assert all(np.array_equal(array, before[key]) for key, array in after.items())


def broken(key, change):
    def make(state):
        state[key] = change(state[key])

    return make


REFUSED = {
    "missing": (lambda s: s.pop("norm.weight"), mest.MestArgumentError, "the model has norm.weight, which the"),
    "unexpected": (lambda s: s.update(fc=np.ones(3)), mest.MestArgumentError, "the mapping has fc, which the model"),
    "shape": (broken("last.bias", lambda a: a[:2]), mest.MestArgumentError, r"last.bias has shape \(2,\).*\(3,\)"),
    "nan": (broken("last.bias", lambda a: a * np.nan), mest.MestArgumentError, "last.bias has values that are not f"),
    "variance": (broken("norm.running_var", lambda a: -a), mest.MestArgumentError, "negative value.*no variance"),
    "words": (broken("norm.bias", lambda a: a.astype(str)), mest.MestArgumentError, "numbers are wanted"),
    "dense": (
        broken("second.weight", lambda a: np.ones_like(a)), mest.MestArgumentError,
        "second has 576 connections, which need a capacity of 576; the layer's is .*density=1, or prune",
    ),
    "mask": (
        lambda s: s.update({"second.weight_mask": np.ones(3)}), mest.MestArgumentError,
        r"second.weight_mask has shape \(3,\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("scheme", ["unstructured", "block4", "fan_in", "filter"])
@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_state_changes_nothing(case, scheme):
    model = picture(scheme, 0.3)
    model.step(samples(model), np.zeros(4, int))
    before = fingerprint(model)
    state = picture(scheme, 0.3, seed=8).state_dict()
    change, kind, message = REFUSED[case]
    change(state)
    if case == "dense" and scheme == "filter":
        message = "have 8 channels of layer first, there is room for"
    with pytest.raises(kind, match=message):
        model.load_state_dict(state)
    assert fingerprint(model) == before


def test_a_scheme_that_cannot_changes_nothing():
    model = picture("nm24", 0.4)
    before, state = fingerprint(model), model.state_dict()
    state["second.weight"][0, 0, 0] = 1  # three in a row
    with pytest.raises(mest.UnsupportedError, match='layer second has more than 2.*"nm24" cannot have'):
        model.load_state_dict(state)
    assert fingerprint(model) == before


def test_names_of_layers():
    same = [Input(4), Linear(4, name="a"), BatchNorm(name="a"), ReLU(name="a"), Linear(4), Linear(2, name="a")]
    keys = list(made(same).state_dict())
    assert keys[:2] == ["a.weight", "a.bias"] and len({key.split(".")[0] for key in keys}) == 4
    assert "linear4.weight" in keys
    network = mest.network_of(made(same))
    assert list(network.to_model(batch=4).state_dict()) == keys


# ------------------------------------------------------------------------------ network_of, to_model ---


@pytest.mark.parametrize("name", NETWORKS)
def test_there_and_back(name):
    """Same layers, connections, numbers; and the same bits in training."""
    model = made(NETWORKS[name]())
    network = mest.network_of(model)
    other = network.to_model(batch=4, threads=1)
    x = samples(model)
    assert np.array_equal(model.predict(x), other.predict(x))
    assert model.connections() == other.connections()
    assert [p.scheme for p in model.plan().layers] == [p.scheme for p in other.plan().layers]
    model.load_state_dict(model.state_dict(masks=True))
    y = np.zeros(4, int)
    for _ in range(2):
        assert model.step(x, y).loss == other.step(x, y).loss
    assert fingerprint(model) == fingerprint(other)


@pytest.mark.parametrize("method", ["vanilla", "em&s", "set", "rigl", "gmp"])
def test_there_and_back_in_the_middle(method):
    """More connections than the target, and those that are still 0."""
    model = picture(density=0.3, method=method, epochs=8, mutation_every=1, steps_per_epoch=1, mutation_updates=1)
    x = samples(model)
    for _ in range(3):
        model.begin_epoch()
        model.step(x, np.zeros(4, int))
    other = mest.network_of(model).to_model(batch=4, method="vanilla", epochs=4)
    assert model.connections() == other.connections()
    assert np.array_equal(model.predict(x), other.predict(x))
    other.mutate()
    assert other.connections() == model.connections()


@pytest.mark.parametrize("scheme", [*cases.SCHEMES, "filter", "channel"])
@pytest.mark.parametrize("density", [0.1, 0.25, 0.4])
def test_pruned_to_a_density(scheme, density):
    """The library's own number of connections; of single weights, the largest ones."""
    dense = mest.network_of(picture())
    for layer in dense.layers[:-1]:
        if isinstance(layer, Conv2d):
            layer.density = None
    model = dense.to_model(batch=4, density=density, scheme=scheme)
    plan = mest.plan(model.layers, model.config)
    assert model.connections() == [part.active for part in plan.layers]
    assert plan.layers[-1].scheme in (None, "channel")  # density=1.0: follows where inputs are missing
    state = model.state_dict()
    for key, array in state.items():
        if key.endswith(".weight") and not key.startswith("norm"):
            kept = array != 0
            assert np.array_equal(array[kept], dense.weights[key][kept])
            if scheme in ("unstructured", "fan_in", "nm24", "pattern") and key != "last.weight":
                part = plan.layers[1 if key == "first.weight" else 4]
                assert np.array_equal(kept, keep(dense.weights[key], scheme, part.active))
        elif scheme not in ("filter", "channel"):
            assert np.array_equal(array, dense.weights[key])


@pytest.mark.parametrize("scheme, axes", [("filter", "rows"), ("channel", "columns")])
def test_channels_that_stay_are_the_largest(scheme, axes):
    layers = [Input(5), Linear(6, name="a"), ReLU(), Linear(6, name="b"), ReLU(), Linear(2, name="c")]
    network = mest.network_of(made(layers))
    for layer in network.layers:
        if isinstance(layer, Linear):
            layer.density = None
    network.layers[1].density = network.layers[-1].density = 1.0 if scheme == "filter" else None
    weights = network.weights
    large = [1, 4, 5]  # 3 of 6: sqrt(0.25)
    weights["b.weight"][:] = 1
    if axes == "rows":  # asked by b for its outputs
        weights["b.weight"][large] = 5
        weights["c.weight"][:, large] = 0.1
        expected = "b"
    else:  # asked by b and c for their inputs
        weights["b.weight"][:, large] = 5
        weights["a.weight"][large] = 0.1
        expected = "a"
    model = network.to_model(batch=4, density=0.25, scheme=scheme)
    found = model.state_dict()
    assert np.flatnonzero(found[f"{expected}.weight"].any(1)).tolist() == large
    reader = {"a": "b", "b": "c"}[expected]
    assert np.flatnonzero(found[f"{reader}.weight"].any(0)).tolist() == large


def test_channels_of_a_residual_network():
    """Additions, depthwise convolutions, flattened pictures: groups as the library finds them."""
    layers = [
        Input(3, 6, 6), Conv2d(8, 3, padding=1, name="a"), ReLU(name="trunk"),
        Conv2d(8, 3, padding=1, groups=8, name="depthwise"), Conv2d(8, 1, name="b"), mest.Add(with_="trunk"),
        Conv2d(6, 3, name="c"), BatchNorm(name="n"), Flatten(), Linear(7, name="d"), ReLU(), Linear(2, name="e"),
    ]  # fmt: skip
    for scheme in ("filter", "channel"):
        network = mest.network_of(made(layers))
        for layer in network.layers:
            if isinstance(layer, (Linear, Conv2d)):
                layer.density = None
        model = network.to_model(batch=4, density=0.3, scheme=scheme)
        plan = mest.plan(model.layers, model.config)
        assert model.connections() == [part.active for part in plan.layers]
        # What is left computes what the dense network with these zeros does.
        zeros = Network(copied(network.layers), model.state_dict())
        for layer in zeros.layers:
            if isinstance(layer, (Linear, Conv2d)):
                layer.density = 1.0
        x = samples(model)
        np.testing.assert_allclose(model.predict(x), zeros.to_model(batch=4).predict(x), atol=1e-5)
        # And the zeros alone say which channels there are.
        for layer in zeros.layers:
            if isinstance(layer, (Linear, Conv2d)):
                layer.density = None
        again = zeros.to_model(batch=4, scheme=scheme)
        assert again.connections() == model.connections()
        np.testing.assert_allclose(model.predict(x), again.predict(x), atol=1e-5)


@pytest.mark.parametrize("scheme", cases.SCHEMES)
def test_zeros_are_no_connections(scheme):
    """A pruned network without a word about density, at many densities: all has room."""
    dense = mest.network_of(picture())
    rng = np.random.default_rng(0)
    for layer in dense.layers:
        if isinstance(layer, (Linear, Conv2d)):
            layer.density = None
    for share in (0.002, 0.05, 0.3, 0.44):
        weights = dict(dense.weights)
        for key in ("first.weight", "second.weight"):
            wanted = max(int(share * weights[key].size), 40 if scheme == "pattern" else 1)
            weights[key] = weights[key] * keep(rng.normal(size=weights[key].shape), scheme, wanted)
        model = Network(dense.layers, weights).to_model(batch=4, scheme=scheme)
        state = model.state_dict()
        assert all(np.array_equal(state[key], weights[key]) for key in weights)
        assert model.plan().layers[1].scheme == scheme and not model.plan().layers[-1].sparse


def test_large_layers_have_room():
    """Densities are rounded; a million positions and more show it."""
    rng = np.random.default_rng(0)
    layers = [Input(1500), Linear(1400, name="a", bias=False), Linear(2, density=1.0, name="b", bias=False)]
    weights = {"b.weight": np.ones((2, 1400), np.float32)}
    for count in (1, 7, 1234567, 1400 * 1500 - 1, 1400 * 1500):
        flat = np.zeros(1400 * 1500, np.float32)
        flat[rng.permutation(flat.size)[:count]] = 1
        weights["a.weight"] = flat.reshape(1400, 1500)
        model = Network(layers, weights).to_model(batch=1)
        part = model.plan().layers[1]
        assert part.capacity - count <= 3  # of a millionth of the positions
        assert np.array_equal(model.state_dict()["a.weight"], weights["a.weight"])
        model.close()


def test_density_by_name():
    network = mest.network_of(picture())
    for layer in network.layers:
        if isinstance(layer, (Linear, Conv2d)):
            layer.density = None
    model = network.to_model(batch=4, density={"second": 0.2, "*st": 0.5}, scheme={"second": "block4"})
    parts = {part.name: part for part in model.plan().layers}
    assert parts["second"].scheme == "block4" and parts["second"].active == pytest.approx(0.2 * 576, abs=4)
    assert parts["first"].scheme == parts["last"].scheme == "unstructured"
    assert parts["first"].active == 72 and parts["last"].active == 12
    with pytest.raises(mest.MestArgumentError, match="has the name 'secnd'; there are first, second, last"):
        network.to_model(batch=4, density={"secnd": 0.2})


def test_density_from_the_config():
    network = mest.network_of(picture())
    network.layers[4].density = None
    model = network.to_model(mest.Config(batch=4, density=0.25, scheme="row4"))
    assert model.connections()[4] == 144 and model.plan().layers[4].scheme == "row4"
    assert model.connections()[1] == 144  # density=1.0: dense
    shared = mest.network_of(picture())
    for layer in shared.layers:
        if isinstance(layer, (Linear, Conv2d)):
            layer.density = None
    erk = shared.to_model(batch=4, density=0.3, distribution="erk")
    assert erk.connections() == [part.active for part in mest.plan(erk.layers, erk.config).layers]
    assert sum(erk.connections()) == pytest.approx(0.3 * (144 + 576 + 24), abs=2)


def test_gradual_pruning_begins_with_all():
    network = mest.network_of(picture())
    network.layers[4].density = None
    model = network.to_model(batch=4, density=0.1, method="gmp", epochs=8)
    assert model.connections()[4] == 576
    assert np.array_equal(model.state_dict()["second.weight"], network.weights["second.weight"])


@pytest.mark.parametrize("method", ["snip", "grasp", "lottery"])
def test_methods_that_choose(method):
    network = mest.network_of(picture())
    network.layers[4].density = None
    with pytest.raises(mest.UnsupportedError, match=f'method "{method}" works on random first weights'):
        network.to_model(batch=4, density=0.1, method=method, epochs=8, mutation_every=2)


def test_depthwise_is_dense():
    layers = [Input(4, 4, 4), Conv2d(4, 3, groups=4, name="each"), Flatten(), Linear(2, name="last")]
    network = mest.network_of(made(layers))
    network.layers[1].density = network.layers[3].density = None
    model = network.to_model(batch=2, density={"*": 0.5})
    assert not model.plan().layers[1].sparse and model.plan().layers[3].sparse
    with pytest.raises(mest.UnsupportedError, match="layer 'each': a depthwise convolution is dense"):
        network.to_model(batch=2, density={"each": 0.5})


def test_a_network_that_is_not_one():
    network = mest.network_of(picture())
    for change, message in [
        (lambda w: w.pop("last.bias"), "the layers have last.bias, which weights lack"),
        (lambda w: w.update(fc=np.ones(2, np.float32)), "weights have fc, which no layer has"),
        (lambda w: w.update({"last.bias": np.ones(2, np.float32)}), r"last.bias has shape \(2,\), the layer wants \(3,\)"),
        (lambda w: w.update({"last.bias": np.full(3, np.inf, np.float32)}), "last.bias has values that are not finite"),
    ]:
        weights = dict(network.weights)
        change(weights)
        with pytest.raises(mest.MestArgumentError, match=message):
            Network(network.layers, weights).to_model(batch=2)
        with pytest.raises(mest.MestArgumentError, match=message):
            Network(network.layers, weights).to_model(batch=2, density={"second": 0.5})


def test_a_network_is_independent_of_its_model():
    model = picture(density=0.4)
    network = mest.network_of(model)
    before = fingerprint(model)
    for array in network.weights.values():
        array[:] = 3
    network.layers[1].name = "other"
    assert fingerprint(model) == before and model.layers[1].name == "first"
    other = mest.network_of(model)
    model.close()
    assert other.to_model(batch=1).predict(samples(other.to_model(batch=1))).shape == (4, 3)


def test_copies_and_what_leads_to_an_output():
    layers = cases.residual()
    twice = copied(layers)
    assert not set(map(id, twice)) & set(map(id, layers))
    x = samples(made(layers))
    assert np.array_equal(made(layers).predict(x), made(twice).predict(x))
    dead = [
        Input(3), Linear(4, name="a"), ReLU(name="b"), Linear(9), Linear(4, from_="b"), mest.Add(with_="a"), Linear(2),
        ReLU(from_=2),
    ]  # fmt: skip
    whole = living(dead, 6)
    assert [type(layer) for layer in whole] == [Input, Linear, ReLU, Linear, mest.Add, Linear]
    assert whole[3].from_ is None and whole[4].with_ == 1
    made(whole)
