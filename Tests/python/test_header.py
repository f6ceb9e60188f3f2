# SPDX-License-Identifier: Apache-2.0
"""mest/_abi.py against include/mest.h: numbers, structs, prototypes; loading the library."""

import ctypes
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

import mest
from mest import _abi, _lib

HEADER = (ROOT / "include" / "mest.h").read_text()
CODE = re.sub(r"/\*.*?\*/|//[^\n]*", "", HEADER, flags=re.S)


# --------------------------------------------------------------------------------- the header ---


def constants():
    found = {}
    for body in re.findall(r"\benum\s*\{(.*?)\}", CODE, flags=re.S):
        for item in filter(None, map(str.strip, body.split(","))):
            name, value = map(str.strip, item.split("="))
            found[name] = int(value)
    for name, value in re.findall(r"#define (MEST_\w+) \(?(-?\d+)u?\)?\s*$", CODE, flags=re.M):
        found[name] = int(value)
    return found


def test_constants():
    found = constants()
    assert len(found) > 80
    known = {name: getattr(_abi, name) for name in dir(_abi) if name.startswith("MEST_")}
    versions = {name for name in found if name.startswith("MEST_VERSION_")}
    assert known == {name: value for name, value in found.items() if name not in versions}
    version = ".".join(str(found[f"MEST_VERSION_{part}"]) for part in ("MAJOR", "MINOR", "PATCH"))
    assert mest.__version__ == version


def prototypes():
    """{function: (result, [argument])} with names and spaces removed."""
    found = {}
    for text in re.findall(r"MEST_API\s+(?:MEST_NODISCARD\s+)?([^;#]*?\));", CODE, flags=re.S):
        result, name, arguments = re.match(r"(.*?)(\w+)\s*\((.*)\)$", text, flags=re.S).groups()
        kinds = [
            re.sub(r"\w+$", "", a.strip()) for a in arguments.split(",") if a.strip() != "void"
        ]
        found[name] = plain(result), list(map(plain, kinds))
    return found


def plain(kind):
    return re.sub(r"\bconst\b|\s", "", kind)


CTYPES = {
    "void": None,
    "char*": ctypes.c_char_p,
    "int32_t": ctypes.c_int32,
    "mest_status": ctypes.c_int32,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "size_t": ctypes.c_size_t,
    "void*": ctypes.c_void_p,
    "mest_model*": ctypes.c_void_p,
    "mest_model**": ctypes.POINTER(ctypes.c_void_p),
    "uint64_t*": ctypes.POINTER(ctypes.c_uint64),
}
NUMBERS = {"float*", "uint8_t*", "uint32_t*"}  # arrays: passed as plain addresses


def agrees(python, c):
    if c in NUMBERS:
        return python is ctypes.c_void_p
    if c in CTYPES:
        return python is CTYPES[c]
    return python._type_.__name__ == c[:-1]  # a pointer to a struct


def test_prototypes():
    found = prototypes()
    assert len(found) == 33 and set(found) == set(_abi.PROTOTYPES)
    for name, (result, arguments) in found.items():
        known_result, known_arguments = _abi.PROTOTYPES[name]
        assert agrees(known_result, result) and len(known_arguments) == len(arguments), name
        for known, argument in zip(known_arguments, arguments):
            assert agrees(known, argument), (name, known, argument)
        function = getattr(_lib.library(), name)
        assert function.argtypes is not None and function.restype == known_result


STRUCTS = [
    value for name, value in vars(_abi).items()
    if isinstance(value, type) and issubclass(value, _abi.Struct) and value is not _abi.Struct
]  # fmt: skip


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_struct_layouts(compiler, tmp_path):
    """A small program compiled from the header prints every size and offset."""
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler} here")
    assert len(STRUCTS) == len(re.findall(r"typedef struct mest_\w+ \{", CODE))
    lines = []
    for struct in STRUCTS:
        name = struct.__name__
        lines.append(f'printf("{name} %zu\\n", sizeof({name}));')
        for field, *_ in struct._fields_:
            at = f"offsetof({name}, {field}), sizeof((({name} *)0)->{field})"
            lines.append(f'printf("{name}.{field} %zu %zu\\n", {at});')
    source = tmp_path / "layout.c"
    source.write_text(
        "#include <stdio.h>\n#include <mest.h>\nint main(void) {\n" + "\n".join(lines) + "}"
    )
    program = tmp_path / "layout"
    subprocess.run([compiler, f"-I{ROOT / 'include'}", str(source), "-o", str(program)], check=True)
    printed = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
    expected = []
    for struct in STRUCTS:
        expected.append(f"{struct.__name__} {ctypes.sizeof(struct)}")
        for field, *_ in struct._fields_:
            at = getattr(struct, field)
            expected.append(f"{struct.__name__}.{field} {at.offset} {at.size}")
    assert printed.split("\n")[:-1] == expected


def test_struct_fields_are_all_of_the_header():
    for struct in STRUCTS:
        body = re.search(
            rf"typedef struct {struct.__name__} \{{(.*?)\n\}} {struct.__name__};", CODE, re.S
        )
        text = re.sub(r"\((?:\*(\w+))\)\s*\((?:[^()]|\([^()]*\))*\)", r"\1", body[1])  # callbacks
        names = [
            re.search(r"(\w+)(?:\[\w+\])?\s*$", item)[1] for item in text.split(";") if item.strip()
        ]
        assert names == [field[0] for field in struct._fields_], struct.__name__


# -------------------------------------------------------------------------------- the library ---


def run_python(code, **environment):
    """A new interpreter that finds the package."""
    package = str(ROOT / "bindings" / "python")
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": package, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_error_lists_every_place(tmp_path):
    done = run_python("import mest; mest.plan([])", MEST_LIBRARY=str(tmp_path / "nothing.so"))
    assert "ImportError" in done.stderr and str(tmp_path / "nothing.so") in done.stderr
    environment = {k: v for k, v in os.environ.items() if k != "MEST_LIBRARY"}
    places = run_python(
        "from mest import _lib; print(*_lib.candidates(), sep='\\n')", **environment
    )
    listed = places.stdout.split()
    assert all(os.path.isabs(p) or os.sep not in p for p in listed)


def test_working_directory_is_not_searched(tmp_path, monkeypatch):
    (tmp_path / "libmest.so").write_bytes(b"not a library")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEST_LIBRARY", raising=False)
    assert not any(str(tmp_path) in place for place in _lib.candidates())


def test_handshake(tmp_path):
    """A library with another ABI version, and one that is no libmest, are refused with words."""
    source = tmp_path / "old.c"
    source.write_text("unsigned mest_abi_version(void) { return 77; }")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", str(source), "-o", str(tmp_path / "old.so")], check=True
    )
    done = run_python("import mest; mest.plan([])", MEST_LIBRARY=str(tmp_path / "old.so"))
    assert "VersionError" in done.stderr and "77" in done.stderr
    source.write_text("int x;")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", str(source), "-o", str(tmp_path / "x.so")], check=True
    )
    done = run_python("import mest; mest.plan([])", MEST_LIBRARY=str(tmp_path / "x.so"))
    assert "VersionError" in done.stderr


def test_import_needs_no_library():
    done = run_python(
        "import mest, mest.datasets; print(mest.mlp(3, [4], 2))",
        MEST_LIBRARY="/nonexistent/libmest.so",
    )
    assert done.returncode == 0, done.stderr


def test_show_versions(capsys):
    mest.show_versions()
    printed = capsys.readouterr().out
    assert "0.1.0 (ABI 1)" in printed and "numpy" in printed


def test_version_functions():
    lib = _lib.library()
    assert lib.mest_version() == 1000 and lib.mest_version_string() == b"0.1.0"
    for name, value in constants().items():
        if name in ("MEST_OK", "MEST_MORE") or name.startswith("MEST_ERR_"):
            assert lib.mest_status_string(value) == name.encode()
    assert lib.mest_status_string(-12345)


def test_config_init():
    lib, config = _lib.library(), _abi.mest_config()
    ctypes.memset(ctypes.byref(config), 0x55, ctypes.sizeof(config))
    assert lib.mest_config_init(ctypes.byref(config), ctypes.sizeof(config)) == 0
    assert bytes(config) == bytes(_abi.mest_config(abi_version=_abi.MEST_ABI_VERSION))
    assert lib.mest_config_init(ctypes.byref(config), 7) == _abi.MEST_ERR_VERSION
    assert lib.mest_config_init(None, ctypes.sizeof(config)) == _abi.MEST_ERR_ARGUMENT
