"""What is to happen within a training that a test has started (`train_command.started`)."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mnist_bench.runs import session
from mnist_bench.training.learner import Learner


def at_step(number: int, what: Callable[[], object]) -> None:
    """Have something happen in the middle of a step of this process, counted from 1."""
    compute, steps = Learner.compute, [0]

    def counted(self: Learner, *arguments: Any) -> None:
        compute(self, *arguments)
        steps[0] += 1
        if steps[0] == number:
            what()

    Learner.compute = counted  # type: ignore[method-assign]


def send(signal_number: int) -> None:
    os.kill(os.getpid(), signal_number)


def refuse_to_write(folder: Path) -> None:
    """Have this folder be on a disk that is read-only, for this process."""

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or not str(arguments[0]).startswith(str(folder)):
            return
        if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), arguments[0])

    sys.addaudithook(refuse)


def signal_in_step(number: int, signal_number: int) -> None:
    at_step(number, lambda: send(signal_number))


def close_the_terminal_in_step(number: int) -> None:
    """Give the process a terminal of its own, which the kernel tells it the end of."""
    terminal, own_end = os.openpty()
    os.setsid()
    fcntl.ioctl(own_end, termios.TIOCSCTTY, 0)
    for descriptor in (0, 1, 2):
        os.dup2(own_end, descriptor)
    os.close(own_end)
    # Those that there are have looked at a file that can be sought in.
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    os.environ["TERM"] = "xterm"
    at_step(number, lambda: os.close(terminal))


def under_nohup_in_step(number: int, signal_number: int) -> None:
    """A terminal closes and nothing comes of it; two steps later comes another signal."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    at_step(number, lambda: send(signal.SIGHUP))
    at_step(number + 2, lambda: send(signal_number))


def with_a_handler_in_step(number: int, signal_number: int, told: Path, run: Path) -> None:
    """Like a launcher, of which the handler looks at what has been saved when it is called."""

    def handle(given: int, frame: object) -> None:
        status = json.loads((run / "summary.json").read_text())["status"]
        last = (run / "checkpoints" / "last.pt").stat().st_mtime
        told.write_text(json.dumps([given, status, time.time() - last < 5, frame is not None]))

    signal.signal(signal_number, handle)
    at_step(number, lambda: send(signal_number))


def in_the_test(signal_number: int) -> None:
    """Send a signal when the test begins, which then takes an hour."""
    evaluate = Learner.evaluate

    def waiting(self: Learner, images: Any, part: str) -> Any:
        if part == "test":
            send(signal_number)
            time.sleep(3600)
        return evaluate(self, images, part)

    Learner.evaluate = waiting  # type: ignore[method-assign]


def with_slow_steps(seconds: float, begun: Path) -> None:
    compute = Learner.compute

    def slow(self: Learner, *arguments: Any) -> None:
        if not begun.exists():
            begun.touch()
        time.sleep(seconds)
        compute(self, *arguments)

    Learner.compute = slow  # type: ignore[method-assign]


def kill_in_step(number: int, after: str | None = None) -> None:
    """Kill the process, once there is such a file somewhere in the working directory."""

    def kill() -> None:
        end = time.monotonic() + 30
        while after is not None and not list(Path().rglob(after)):
            assert time.monotonic() < end
            time.sleep(0.01)
        send(signal.SIGKILL)

    at_step(number, kill)


def signal_after_a_run(signal_number: int) -> None:
    """Send a signal between the runs of a sweep, when one has ended."""
    carry_out = session.carry_out

    def and_send(*arguments: Any, **named: Any) -> float:
        found = carry_out(*arguments, **named)
        send(signal_number)
        return found

    session.carry_out = and_send


OWN = """
import sys, time
from mnist_bench.runs.folder import RunFolder
with RunFolder(sys.argv[1]).owned():
    print("mine", flush=True)
    time.sleep(600)
"""


@contextmanager
def owned_by_another_process(folder: Path) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-c", OWN, str(folder)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "mine\n"
        try:
            yield
        finally:
            owner.kill()
