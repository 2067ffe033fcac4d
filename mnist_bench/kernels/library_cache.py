"""Where compiled libraries are kept: nobody else's code is ever run, and no damaged file."""

import atexit
import ctypes
import hashlib
import logging
import os
import shutil
import stat
import tempfile
from functools import cache
from pathlib import Path


def folder() -> Path:
    """Return the folder that libraries are kept in: of the user's cache, if that is safe.

    It is if nobody but the user can write there: no folder of another user's, none that others may
    write to, no link in its place. Otherwise, or if it cannot be made, or the user has no home, a
    folder for this process alone serves, and is gone when it ends.
    """
    home = os.environ.get("XDG_CACHE_HOME", "")
    path = Path(home if os.path.isabs(home) else os.path.expanduser("~/.cache"), "mnist_bench")
    reason = "there is no home folder" if not path.is_absolute() else _make_safe(path)
    return path if reason is None else _of_this_process(path, reason)


@cache
def _of_this_process(path: Path, reason: str) -> Path:
    logging.getLogger(__name__).warning(
        "Kernels are compiled anew for this process, as %s is not used: %s", path, reason
    )
    private = tempfile.mkdtemp(prefix="mnist_bench-")  # of mode 0700
    atexit.register(shutil.rmtree, private, ignore_errors=True)
    return Path(private)


def _make_safe(path: Path) -> str | None:
    """Make the folder if it is not there; return why others may write to it, None if they cannot.

    A folder above that belongs to another user, or that all may write to without the sticky bit,
    would let them put another in its place after this look at it.
    """
    if not hasattr(os, "getuid"):
        return "this system does not say whose it is"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
        *above, root = (parent.stat() for parent in path.resolve().parents)
    except OSError as error:
        return f"{error.strerror}"
    if not stat.S_ISDIR(found.st_mode):
        return "it is a link"
    if found.st_uid != os.getuid():
        return "it belongs to another user"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "other users may write to it"
    for parent in above:
        shared = parent.st_mode & stat.S_IWOTH and not parent.st_mode & stat.S_ISVTX
        if shared or parent.st_uid not in (os.getuid(), 0, root.st_uid):
            return "other users may change a folder above it"
    return None


def load(path: Path) -> ctypes.CDLL | None:
    """Return the library in a file; None if there is none, or not as `keep` left it.

    Raises:
        OSError: the file is whole, and no library.
    """
    try:
        content, expected = path.read_bytes(), _digest_file(path).read_bytes()
    except OSError:
        return None
    return ctypes.CDLL(str(path)) if _digest(content) == expected else None


def keep(built: Path, path: Path) -> None:
    """Move a library to where it is kept, whole or not at all, its sha256 beside it."""
    digest = _digest_file(built)
    digest.write_bytes(_digest(built.read_bytes()))
    built.replace(path)
    digest.replace(_digest_file(path))


def _digest_file(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
