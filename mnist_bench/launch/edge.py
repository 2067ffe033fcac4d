"""Where a command meets its user: streams that cannot break it, and errors as one sentence."""

import io
import os
import sys
import threading
from typing import Any, TextIO

from mnist_bench.config.explain import REFUSALS, explain
from mnist_bench.errors import BenchError, explain_file_error


def as_sentence(error: BaseException) -> str | None:
    """Return what a user is told of an error; None if it is a bug, which needs its traceback."""
    if isinstance(error, REFUSALS):
        return explain(error)
    match error:
        case BenchError():
            return str(error)
        case OSError():
            return f"{explain_file_error(error)}, then give the same command again."
        case MemoryError():
            return "The memory of this machine does not suffice: free some, or lower data.limit."
    return None


class Shown:
    """A stream that what is shown goes to, and that nothing depends on.

    Once it cannot be written to, as a pipe that `head` has closed, the rest is lost: a run is worth
    more than its lines, which train.log has, too. What has no character there is shown as `?`.
    """

    def __init__(self, stream: TextIO):
        self.stream = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def __eq__(self, other: object) -> bool:
        """Equal the stream itself: absl's log closes one that is not among the process's own."""
        return other is self or other is self.stream

    def __hash__(self) -> int:
        return hash(self.stream)

    def write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        """Have all that follows, and what waits in the buffer, go nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)
        self.stream.flush()
        if not isinstance(error, BrokenPipeError) and self is not sys.stderr:
            told = explain_file_error(error, "What a run prints", "shown")
            print(f"{told}; it goes on, and train.log has the rest.", file=sys.stderr)


def guard_streams() -> None:
    """Let neither a closed stream, nor a full disk behind `>`, nor an encoding end this process."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by who started this
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        if not isinstance(stream, Shown):
            setattr(sys, name, Shown(stream))
    threading.excepthook = _hide_what_is_told


def _hide_what_is_told(args: threading.ExceptHookArgs) -> None:
    """Of a thread that a file failed, such as TensorBoard's: its logger tells it when next used."""
    if not isinstance(args.exc_value, OSError):
        threading.__excepthook__(args)
