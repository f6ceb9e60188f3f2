# SPDX-License-Identifier: Apache-2.0
"""Random networks: directed graphs of every layer, those that the engine fuses made likely.

A network is a pure function of its seed.  Every layer leads to the output, every shape fits.
"""

from dataclasses import dataclass, field

import numpy as np
import reference

from mest import (
    Add,
    AvgPool,
    BatchNorm,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Input,
    Linear,
    MaxPool,
    ReLU,
)


@dataclass
class Graph:
    """A network in the making.  samples: the fewest that batch norm will see."""

    rng: np.random.Generator
    samples: int
    dropout: bool
    layers: list = field(default_factory=list)
    shapes: list = field(default_factory=list)
    read: set = field(default_factory=set)

    @classmethod
    def random(cls, seed, dropout=True, samples=None, least=3):
        """samples: of the smallest batch; least: height and width of the pictures."""
        rng = np.random.default_rng(seed)
        made = cls(rng, samples or int(rng.integers(1, 20)), dropout)
        channels, height, width = 3, *map(int, rng.integers(least, 10, 2))
        made.layers.append(Input(channels, height, width))
        made.shapes.append((channels, height, width))
        goal = int(rng.integers(3, 14))
        while len(made.layers) < goal:
            made.grow()
        made.finish()
        return made

    @property
    def outputs(self):
        return self.shapes[-1][0]

    @property
    def last(self):
        return len(self.layers) - 1

    def add(self, layer, shape, source=None):
        source = self.last if source is None else source
        if source != self.last or self.rng.random() < 0.1:
            layer.from_ = source
        self.read.add(source)
        self.layers.append(layer)
        self.shapes.append(shape)
        return self.last

    def chance(self, share):
        return self.rng.random() < share

    def grow(self):
        """One layer more, or a few that belong together, behind the last one or any other."""
        source = self.last if self.chance(0.75) else int(self.rng.integers(len(self.layers)))
        kinds = [self.conv] * 4 + [self.conv_bn_relu] * 3 + [self.residual] * 4 + [self.bn] * 3
        kinds += [self.relu] * 3 + [self.sum] * 4 + [self.pool] * 2 + [self.drop] * self.dropout
        kinds[int(self.rng.integers(len(kinds)))](source)

    # ---- one layer ----

    def conv(self, source, channels=None, same=False, bias=None):
        c, h, w = self.shapes[source]
        channels = channels or int(self.rng.choice([c, c, 3, 4, 6, 1]))
        kernel, stride, padding = (
            ((1, 1), (1, 1), (0, 0)) if self.chance(0.3) else ((3, 3), (1, 1), (1, 1))
        )
        if not same and self.chance(0.4):
            kernel = tuple(map(int, self.rng.integers(1, 4, 2)))
            stride = tuple(map(int, self.rng.integers(1, 3, 2)))
            padding = tuple(int(self.rng.integers(k)) for k in kernel)
        shape = channels, *sizes((h, w), kernel, stride, padding)
        if min(shape) < 1:
            return source
        bias = self.chance(0.4) if bias is None else bias
        density = [None, 1.0, 0.7][int(self.rng.integers(3))]
        more = {"density": density}
        if channels == c > 1 and self.chance(0.25):
            more = {"groups": c}  # depthwise, always dense
        layer = Conv2d(channels, kernel, stride=stride, padding=padding, bias=bias, **more)
        return self.add(layer, shape, source)

    def bn(self, source):
        c, h, w = self.shapes[source]
        if self.samples * h * w < 4:  # of fewer the gradient is mostly rounding
            return source
        momentum = float(self.rng.choice([0.1, 0.5]))
        layer = BatchNorm(
            momentum=momentum, eps=float(self.rng.choice([1e-5, 1e-2])), affine=self.chance(0.8)
        )
        return self.add(layer, self.shapes[source], source)

    def relu(self, source):
        return self.add(ReLU(), self.shapes[source], source)

    def drop(self, source):
        return self.add(Dropout(0.3), self.shapes[source], source)

    def pool(self, source):
        c, h, w = self.shapes[source]
        kernel = int(self.rng.integers(1, 4))
        stride = int(self.rng.integers(1, 3))
        padding = int(self.rng.integers(0, kernel // 2 + 1))
        shape = c, *sizes((h, w), (kernel, kernel), (stride, stride), (padding, padding))
        if min(shape) < 1:
            return source
        kind = MaxPool if self.chance(0.5) else AvgPool
        return self.add(kind(kernel, stride=stride, padding=padding), shape, source)

    def join(self, first, second):
        at = self.add(Add(with_=second), self.shapes[first], first)
        self.read.add(second)
        return at

    def sum(self, source):
        equal = [i for i, shape in enumerate(self.shapes) if shape == self.shapes[source]]
        return self.join(source, int(self.rng.choice(equal)))

    # ---- a few ----

    def conv_bn_relu(self, source):
        return self.relu(self.bn(self.conv(source)))

    def residual(self, source):
        """Any of: plain, projected, pre-activated, of one or two convolutions, either order."""
        c, _, _ = self.shapes[source]
        at = self.relu(source) if self.chance(0.4) else source
        source = at if self.chance(0.5) else source
        if self.chance(0.5):
            at = self.relu(self.bn(self.conv(at, c, True)))
        at = self.conv(at, c, True)
        if self.chance(0.8):
            at = self.bn(at)
        if self.chance(0.3):
            source = self.conv(source, c, True)
            source = self.bn(source) if self.chance(0.7) else source
        at = self.join(*((at, source) if self.chance(0.6) else (source, at)))
        return self.relu(at) if self.chance(0.7) else at

    # ---- the end ----

    def finish(self):
        """What nobody has read becomes features; these are added up."""
        features = int(self.rng.integers(2, 5))
        loose = [i for i in range(len(self.layers)) if i not in self.read]
        made = []
        for at in loose:
            c, h, w = self.shapes[at]
            if self.chance(0.5):
                at = self.add(GlobalAvgPool(), (c, 1, 1), at)
            else:
                at = self.add(Flatten(), (c * h * w, 1, 1), at)
            if self.samples >= 4 and self.chance(0.15):
                at = self.bn(at)
            density = [None, 1.0][int(self.rng.integers(2))]
            layer = Linear(features, bias=self.chance(0.6), density=density)
            made.append(self.add(layer, (features, 1, 1), at))
        while len(made) > 1:
            made.append(self.join(made.pop(0), made.pop(0)))
        if self.samples >= 4 and self.chance(0.15):
            self.bn(self.last)
        if self.chance(0.1):
            self.relu(self.last)


def sizes(size, kernel, stride, padding):
    return tuple(
        (s + 2 * p - k) // t + 1 if s + 2 * p >= k else 0
        for s, k, t, p in zip(size, kernel, stride, padding)
    )


# ------------------------------------------------------------------------------------- dropout ---

MASK = 2**64 - 1


def _mix(z):
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def dropout_masks(layers, shapes, seed, number, count):
    """{layer: factors} of training pass `number`, from the definition in the kernels' header."""
    masks = {}
    for index, layer in enumerate(layers):
        if not isinstance(layer, Dropout):
            continue
        key = _mix(seed + 0x9E3779B97F4A7C15 & MASK)
        key = _mix(key + 4 * 0xD1B54A32D192ED03 & MASK)
        key = _mix(key + index * 0xAEF17502108EF2D9 & MASK)
        key = _mix(key + number & MASK)
        i = np.arange(1, count * int(np.prod(shapes[index])) + 1, dtype=np.uint64)
        with np.errstate(over="ignore"):
            z = np.uint64(key) + i * np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = (z ^ (z >> np.uint64(31))) >> np.uint64(32)
        rate = float(np.float32(layer.rate))
        kept = z >= np.uint64(int(rate * 2.0**32))
        masks[index] = np.where(kept, 1 / (1 - rate), 0.0).reshape(count, *shapes[index])
    return masks


# ----------------------------------------------------------------------------------- conditions ---


def well_conditioned(known):
    """Whether floats can follow: no ReLU or maximum so close that rounding decides, no batch norm
    that divides by next to nothing.  known: a reference.Network after a training pass."""
    for index, layer in enumerate(known.layers):
        if index == 0:
            continue
        x = known.x[index][0]
        if isinstance(layer, ReLU):
            # Exact zeros come from layers before and are zero for everybody.
            near = np.abs(x[x != 0])
            if near.size and near.min() < 2e-5 * max(1.0, np.abs(x).max()):
                return False
        elif isinstance(layer, MaxPool) and not isinstance(layer, AvgPool):
            view = reference.windows(x, *reference.pool_window(layer), -np.inf)
            ranked = np.sort(view.reshape(*view.shape[:4], -1), -1)
            if ranked.shape[-1] > 1:
                with np.errstate(invalid="ignore"):
                    gap = ranked[..., -1] - ranked[..., -2]
                if ((gap > 0) & (gap < 2e-5)).any():
                    return False
        elif isinstance(layer, BatchNorm):
            mean, var = known.cache[index]
            far = mean - known.parameters[index]["running_mean"]  # the pivot of the sums: norm.h
            if (var < 1e-3).any() or (var < 0.02 * np.maximum(mean**2, far**2)).any():
                return False
    return True
