# SPDX-License-Identifier: Apache-2.0
"""Finds and loads libmest, and shakes hands about the ABI.

`import mest` does it when a library is there, so that one of another version is refused before any
work is done.  Without a library the import succeeds: layer descriptions, configurations, data
readers, and pictures and reports of runs made elsewhere need none.  Then the first use searches
again: whoever ships the library can set MEST_LIBRARY after the import.  Once loaded it stays loaded.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from typing import Any, List, Optional

from . import _abi
from .errors import VersionError

_FILE = {"darwin": "libmest.dylib", "win32": "mest.dll"}.get(sys.platform, "libmest.so")
_lock = threading.Lock()
_library: Optional[ctypes.CDLL] = None


def library() -> Any:
    """The loaded library with prototypes set.

    ImportError when it is not found (the message lists every place searched), VersionError when
    it was built from another header.  Typed Any: its functions are attributes made at run time.
    """
    global _library
    if _library is None:
        with _lock:
            if _library is None:
                _library = _prepare(_load())
    return _library


def check() -> None:
    """What `import mest` does: VersionError when the library found is of another version, nothing
    when none is found."""
    try:
        library()
    except ImportError:
        pass


def path() -> str:
    """Where the library in use was loaded from."""
    return str(library()._name)


def candidates() -> List[str]:
    """Places in the order they are tried.  MEST_LIBRARY, when set, is the only one: a wrong value
    must not silently become another library.  The working directory is never searched."""
    chosen = os.environ.get("MEST_LIBRARY")
    if chosen:
        return [os.path.abspath(chosen)]
    package = os.path.dirname(os.path.realpath(__file__))
    build = os.path.normpath(os.path.join(package, "..", "..", "..", ".build", "release"))
    places = [os.path.join(package, _FILE)]
    if os.path.isdir(build):
        places.append(os.path.join(build, _FILE))
    # A bare name goes through the system loader (ld.so.cache, LD_LIBRARY_PATH); the soname first,
    # because the unversioned link belongs to development packages.
    return places + ([_FILE + ".0"] if sys.platform == "linux" else []) + [_FILE]


def _load() -> ctypes.CDLL:
    tried = []
    for place in candidates():
        if os.path.isabs(place) and not os.path.exists(place):
            tried.append(f"  {place}: no such file")
            continue
        try:
            return ctypes.CDLL(place)
        except OSError as error:
            tried.append(f"  {place}: {error}")
    raise ImportError(
        "libmest was not found. Build it (make build), install it, or set MEST_LIBRARY to its full "
        "path. Searched:\n" + "\n".join(tried)
    )


def _prepare(loaded: ctypes.CDLL) -> ctypes.CDLL:
    try:
        loaded.mest_abi_version.restype = ctypes.c_uint32
        found = loaded.mest_abi_version()
        if found != _abi.MEST_ABI_VERSION:
            raise VersionError(
                f"{loaded._name} has ABI version {found}, this package needs "
                f"{_abi.MEST_ABI_VERSION}: install matching versions of mest and libmest"
            )
        for name, (result, arguments) in _abi.PROTOTYPES.items():
            function = getattr(loaded, name)
            function.restype = result
            function.argtypes = arguments
    except AttributeError as error:
        raise VersionError(f"{loaded._name} is not a libmest of this version: {error}") from None
    return loaded
