# SPDX-License-Identifier: Apache-2.0
"""Networks by a word on the command line: resnet:20, mlp:128,64, or net.py:make."""

from __future__ import annotations

import importlib.util
import inspect
import os
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

from .. import networks
from ..layers import Layer
from ._options import integers
from ._output import Failure

HELP = (
    "mlp:128,64 (hidden features), resnet:20 or resnet:20,16 (depth, width), vgg:16 or vgg:16,64, "
    "ds_cnn or ds_cnn:64,4 (width, blocks), or FILE.py:NAME, a list of layers or a function of (input, "
    "outputs) that makes one"
)
Shape = Tuple[int, int, int]


def _mlp(numbers: List[int], shape: Shape, outputs: int) -> List[Layer]:
    flat = shape[1] == shape[2] == 1
    return networks.mlp(shape[0] if flat else shape, numbers or [128], outputs)


def _resnet(numbers: List[int], shape: Shape, outputs: int) -> List[Layer]:
    depth, width = [*numbers, *(20, 16)[len(numbers) :]]
    return networks.resnet(depth, width, outputs, shape)


def _vgg(numbers: List[int], shape: Shape, outputs: int) -> List[Layer]:
    depth, width = [*numbers, *(16, 64)[len(numbers) :]]
    return networks.vgg(depth, width, outputs, shape)


def _ds_cnn(numbers: List[int], shape: Shape, outputs: int) -> List[Layer]:
    width, blocks = [*numbers, *(64, 4)[len(numbers) :]]
    return networks.ds_cnn(outputs, width, blocks, shape)


# How it is made, most numbers, input and outputs where nothing tells them.
_KNOWN: Dict[str, Tuple[Callable[[List[int], Shape, int], List[Layer]], int, Shape, int]] = {
    "mlp": (_mlp, 99, (784, 1, 1), 10),
    "resnet": (_resnet, 2, (3, 32, 32), 10),
    "vgg": (_vgg, 2, (3, 32, 32), 10),
    "ds_cnn": (_ds_cnn, 2, (1, 49, 10), 12),
}


def add_shape(parser: Any) -> None:
    """Options of commands that have no data to tell the shape."""
    parser.add_argument(
        "--network", default="mlp:1024,1024", metavar="SPEC", help=f"{HELP}; default mlp:1024,1024"
    )
    parser.add_argument(
        "--input",
        metavar="SHAPE",
        help="784 or 3,32,32: what one sample is; default: what is usual for the network",
    )
    parser.add_argument(
        "--outputs", type=int, metavar="N", help="classes; default: what is usual for the network"
    )


def shape_of(text: str, option: str = "--input") -> Shape:
    """784, or channels,height,width."""
    numbers = integers(text, option)
    if len(numbers) not in (1, 3) or min(numbers) < 1:
        raise Failure(f"{option} {text}: the number of features, or channels,height,width")
    return (numbers[0], 1, 1) if len(numbers) == 1 else (numbers[0], numbers[1], numbers[2])


def network(
    spec: str, shape: Optional[Shape] = None, outputs: Optional[int] = None, option: str = "--input"
) -> List[Layer]:
    """Layers; each call makes new ones.  option: what tells the command the shape."""
    kind, _, rest = spec.partition(":")
    if kind.endswith(".py") or os.sep in kind:
        return _of_file(kind, rest, shape, outputs)
    known = _KNOWN.get(kind.lower().replace("-", "_"))
    if known is None:
        raise Failure(f"--network {spec}: choose {HELP}")
    make, most, usual_shape, usual_outputs = known
    numbers = integers(rest, f"--network {spec}:") if rest else []
    if len(numbers) > most or min(numbers, default=1) < 1:
        raise Failure(f"--network {spec}: {HELP}")
    shape, outputs = shape or usual_shape, usual_outputs if outputs is None else outputs
    if kind != "mlp" and shape[1] * shape[2] == 1:
        raise Failure(
            f"--network {spec} wants pictures, and a sample is {shape[0]} numbers: say {option} channels,"
            "height,width, or take mlp"
        )
    if outputs < 1:
        raise Failure(f"--outputs {outputs}: 1 or more is wanted")
    return make(numbers, shape, outputs)


def of_options(options: Any) -> Callable[[], List[Layer]]:
    """What makes the layers of --network, --input and --outputs."""
    shape = None if options.input is None else shape_of(options.input)
    network(options.network, shape, options.outputs)  # an error is said now
    return lambda: network(options.network, shape, options.outputs)


def _of_file(path: str, name: str, shape: Optional[Shape], outputs: Optional[int]) -> List[Layer]:
    if not name:
        raise Failure(f"--network {path}: which name of it? {path}:layers for example")
    if not os.path.exists(path):
        raise Failure(f"--network {path}: there is no such file")
    spec = importlib.util.spec_from_file_location("mest_network", path)
    if spec is None or spec.loader is None:
        raise Failure(f"--network {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        found = getattr(module, name)
        if callable(found):
            found = _called(found, shape, outputs)
    except AttributeError as error:
        if not hasattr(module, name):
            names = [n for n, value in vars(module).items() if not n.startswith("_") and _may_be(value)]
            raise Failure(
                f"{path} has no {name!r}; it has {', '.join(names) or 'nothing of that kind'}"
            ) from error
        raise _failed(path, error) from error
    except Failure:
        raise
    except Exception as error:
        raise _failed(path, error) from error
    if not isinstance(found, Sequence) or not all(isinstance(layer, Layer) for layer in found):
        raise Failure(f"{path}:{name} is {type(found).__name__}, not a list of layers")
    return list(found)


def _may_be(value: Any) -> bool:
    return isinstance(value, list) or inspect.isfunction(value)


def _called(make: Callable[..., Any], shape: Optional[Shape], outputs: Optional[int]) -> Any:
    """With those of input and outputs that it takes."""
    given: Dict[str, Union[Shape, int, None]] = {"input": shape, "outputs": outputs}
    names = [name for name in inspect.signature(make).parameters if name in given]
    for name in names:
        if (
            given[name] is None
            and inspect.signature(make).parameters[name].default is inspect.Parameter.empty
        ):
            raise Failure(f"{make.__name__} wants {name}: say --{name}")
    return make(**{name: given[name] for name in names if given[name] is not None})


def _failed(path: str, error: Exception) -> Failure:
    trace, line, full = error.__traceback__, None, os.path.abspath(path)
    while trace is not None:
        line = trace.tb_lineno if os.path.abspath(trace.tb_frame.f_code.co_filename) == full else line
        trace = trace.tb_next
    where = f"{path}, line {line}" if line else path
    return Failure(f"{where}: {type(error).__name__}: {error}")
