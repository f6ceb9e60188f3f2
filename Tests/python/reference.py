# SPDX-License-Identifier: Apache-2.0
"""A sparse training library in double precision and plain numpy, to compare the real one with.

Written from the definitions, not from the engine: dense matrices with zeros where no connection is,
one loop or einsum per formula, nothing fast.  test_layers.py checks it against finite differences.
"""

import math

import numpy as np

from mest import layers as L


def sources(layers):
    """For each layer the indices of the layers it reads."""
    found = []
    for index, layer in enumerate(layers):
        refs = [layer.from_] + ([layer.with_] if isinstance(layer, L.Add) else [])
        found.append(
            [index - 1 if ref is None else L._resolve(layers, index, ref) for ref in refs]
            if index
            else []
        )
    return found


def pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


def windows(x, kernel, stride, padding, fill=0.0):
    """All windows of x (n, c, h, w): (n, c, oy, ox, kernel_h, kernel_w)."""
    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=fill)
    all_windows = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), (2, 3))
    return all_windows[:, :, ::sh, ::sw]


def unwindow(dw, shape, kernel, stride, padding):
    """Adjoint of `windows`: adds the gradient of every window back to its pixels."""
    n, c, h, w = shape
    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding
    dx = np.zeros((n, c, h + 2 * ph, w + 2 * pw))
    oh, ow = dw.shape[2:4]
    for i in range(kh):
        for j in range(kw):
            dx[:, :, i : i + sh * oh : sh, j : j + sw * ow : sw] += dw[..., i, j]
    return dx[:, :, ph : ph + h, pw : pw + w]


class Network:
    """layers: mest layers; parameters[i]: dict of float64 arrays of layer i by tensor name.

    "weight" is always the dense matrix (outputs, inputs * kernel), zero where not connected.
    frozen: this many layers, the first ones, do not train and compute what they do in inference.
    """

    def __init__(self, layers, parameters, frozen=0):
        self.layers, self.parameters, self.sources = layers, parameters, sources(layers)
        self.frozen = frozen

    def forward(self, x, training=False, masks=None):
        """x: (n, c, h, w) -> (n, outputs).  masks: {layer: factor of each value} for dropout."""
        self.x, self.y, self.cache = [], [], [None] * len(self.layers)
        masks = (masks or {}) if training else {}
        self.masks = {index: mask for index, mask in masks.items() if index >= self.frozen}
        for index, layer in enumerate(self.layers):
            inputs = [self.y[s] for s in self.sources[index]]
            self.x.append(inputs)
            self.y.append(
                np.asarray(x, np.float64)
                if index == 0
                else self._forward(index, layer, inputs, training and index >= self.frozen)
            )
        return self.y[-1].reshape(len(x), -1)

    def _forward(self, index, layer, inputs, training):
        x, p = inputs[0], self.parameters[index]
        n = len(x)
        if isinstance(layer, L.Linear):
            y = x.reshape(n, -1) @ p["weight"].T + p.get("bias", 0.0)
            return y.reshape(n, -1, 1, 1)
        if isinstance(layer, L.Conv2d):
            view = windows(x, pair(layer.kernel), pair(layer.stride), pair(layer.padding))
            if layer.groups > 1:  # as many as channels
                weight = p["weight"].reshape(layer.channels, *pair(layer.kernel))
                y = np.einsum("ncyxij,cij->ncyx", view, weight)
            else:
                weight = p["weight"].reshape(layer.channels, x.shape[1], *pair(layer.kernel))
                y = np.einsum("ncyxij,ocij->noyx", view, weight)
            return y + np.reshape(p.get("bias", np.zeros(layer.channels)), (1, -1, 1, 1))
        if isinstance(layer, L.BatchNorm):
            mean = x.mean((0, 2, 3)) if training else p["running_mean"]
            var = x.var((0, 2, 3)) if training else p["running_var"]
            self.cache[index] = mean, var
            hat = (x - channel(mean)) / np.sqrt(channel(var) + layer.eps)
            return hat * channel(p.get("scale", np.ones(x.shape[1]))) + channel(
                p.get("bias", np.zeros(x.shape[1]))
            )
        if isinstance(layer, L.ReLU):
            return np.maximum(x, 0)
        if isinstance(layer, (L.MaxPool, L.AvgPool)):
            average = isinstance(layer, L.AvgPool)
            view = windows(x, *pool_window(layer), 0.0 if average else -np.inf)
            return view.mean((4, 5)) if average else view.max((4, 5))
        if isinstance(layer, L.GlobalAvgPool):
            return x.mean((2, 3), keepdims=True)
        if isinstance(layer, L.Add):
            return inputs[0] + inputs[1]
        if isinstance(layer, L.Flatten):
            return x.reshape(n, -1, 1, 1)
        if isinstance(layer, L.Dropout):
            return x * self.masks.get(index, 1.0)
        raise TypeError(layer)

    def backward(self, dy):
        """dy: (n, outputs) -> [{tensor: gradient}] by layer, of the last forward pass."""
        gradient = [np.zeros_like(y) for y in self.y]
        gradient[-1] = dy.reshape(self.y[-1].shape)
        found = [{} for _ in self.layers]
        for index, parameters in enumerate(self.parameters[: self.frozen]):
            found[index] = {what: np.zeros_like(values) for what, values in parameters.items()}
        for index in range(len(self.layers) - 1, max(self.frozen, 1) - 1, -1):
            results = self._backward(index, self.layers[index], gradient[index], found[index])
            for source, dx in zip(self.sources[index], results):
                gradient[source] += dx
        self.gradients, self.input_gradient = gradient, gradient[0]
        return found

    def _backward(self, index, layer, dy, found):
        x, p = self.x[index][0], self.parameters[index]
        n = len(x)
        if isinstance(layer, L.Linear):
            flat = dy.reshape(n, -1)
            found["weight"], found["bias"] = flat.T @ x.reshape(n, -1), flat.sum(0)
            return [(flat @ p["weight"]).reshape(x.shape)]
        if isinstance(layer, L.Conv2d):
            geometry = pair(layer.kernel), pair(layer.stride), pair(layer.padding)
            found["bias"] = dy.sum((0, 2, 3))
            if layer.groups > 1:
                weight = p["weight"].reshape(layer.channels, *geometry[0])
                product = np.einsum("ncyxij,ncyx->cij", windows(x, *geometry), dy)
                found["weight"] = product.reshape(layer.channels, -1)
                return [unwindow(np.einsum("ncyx,cij->ncyxij", dy, weight), x.shape, *geometry)]
            weight = p["weight"].reshape(layer.channels, x.shape[1], *geometry[0])
            product = np.einsum("ncyxij,noyx->ocij", windows(x, *geometry), dy)
            found["weight"] = product.reshape(layer.channels, -1)
            return [unwindow(np.einsum("noyx,ocij->ncyxij", dy, weight), x.shape, *geometry)]
        if isinstance(layer, L.BatchNorm):
            mean, var = self.cache[index]
            spread = np.sqrt(channel(var) + layer.eps)
            hat = (x - channel(mean)) / spread
            found["scale"], found["bias"] = (dy * hat).sum((0, 2, 3)), dy.sum((0, 2, 3))
            g = dy * channel(p.get("scale", np.ones(x.shape[1])))
            centre = g.mean((0, 2, 3), keepdims=True)
            slope = (g * hat).mean((0, 2, 3), keepdims=True)
            return [(g - centre - hat * slope) / spread]
        if isinstance(layer, L.ReLU):
            return [dy * (self.y[index] > 0)]
        if isinstance(layer, (L.MaxPool, L.AvgPool)):
            geometry = pool_window(layer)
            if isinstance(layer, L.AvgPool):
                share = np.ones(geometry[0]) / np.prod(geometry[0])
                return [unwindow(dy[..., None, None] * share, x.shape, *geometry)]
            view = windows(x, *geometry, -np.inf)
            flat = view.reshape(*view.shape[:4], -1)
            first = np.arange(flat.shape[-1]) == flat.argmax(-1)[..., None]  # of equals the first
            return [unwindow(dy[..., None, None] * first.reshape(view.shape), x.shape, *geometry)]
        if isinstance(layer, L.GlobalAvgPool):
            return [np.broadcast_to(dy / np.prod(x.shape[2:]), x.shape)]
        if isinstance(layer, L.Add):
            return [dy, dy]
        if isinstance(layer, L.Flatten):
            return [dy.reshape(x.shape)]
        if isinstance(layer, L.Dropout):
            return [dy * self.masks.get(index, 1.0)]
        raise TypeError(layer)


def channel(values):
    return np.reshape(values, (1, -1, 1, 1))


def pool_window(layer):
    stride = layer.kernel if layer.stride is None else layer.stride
    return pair(layer.kernel), pair(stride), pair(layer.padding)


# ------------------------------------------------------------------------------------- losses ---


def softmax(y):
    exponential = np.exp(y - y.max(1, keepdims=True))
    return exponential / exponential.sum(1, keepdims=True)


def cross_entropy(y, labels, smoothing=0.0):
    """Mean loss over samples, and its gradient (n, k)."""
    n, k = y.shape
    target = np.full((n, k), smoothing / (k - 1) if k > 1 else 0.0)
    target[np.arange(n), labels] = 1 - smoothing
    log_p = y - y.max(1, keepdims=True)
    log_p = log_p - np.log(np.exp(log_p).sum(1, keepdims=True))
    return -(target * log_p).sum() / n, (softmax(y) * target.sum(1, keepdims=True) - target) / n


def mean_squared_error(y, targets):
    return ((y - targets) ** 2).mean(), 2 * (y - targets) / y.size


# --------------------------------------------------------------------------- optimizer, rates ---


def sgd(w, g, m, rate, momentum=0.0, decay=0.0, nesterov=False):
    """New (weight, momentum buffer), as torch.optim.SGD."""
    d = g + decay * w
    m = momentum * m + d
    return w - rate * (d + momentum * m if nesterov else m), m


def cosine(epoch, epochs, first, last):
    return last + (first - last) * (1 + math.cos(math.pi * epoch / epochs)) / 2


# ----------------------------------------------------------------------------------- mutation ---


def count_exact(size, density):
    return max(1, math.floor(density * size + 0.5))


def phase(epoch, boundaries):
    return sum(epoch >= boundary for boundary in boundaries)


def mutation_densities(mode, density, epoch, boundaries, rate=0.2, extra=0.05):
    """(density after the drop, density after the growth) on the staircase 1, 1/2, 0."""
    share = (1.0, 0.5, 0.0)[phase(epoch, boundaries)]
    if mode == "vanilla":
        return density * (1 - rate), density
    if mode == "em":
        return density * (1 - rate * share), density
    return density, density + extra * share


def compat_counts(size, nnz, drop_to, grow_to):
    """(dropped, grown) as the authors' code rounds; densities after the drop and the growth."""
    keep = size - math.floor(round((1 - drop_to) * (size - 1), 6)) - 1
    dropped = max(0, nnz - keep)
    if grow_to <= drop_to:
        return dropped, 0
    return dropped, math.trunc(round((size - nnz + dropped) - (1 - grow_to) * size, 6))


def dropped_positions(values, positions, count):
    """The `count` least important: order by (|value|, position)."""
    order = np.lexsort((positions, np.abs(values)))
    return set(np.asarray(positions)[order[:count]].tolist())


# --------------------------------------------------------------------------------- forgetting ---


def forgetting(correct):
    """correct: (presentations, samples) -> forgettings of each sample, 255 if never correct."""
    correct = np.asarray(correct, bool)
    events = (correct[:-1] & ~correct[1:]).sum(0)
    return np.where(correct.any(0), np.minimum(events, 254), 255).astype(np.uint8)
