"""A run's folder: every path of it, whole files, and its owner; see outputs/README.md."""

import errno
import itertools
import json
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from mnist_bench.config.read import SAVED
from mnist_bench.config.schema import Keep
from mnist_bench.errors import ConfigError, FileError, explain_file_error, naming


@contextmanager
def atomic_write(path: Path, mode: str = "w", keep: Path | None = None) -> Iterator[IO[Any]]:
    """Open a file beside `path` that takes its place when it is whole and on the disk.

    A process killed at any moment leaves the old file or the new one. What cannot be finished is
    removed. `keep` is where the old file then is.

    Raises:
        OSError: the disk is full, or the folder cannot be written to; its `filename` is `path`.
    """
    beside = path.with_name(f"{path.name}.partial")
    encoding, newline = (None, None) if "b" in mode else ("utf-8", "")
    try:
        with naming(path):
            with beside.open(mode, encoding=encoding, newline=newline) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if keep is not None and path.exists():
                path.replace(keep)
            beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


class InUse(ConfigError):
    """Another process works in a run's folder."""


class RunFolder:
    """The paths of a run, and who works in it."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.summary = self.path / "summary.json"
        self.metrics = self.path / "metrics.csv"
        self.predictions = self.path / "predictions.npz"
        self.log = self.path / "train.log"
        self.tensorboard = self.path / "tensorboard"
        self.figures = self.path / "figures"
        self.last = self.path / "checkpoints" / "last.pt"
        self.previous = self.path / "checkpoints" / "previous.pt"
        self.best = self.path / "checkpoints" / "best.pt"
        self.config = self.path / SAVED
        self.hydra = self.config.with_name("hydra.yaml")
        self.overrides = self.config.with_name("overrides.yaml")
        self.owner = self.path / ".owner.json"

    def __str__(self) -> str:
        return str(self.path)

    @property
    def holds_a_run(self) -> bool:
        """Whether a run has begun to leave its results here."""
        return any(file.exists() for file in (self.summary, self.metrics, self.last))

    @property
    def can_go_on(self) -> bool:
        """Whether there is a checkpoint from which training goes on."""
        return self.last.is_file() or self.previous.is_file()

    def keep(self, which: Keep) -> None:
        """Remove the checkpoints that are not to stay."""
        kept = {
            Keep.all: {self.last, self.previous, self.best},
            Keep.best: {self.best},
            Keep.last: {self.last},
            Keep.none: set(),
        }[which]
        for file in {self.last, self.previous, self.best} - kept:
            file.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove what a run that was never saved has left."""
        for file in (self.summary, self.metrics, self.predictions, self.best):
            file.unlink(missing_ok=True)
        for folder in (self.tensorboard, self.figures):
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Be the only process that works in the folder; one that has it already keeps it.

        Raises:
            InUse: another process does, and who it is.
            FileError: the folder cannot be written to.
        """
        lock = FileLock(self.path / ".lock", timeout=LOCK_SECONDS, is_singleton=True)
        try:
            lock.acquire()
        except Timeout:
            raise self._in_use() from None
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in NO_LOCKS:
                raise FileError(f"{explain_file_error(error)}.") from error
            with self._owned_by_heartbeat():
                yield
            return
        try:
            with atomic_write(self.owner) as file:
                json.dump(_this_process(), file)
            yield
        finally:
            if lock.lock_counter == 1:
                with suppress(OSError):  # it is the lock that counts
                    self.owner.unlink(missing_ok=True)
            lock.release()

    @contextmanager
    def _owned_by_heartbeat(self) -> Iterator[None]:
        """The same on a file system without locks: the owner's file is touched while it lives."""
        if self._is_alive():
            raise self._in_use()
        with suppress(FileNotFoundError):  # of two that find it dead, one can move it away
            os.replace(self.owner, self.owner.with_name(f".owner-{os.getpid()}.dead"))
        try:
            with self.owner.open("x") as file:
                json.dump(_this_process(), file)
        except FileExistsError:
            raise self._in_use() from None
        except OSError:
            self.owner.unlink(missing_ok=True)  # else it would count as alive
            raise
        over = threading.Event()

        def beat() -> None:
            while not over.wait(HEARTBEAT_SECONDS):
                with suppress(OSError):
                    os.utime(self.owner)

        heart = threading.Thread(target=beat, name="heartbeat", daemon=True)
        heart.start()
        try:
            yield
        finally:
            over.set()
            heart.join()
            with suppress(OSError):  # it will be found dead
                self.owner.unlink(missing_ok=True)

    def is_in_use(self) -> bool:
        """Return whether a process works in the folder, as its lock tells.

        The owner's file alone does not: one that was killed has left it.
        """
        if not self.owner.exists():
            return False
        import fcntl  # Unix alone has it, and the package is imported anywhere

        try:
            with (self.path / ".lock").open() as file:  # which takes no right to write
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        except OSError:
            return self._is_alive()

    def owner_here(self) -> int | None:
        """Return the process of this machine that works in the folder, if one does."""
        if not self.is_in_use():
            return None
        try:
            owner = json.loads(self.owner.read_text())
            return int(owner["pid"]) if owner["host"] == platform.node() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _is_alive(self) -> bool:
        try:
            return time.time() - self.owner.stat().st_mtime < DEAD_SECONDS
        except FileNotFoundError:
            return False

    def _in_use(self) -> "InUse":
        try:
            owner = json.loads(self.owner.read_text())
            who = f"process {owner['pid']} on {owner['host']}, since {owner['since']}"
        except (OSError, ValueError, KeyError):
            who = "another process"
        return InUse(f"{self} is in use by {who}: wait until it has ended, or stop it first.")


# How long a lock is tried for: who only asks whether it is held has it for a moment.
LOCK_SECONDS = 0.2
# Where a file system has no locks, its owner says that it lives this often, and counts as dead when
# it has not for so long.
HEARTBEAT_SECONDS = 10
DEAD_SECONDS = 60
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


def _this_process() -> dict[str, Any]:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"host": platform.node(), "pid": os.getpid(), "since": since}


def claim_folder(path: Path, key: str) -> Path:
    """Make a folder that nobody else has made, numbered if there is one of its name; return it.

    `key` is what asked for it, as the error names it.

    Raises:
        ConfigError: it cannot be made.
    """
    path = _refuse_working_directory(path, key)
    for suffix in itertools.chain([""], (f"-{i}" for i in itertools.count(2))):
        folder = path.with_name(path.name + suffix)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise _cannot_be_made(key, folder, error) from error
        return folder
    raise AssertionError


def make_folder(path: Path, key: str) -> Path:
    """Make a folder unless it is there, and return it; `key` as for `claim_folder`.

    Raises:
        ConfigError: it cannot be made.
    """
    path = _refuse_working_directory(path, key)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_be_made(key, path, error) from error
    return path


def refuse_folder_that_cannot_be(path: Path, key: str) -> None:
    """Refuse a folder that could not be made, by making another in its place and removing that.

    Raises:
        ConfigError: it cannot be made; `key` as for `claim_folder`.
    """
    path = _refuse_working_directory(path, key)
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    try:
        os.rmdir(tempfile.mkdtemp(prefix=".", dir=there))
    except OSError as error:
        raise _cannot_be_made(key, path, error) from error


def _cannot_be_made(key: str, folder: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{explain_file_error(error, f'{key}={folder}', 'made')}.")


def _refuse_working_directory(path: Path, key: str) -> Path:
    path = Path(os.path.abspath(path))
    if Path.cwd().is_relative_to(path):
        raise ConfigError(
            f"{key}={path} is the working directory, or has it within: name a folder of its own."
        )
    return path
