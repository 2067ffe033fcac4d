"""How a program starts a training as a process of its own, and how one ends with its parent."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TypeGuard

from omegaconf import DictConfig, read_write

import mnist_bench
from mnist_bench.config.compose import quoted
from mnist_bench.runs.folder import RunFolder
from mnist_bench.training.interrupt import stop_signals

PROGRAM = Path(mnist_bench.__file__).resolve().with_name("__main__.py")


def train_command(*arguments: str) -> list[str]:
    """Return the command line of `mnist-bench train ARGUMENTS` with this Python and this package.

    `python -m mnist_bench` would look for the package in the working directory first, and then
    among what is installed, which may be another copy: so it is started by its path.
    """
    return [sys.executable, str(PROGRAM), "train", *arguments]


def is_in_turn(launcher: Any) -> bool:
    """Return whether a launcher, by its settings, runs jobs one after the other in this process."""
    return str(launcher._target_).endswith(".BasicLauncher")


def lay_jobs_in(folder: Path, config: DictConfig) -> None:
    """Have all jobs of a sweep lie in a folder, whose configuration is `config`.

    Each is composed anew, from the command line of Hydra's own settings.
    """
    with read_write(config):
        config.hydra.sweep.dir = str(folder)
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(str(folder))}")


# How long runs in other processes have to finish their step and save, in seconds.
SAVE_SECONDS = 60.0


@contextmanager
def others_save_first(runs: Sequence[RunFolder]) -> Iterator[None]:
    """Have a signal that ends this process first stop those that it has started to work in `runs`.

    A launcher whose main process is interrupted kills its workers wherever they are.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        told: set[Path] = set()
        end = time.monotonic() + SAVE_SECONDS
        while time.monotonic() < end:
            found = {run.path: run.owner_here() for run in runs}
            working = {path: process for path, process in found.items() if _is_ours(process)}
            if not working:
                break
            for path in working.keys() - told:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(working[path], signal.SIGTERM)
            told |= working.keys()
            time.sleep(0.1)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, stop) for number in stop_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_ours(process: int | None) -> TypeGuard[int]:
    """Return whether a process was started by this one, or by one that was."""
    while process is not None and process > 1:
        try:
            # Of its name in brackets, its state, and the number of its parent.
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
        if process == os.getpid():
            return True
    return False


# How often a process looks whether its parent lives, in seconds.
LOOK_SECONDS = 2.0


def end_with_parent() -> None:
    """Have this process stop, as by SIGTERM, when the one that has started it is gone.

    The workers of a launcher whose main process was killed would wait for it for ever.
    """
    parent = os.getppid()

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    if not any(thread.name == look.__name__ for thread in threading.enumerate()):
        threading.Thread(target=look, name=look.__name__, daemon=True).start()
