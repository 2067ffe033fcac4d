"""Stopping a run before its end: by a signal, of a keyboard or a cluster, or for want of time."""

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

# A platform may lack some.
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
# The status of a process whose run has used up its time: "temporary failure; try again".
OUT_OF_TIME = 75


def stop_signals() -> list[int]:
    """Return the signals that ask a program to stop, but for those that it was told to ignore.

    nohup has SIGHUP ignored, and a shell without job control SIGINT in the background.
    """
    numbers: list[int] = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


class Stopped(SystemExit):
    """A run was stopped and can go on; uncaught, it ends the process with the status `code`."""


class Interrupted(Stopped):
    """A signal has asked the run to stop."""

    def __init__(self, signal_number: int):
        super().__init__(signal_number)  # what it is made from again after pickling
        self.signal_number = signal_number
        self.code = 128 + signal_number

    def __str__(self) -> str:
        return f"Stopped by {signal.Signals(self.signal_number).name}"


class OutOfTime(Stopped):
    """The seconds of `trainer.max_seconds` are used up."""

    def __init__(self, max_seconds: float):
        super().__init__(max_seconds)
        self.max_seconds = max_seconds
        self.code = OUT_OF_TIME

    def __str__(self) -> str:
        return f"Stopped in time for trainer.max_seconds={self.max_seconds:g}"


class StopRequest:
    """While active, a first signal is remembered, and what works asks for it between two steps.

    A second one of the same kind goes to the handler that stood before, and so stops at once; but
    not SIGHUP, of which a terminal that closes may send two. At its end a handler in Python that
    stood before is called with the first signal: another request, or a launcher that has the job
    begun again.

    `max_seconds` are those from now on after which it asks to stop, too; `reserve` are those of
    them that saving takes.
    """

    def __init__(self, max_seconds: float | None = None) -> None:
        self.signal_number: int | None = None
        self.max_seconds = math.inf if max_seconds is None else max_seconds
        self.reserve = 0.0
        self._end = time.perf_counter() + self.max_seconds
        self._frame: FrameType | None = None
        self._at_once = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # which alone has signals
            for number in stop_signals():
                self._previous[number] = signal.signal(number, self._receive) or signal.SIG_DFL
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._hand_on()

    def _hand_on(self) -> None:
        """Call the handler that stood before, if it is somebody's, with the signal that came."""
        if self.signal_number is not None:
            handler = self._previous[self.signal_number]
            if callable(handler) and handler is not signal.default_int_handler:
                handler(self.signal_number, self._frame)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if signal.Signals(number).name != "SIGHUP":
            signal.signal(number, self._previous[number])
        if self.signal_number is None:
            self.signal_number, self._frame = number, frame
            if self._at_once and _is_importing():
                # Libraries turn what is raised in their imports into other errors, or abort.
                try:
                    self._hand_on()
                finally:
                    os._exit(128 + number)
            if self._at_once:  # not `Stopped`, as this is not between two steps
                raise SystemExit(128 + number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Stop within this context wherever a signal comes, as there is nothing to save.

        Raises:
            SystemExit: at that place; at the end if it was lost there, as within a destructor.
        """
        self._at_once = True
        try:
            self.check_signal()
            yield
        finally:
            self._at_once = False
        self.check_signal()

    def check_signal(self) -> None:
        """Stop if a signal has come.

        Raises:
            Interrupted: it has.
        """
        if self.signal_number is not None:
            raise Interrupted(self.signal_number)

    def is_due(self, seconds: float = 0.0) -> bool:
        """Return whether to stop, rather than to go on for so many seconds."""
        late = time.perf_counter() + seconds + self.reserve > self._end
        return late or self.signal_number is not None

    def check(self, seconds: float = 0.0) -> None:
        """Stop if it is due, as `is_due` has it.

        Raises:
            Interrupted: a signal has come.
            OutOfTime: so many seconds more are too many.
        """
        self.check_signal()
        if self.is_due(seconds):
            raise OutOfTime(self.max_seconds)


def _is_importing() -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
