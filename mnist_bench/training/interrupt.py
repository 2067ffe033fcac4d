"""Stopping a run with Ctrl-C, or with the signal a cluster sends before it takes a machine back."""

import signal
from types import FrameType, TracebackType
from typing import Self


class Interrupted(Exception):
    """The run was asked to stop and has stopped between two steps."""

    def __init__(self, signal_number: int):
        super().__init__(signal_number)  # what it is made from again after pickling
        self.signal_number = signal_number

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.signal_number).name}"


class StopRequest:
    """While active, a first SIGINT or SIGTERM is remembered and a second one stops at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def __enter__(self) -> Self:
        self._previous = {
            number: signal.signal(number, self._remember) or signal.SIG_DFL
            for number in self.SIGNALS
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come."""
        if self.signal_number is not None:
            raise Interrupted(self.signal_number)
