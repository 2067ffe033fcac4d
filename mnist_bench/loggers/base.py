"""What a logger is, and what it is told of a run."""

import copy
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_bench.config.parts import Part
from mnist_bench.errors import explain_file_error

if TYPE_CHECKING:  # PyTorch takes seconds, which those who only print or draw need not wait
    from mnist_bench.data.splits import Splits
    from mnist_bench.training.loop import EpochRecord

hydras_log = logging.getLogger("mnist_bench")


@dataclass(frozen=True)
class RunInfo:
    """What is known of a run when it starts, or goes on."""

    folder: Path
    name: str
    # Every setting by its dotted key, with values that JSON can hold.
    settings: Mapping[str, Any]
    # Those that the command line set, and the file that was chosen of each group, if any.
    overrides: Sequence[str]
    choices: Mapping[str, str | None]
    # The layers of the network as a table in plain characters.
    layers: str
    splits: "Splits"
    # The epochs that are done already, if the run goes on.
    history: "Sequence[EpochRecord]"
    is_resumed: bool


class Pruned(Exception):
    """Raised by a logger to end a training that others have overtaken; says why."""


class Logger:
    """The base of all loggers: it does nothing of what a subclass leaves out.

    Made with the arguments of its file in `conf/logger/`. It is told of a run's beginning, of each
    epoch and of the end, in this order; a run that is interrupted or fails has no end.
    """

    def start(self, run: RunInfo) -> None:
        """Begin, or go on after `run.history`, whose last epoch may not have been told."""

    def epoch(self, record: "EpochRecord") -> None:
        """Take the figures of an epoch, by the columns of metrics.csv."""

    def end(self, summary: Mapping[str, Any]) -> None:
        """Take what summary.json will hold; predictions.npz is in the folder already."""

    def close(self) -> None:
        """Let go of files and connections, however the run ends."""


class Loggers:
    """Several at once. One that fails is left out from then on, with a warning: a run is worth
    more than its picture."""

    def __init__(self, parts: Mapping[str, Part], more: Sequence[Logger] = ()):
        self.members = {name: part.build(Logger, {}, {}) for name, part in parts.items()}
        self.members |= {type(logger).__name__: logger for logger in more}

    def start(self, run: RunInfo) -> None:
        self._tell("start", run)

    def epoch(self, record: "EpochRecord") -> None:
        self._tell("epoch", dict(record))

    def end(self, summary: Mapping[str, Any]) -> None:
        self._tell("end", copy.deepcopy(dict(summary)))

    def close(self) -> None:
        self._tell("close")

    def _tell(self, what: str, *arguments: Any) -> None:
        for name, logger in list(self.members.items()):
            try:
                getattr(logger, what)(*arguments)
            except Pruned:
                raise
            except Exception as error:
                del self.members[name]
                with suppress(Exception):
                    logger.close()
                hydras_log.warning(
                    f"logger.{name} failed in {what}() and is left out from here on: {_why(error)}"
                )


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{explain_file_error(error, '' if error.filename else 'one of its files')}."
    return f"{type(error).__name__}: {error}"
