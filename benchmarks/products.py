# SPDX-License-Identifier: Apache-2.0
"""The products of one sparse linear layer: ours, MKL's (torch.sparse) and SparseProp's, on one thread.

    python benchmarks/products.py [--batch 1 16 128] [--sparsity 90] [--sparseprop FOLDER] [--save]

A layer 1024 -> 1024 trains by three products: y = W x, dx = W^T dy, and dy x^T where W has connections.
All libraries get the same numbers, are checked against numpy, and take turns in one process.

MKL has compressed sparse rows of W and, for dx, of W^T: its product with a transposed matrix is far
slower, and nothing here counts that a training step would have to keep both up to date.  The third product
is torch.sparse.sampled_addmm.  SparseProp is its autograd function, which computes dx and dw at once.
Ours are the kernels as the engine calls them, from a shared library that is compiled for this.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

import common
import layers
import numpy as np
from common import median
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Calls = Dict[str, Callable[[], Any]]  # by product: "forward", "dx", "dw" or "dx and dw"
SIDE = 1024


class Problem(NamedTuple):
    """x and dy: a sample a row."""

    weight: Floats
    x: Floats
    dy: Floats

    def answers(self) -> Dict[str, Floats]:
        dw = self.dy.T @ self.x
        return {"forward": self.x @ self.weight.T, "dx": self.dy @ self.weight, "dw": dw[self.weight != 0]}


def problem(batch: int, sparsity: float) -> Problem:
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((SIDE, SIDE), dtype=np.float32) / np.float32(np.sqrt(SIDE))
    weight[rng.random((SIDE, SIDE)) < sparsity / 100] = 0
    x, dy = (rng.standard_normal((batch, SIDE), dtype=np.float32) for _ in range(2))
    return Problem(weight, x, dy)


def check(library: str, wanted: Dict[str, Floats], found: Dict[str, Any]) -> None:
    for what, right in wanted.items():
        if not np.allclose(np.asarray(found[what]), right, rtol=1e-3, atol=1e-3):
            raise SystemExit(f"{library}: {what} is wrong: not compared")


# ------------------------------------------------------------------------------------ libraries ---


class Kernels:
    """The shared library."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.library.products_new.restype = ctypes.c_void_p
        self.models: List[ctypes.c_void_p] = []

    def lanes(self, values: Floats) -> Floats:
        """[sample][channel] as [block][channel][lane]; batches here fill their last block."""
        count = self.library.products_lanes(len(values))
        return np.ascontiguousarray(values.reshape(-1, count, SIDE).transpose(0, 2, 1))

    def rows(self, values: Floats) -> Floats:
        """The way back."""
        return np.ascontiguousarray(values.transpose(0, 2, 1)).reshape(-1, SIDE)

    def calls(self, given: Problem, wanted: Dict[str, Floats]) -> Calls:
        rows, columns = np.nonzero(given.weight)
        start = np.searchsorted(rows, np.arange(SIDE + 1)).astype(np.uint32)
        column, values = columns.astype(np.uint16), given.weight[rows, columns]
        model = ctypes.c_void_p(self.library.products_new(
            len(given.x), SIDE, SIDE, _pointer(start), _pointer(column), _pointer(values)))  # fmt: skip
        self.models.append(model)
        x, dy = self.lanes(given.x), self.lanes(given.dy)
        y, dx, dw = np.empty_like(x), np.empty_like(x), np.zeros(len(values), np.float32)
        forward = [model, _pointer(x), _pointer(y)]
        backward = [model, _pointer(x), _pointer(dy), _pointer(dx), _pointer(dw)]
        self.library.products_forward(*forward)
        self.library.products_backward(*backward)
        check("mest", wanted, {"forward": self.rows(y), "dx": self.rows(dx), "dw": dw})
        keep = (x, dy, y, dx, dw)  # as long as the calls

        def run_forward(_: Any = keep) -> None:
            self.library.products_forward(*forward)

        def run_backward(_: Any = keep) -> None:
            self.library.products_backward(*backward)

        return {"forward": run_forward, "dx and dw": run_backward}

    def close(self) -> None:
        for model in self.models:
            self.library.products_delete(model)


def _pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)


def mkl_calls(given: Problem, wanted: Dict[str, Floats]) -> Calls:
    """Columns are samples; one sample is a vector, for which MKL has a product of its own."""
    import torch

    torch.set_num_threads(1)
    weight = torch.from_numpy(given.weight)
    csr, transposed = weight.to_sparse_csr(), weight.t().contiguous().to_sparse_csr()
    x, dy = (torch.from_numpy(values).t().contiguous() for values in (given.x, given.dy))
    x_rows = torch.from_numpy(given.x)
    one = len(given.x) == 1
    vx, vdy = (x[:, 0].contiguous(), dy[:, 0].contiguous()) if one else (x, dy)
    calls: Calls = {
        "forward": lambda: csr @ vx,
        "dx": lambda: transposed @ vdy,
        "dw": lambda: torch.sparse.sampled_addmm(csr, dy, x_rows, beta=0.0),
    }
    y, dx = (calls[what]().reshape(SIDE, -1).t() for what in ("forward", "dx"))
    check("MKL", wanted, {"forward": y, "dx": dx, "dw": calls["dw"]().values()})
    return calls


def sparseprop_calls(given: Problem, wanted: Dict[str, Floats], folder: str) -> Calls:
    import rivals
    import torch

    torch.set_num_threads(1)
    module = rivals.sparseprop_modules(folder).SparseLinear(torch.from_numpy(given.weight))
    x, dy = torch.from_numpy(given.x).requires_grad_(), torch.from_numpy(given.dy)
    y = module(x)

    def backward() -> Any:
        return torch.autograd.grad(y, [x, module.weight], dy, retain_graph=True)

    dx, dw = backward()
    check("SparseProp", wanted, {"forward": y.detach(), "dx": dx, "dw": dw})
    return {"forward": lambda: module(x), "dx and dw": backward}


# ------------------------------------------------------------------------------------ reporting ---


class Row(NamedTuple):
    batch: int
    library: str
    samples: Dict[str, List[float]]  # milliseconds by product

    def total(self) -> float:
        """Microseconds of all three products."""
        return 1e3 * sum(median(samples) for samples in self.samples.values())

    def record(self) -> Dict[str, Any]:
        return dict(self._asdict())


def measure(batch: int, kernels: Kernels, options: argparse.Namespace) -> List[Row]:
    given = problem(batch, options.sparsity)
    wanted = given.answers()
    libraries = {"mest": kernels.calls(given, wanted)}
    if options.torch:
        libraries["MKL"] = mkl_calls(given, wanted)
    if options.sparseprop:
        libraries["SparseProp"] = sparseprop_calls(given, wanted, options.sparseprop)
    calls: Dict[Tuple[str, str], Callable[[], Any]] = {
        (library, what): call for library, found in libraries.items() for what, call in found.items()
    }
    found = common.interleave(calls, options.rounds)
    return [Row(batch, library, {what: found[library, what] for what in calls}) for library, calls in libraries.items()]


def goals(rows: List[Row]) -> List[common.Goal]:
    ours = {row.batch: row.total() for row in rows if row.library == "mest"}
    return [
        common.Goal(f"products of a linear layer, batch {row.batch}, 1 thread, than {row.library}",
                    row.total() / ours[row.batch], 1.0)
        for row in rows if row.library != "mest"
    ]  # fmt: skip


def report(rows: List[Row]) -> str:
    reached = iter(goals(rows))
    lines = []
    for row in rows:
        shown = [row.samples.get(what) for what in ("forward", "dx", "dw", "dx and dw")]
        lines.append([
            str(row.batch), row.library, *(f"{1e3 * median(samples):.1f}" if samples else "" for samples in shown),
            f"{row.total():.1f}", "" if row.library == "mest" else next(reached).cell(),
        ])  # fmt: skip
    header = [">batch", "library", ">us y = W x", ">us dx", ">us dw", ">us dx and dw", ">us all", ">mest is faster"]
    return common.table(header, lines)


def main() -> None:
    common.quiet_threads()
    parser = common.parser(__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 128], help="1, 4, 8 or a multiple of 16")
    parser.add_argument("--sparsity", type=float, default=90)
    parser.add_argument("--compiler", default=layers.clang(), help="a clang")
    common.sparseprop_option(parser)
    options = parser.parse_args()
    if not options.compiler:
        parser.error("no clang found: --compiler")
    options.torch = common.optional("torch") is not None
    if options.sparseprop and not options.torch:
        parser.error("--sparseprop needs PyTorch, which is not here")
    rows: List[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        path = layers.compile_c(options.compiler, "benchmarks/c/products.c", Path(folder) / "products.so",
                                "-shared", "-fPIC", *layers.kernels())  # fmt: skip
        kernels = Kernels(path)
        for batch in options.batch:
            print(f"batch {batch} ...", file=sys.stderr, flush=True)
            rows += measure(batch, kernels, options)
        kernels.close()
    text = report(rows)
    print(text)
    notes = [
        f"{SIDE} -> {SIDE}, {options.sparsity:g} % sparse, one thread; medians of {options.rounds} rounds, interleaved",
        *common.conditions(options),
    ]
    if options.save:
        records = [*(row.record() for row in rows), *(goal.record() for goal in goals(rows))]
        common.save("products", "Products of a sparse linear layer", notes, text, records)


if __name__ == "__main__":
    main()
