"""C functions for a CPU with AVX-512, compiled when they are first used.

They stand in csrc/, are plain C with OpenMP, and take addresses and sizes. What is compiled is kept
(`library_cache.py`). Without AVX-512 or a C compiler there are none, and PyTorch's own functions
serve.
"""

import ctypes
import hashlib
import logging
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mnist_bench.kernels import library_cache

FOLDER = Path(__file__).with_name("csrc")
HEADERS = ("vectors.h", "epilogue.h")
COMPILERS = ("cc", "gcc", "clang")
FLAGS = [
    *("-std=gnu11", "-O3", "-march=x86-64-v4", "-fno-signed-zeros", "-fno-trapping-math"),
    *("-fopenmp", "-fPIC", "-shared"),
]
# Instructions beyond those of x86-64-v4, by the names of `torch.cpu.get_capabilities`.
INSTRUCTIONS = {
    "avx512_bf16": ["-mavx512bf16"],
    "amx_bf16": ["-mamx-tile", "-mamx-bf16"],
}
# The types of maps that the functions take, as vectors.h calls them.
ELEMENTS = {torch.float32: "FLOAT32", torch.bfloat16: "BFLOAT16"}

Argument = Tensor | int | ctypes.Structure | ctypes.Array[Any] | None


@cache
def compiler() -> str | None:
    """The C compiler, if there is one and the processor has AVX-512."""
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return None
    return next(filter(None, map(shutil.which, COMPILERS)), None)


def missing() -> str | None:
    """Return what is missing here for functions in C; None if there are some."""
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return "AVX-512"
    if compiler() is None:
        return "a C compiler"
    if library("dropout", torch.float32) is None:  # the smallest stands for all
        return "a C compiler that works"
    return None


@cache
def flags() -> list[str]:
    """Of the compiler, for the instructions that the processor has."""
    found = torch.cpu.get_capabilities()
    return FLAGS + [flag for name, more in INSTRUCTIONS.items() if found.get(name) for flag in more]


@cache
def library(
    name: str, dtype: torch.dtype, constants: str = "", headers: tuple[str, ...] = ()
) -> ctypes.CDLL | None:
    """The functions of `name`.c for maps of `dtype`, with `constants` and `headers` before it.

    None if they cannot be had here: the dtype is not among `ELEMENTS`, there is no compiler, or it
    fails, which is logged.
    """
    command = compiler()
    if command is None or dtype not in ELEMENTS:
        return None
    files = [FOLDER / file for file in (*HEADERS, *headers, f"{name}.c")]
    source = "\n".join([f"#define {ELEMENTS[dtype]}", constants, *(f.read_text() for f in files)])
    key = hashlib.sha256("\n".join([*flags(), source]).encode()).hexdigest()[:16]
    try:
        path = library_cache.folder() / f"{name}-{key}.so"
        found = library_cache.load(path)
        if found is None:
            _compile(command, source, path)
            found = library_cache.load(path)
        if found is not None:
            return found
        reason = f"{path} was changed while it was written"
    except OSError as error:
        reason = str(error)
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or [str(error)]
        reason = f"{command} says {next((line for line in said if 'error' in line), said[0])}"
    logging.getLogger(__name__).warning(
        "%s.c cannot be used here, so PyTorch computes in its place, more slowly: %s", name, reason
    )
    return None


def _compile(command: str, source: str, path: Path) -> None:
    # In a folder of its own first, as another run may be compiling the same.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        built = Path(folder, path.name)
        subprocess.run(
            [command, *flags(), "-x", "c", "-", "-o", str(built)],
            input=source,
            text=True,
            check=True,
            capture_output=True,
        )
        library_cache.keep(built, path)


def call(library: ctypes.CDLL | None, function: str, *arguments: Argument) -> None:
    """Call a function of no result: tensors go as addresses, numbers as `int64_t`."""
    assert library is not None
    getattr(library, function)(*map(_as_c, arguments))


def _as_c(argument: Argument) -> Any:
    match argument:
        case None:
            return ctypes.c_void_p()
        case Tensor():
            return ctypes.c_void_p(argument.data_ptr())
        case int():
            return ctypes.c_int64(argument)
        case _:
            return argument
