"""Build the runtime, and say what environment puts it under a Python program."""

import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
RUNTIME = FOLDER / "runtime"
INSIDE = FOLDER / "inside"
# Under this name it is the driver too, for those who load that by name.
LIBRARY = "libcuda.so.1"
FLAGS = ["-std=c++17", "-O1", "-Wall", "-fPIC", "-shared", f"-Wl,-soname,{LIBRARY}"]


def why_not() -> str | None:
    """Return why the stand-in cannot be used here; None if it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return (
            f"the stand-in is for Linux on x86-64, and this is {sys.platform} {os.uname().machine}"
        )
    if shutil.which("g++") is None:
        return "the stand-in needs g++"
    if headers() is None:
        return "the stand-in needs a PyTorch for CUDA 13, with the headers that come with it"
    return None


def headers() -> Path | None:
    """Return the folder of the CUDA headers that PyTorch's packages bring, if they do."""
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        return None
    folder = Path(torch.origin).parents[1] / "nvidia" / "cu13" / "include"
    return folder if (folder / "cuda_runtime_api.h").exists() else None


def build() -> Path:
    """Return the folder with the built runtime: in the user's cache, for these sources and headers.

    Raises:
        RuntimeError: it cannot be used here, or g++ fails.
    """
    if reason := why_not():
        raise RuntimeError(reason[0].upper() + reason[1:] + ".")
    key = hashlib.sha256(repr((FLAGS, headers())).encode())
    for source in sorted(RUNTIME.rglob("*.[ch]*")):
        key.update(source.read_bytes())
    folder = _cache() / f"cuda_stand_in-{key.hexdigest()[:16]}"
    if not folder.exists():
        _compile(folder)
    return folder


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment with the stand-in in it, built if need be."""
    folder = build()
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "LD_PRELOAD": str(folder / LIBRARY),
        "TRITON_LIBCUDA_PATH": str(folder),
        "PYTHONPATH": str(INSIDE) if path is None else f"{INSIDE}{os.pathsep}{path}",
        **variables,
    }


def _cache() -> Path:
    """The user's; for a user without a home, a folder of the system's for temporary files."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home if os.path.isabs(home) else tempfile.gettempdir(), "mnist_bench")


def _compile(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Under another name first, as another process may be compiling the same.
    with tempfile.TemporaryDirectory(dir=folder.parent) as unfinished:
        library = Path(unfinished, "finished", LIBRARY)
        library.parent.mkdir()
        command = ["g++", *FLAGS, f"-I{RUNTIME}", "-isystem", str(headers())]
        command += [*map(str, sorted(RUNTIME.glob("*.cpp"))), "-ldl", "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"g++ cannot build the stand-in:\n{done.stderr}")
        try:
            library.parent.rename(folder)
        except OSError:
            if not folder.exists():
                raise
