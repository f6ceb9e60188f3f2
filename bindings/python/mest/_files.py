# SPDX-License-Identifier: Apache-2.0
"""Files that are replaced as a whole or not at all."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, Iterator, List, Union

from .errors import MestIOError

Path = Union[str, "os.PathLike[str]"]


def replace(path: Path, content: bytes) -> None:
    """Writes a file, or raises MestIOError (an OSError) and leaves what was there."""
    with replacing(path) as (file,):
        file.write(content)


@contextmanager
def replacing(*paths: Path) -> Iterator[List[IO[bytes]]]:
    """`with replacing(path) as (file,): file.write(...)`: what is written takes the path's place at the end.

    Until all of them are written and on the disk none is replaced; each then is, in their order.  Whatever
    is raised meanwhile, the temporary files, whose names nobody else has, are removed.  A link is replaced,
    not followed.  New files have the permissions that `open` gives.  Errors: MestIOError, with the path.
    """
    targets = [os.fspath(path) for path in paths]
    temporary = [f"{target}.{os.urandom(6).hex()}.tmp" for target in targets]
    try:
        with ExitStack() as opened:
            files: List[IO[bytes]] = [opened.enter_context(open(name, "xb")) for name in temporary]
            yield files
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        for name, target in zip(temporary, targets):
            os.replace(name, target)
    except BaseException as error:
        for name in temporary:
            with suppress(OSError):  # that it is in place already, or was never there
                os.remove(name)
        if isinstance(error, OSError):
            named = temporary.index(error.filename) if error.filename in temporary else 0
            raise MestIOError(f"cannot write {targets[named]}: {error.strerror or error}") from error
        raise
    for folder in sorted({os.path.dirname(os.path.abspath(target)) for target in targets}):
        _keep_names(folder)


def _keep_names(folder: str) -> None:
    """Also that a file has its new name is on the disk then, where a system has such a thing."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
