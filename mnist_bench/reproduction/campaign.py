"""Training what is missing: a `python train.py` after the other, each under a lock.

A second campaign beside it takes the runs that this one has not got; a second start goes on where
the first was stopped.
"""

import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from mnist_bench.errors import ConfigError
from mnist_bench.launch.jobs import train_command
from mnist_bench.reproduction.plan import (
    PlannedRun,
    Recipe,
    State,
    departure,
    state_of,
)
from mnist_bench.runs.records import read_summary
from mnist_bench.training.interrupt import stop_signals

Say = Callable[[str], None]


@dataclass
class Outcome:
    failures: list[str] = field(default_factory=list)
    # Runs that another process was training when their turn came.
    elsewhere: list[PlannedRun] = field(default_factory=list)
    # The signal that ended the campaign before its time.
    signal_number: int | None = None


def train_missing(
    planned: Sequence[PlannedRun],
    recipe: Callable[[str], Recipe],
    overrides: Sequence[str],
    say: Say,
) -> Outcome:
    """Train every run that is not completed; one that fails does not stop the others.

    Raises:
        ConfigError: the folder of the runs cannot be written to.
    """
    outcome = Outcome()
    with Relay() as relay:
        for place, run in enumerate(planned, start=1):
            if relay.signal_number is not None:
                break
            if state_of(run.folder) is State.completed:
                continue
            with hold(run.folder) as lock:
                if lock is None:
                    say(f"\n{run.name} is being trained by another process.")
                    outcome.elsewhere.append(run)
                    continue
                say(f"\n{run.name}, run {place} of {len(planned)}")
                fault = _train(run, recipe(run.experiment), overrides, relay, lock, say)
            if fault is not None and relay.signal_number is None:
                say(fault)
                outcome.failures.append(fault)
        outcome.signal_number = relay.signal_number
    return outcome


def _train(
    run: PlannedRun,
    published: Recipe,
    overrides: Sequence[str],
    relay: "Relay",
    lock: int,
    say: Say,
) -> str | None:
    """Bring one run to its end, with its lock held; returns what went wrong."""
    state = state_of(run.folder)
    if state is State.completed:  # by the process that had the lock a moment ago
        return None
    if state is State.leftover:
        aside = set_aside(run.folder)
        say(f"{run.folder} holds no checkpoint to go on from, and is {aside.name} from now on.")
    elif state is State.resumable and (fault := departure(run, published)):
        return f"{run.folder} {fault}: move it away to train it."
    arguments = train_arguments(run, state, overrides)
    before = read_summary(run.folder)
    say(shlex.join(["python", "train.py", *arguments]))
    code = relay.run(train_command(*arguments), lock)
    if state_of(run.folder) is State.completed:
        return None
    summary = read_summary(run.folder)
    told = summary.get("error") if summary != before else None
    return f"{run.name}: {told or f'ended with code {code}'}"


def train_arguments(run: PlannedRun, state: State, overrides: Sequence[str]) -> list[str]:
    """What train.py is given; `=` in a value has to be quoted for Hydra."""
    if state is State.resumable:
        gpus = [override for override in overrides if override.startswith("trainer.gpus=")]
        return [f'resume="{run.folder}"', *gpus]
    precision = [] if run.precision == "fp32" else [f"trainer.precision={run.precision}"]
    return [
        f"experiment={run.experiment}",
        f"seed={run.seed}",
        *precision,
        *overrides,
        f'hydra.run.dir="{run.folder}"',
    ]


def set_aside(folder: Path) -> Path:
    """Rename what a run killed in its first epoch left, and return the new name.

    train.py would number its own folder beside it, and nothing would tell the two apart.
    """
    number = 1
    while (aside := folder.with_name(f"{folder.name}--unfinished-{number}")).exists():
        number += 1
    return folder.rename(aside)


@contextmanager
def hold(folder: Path) -> Iterator[int | None]:
    """Hold the lock on a run's folder and yield its descriptor, or None if another process has it.

    The training inherits the descriptor, so the lock outlives a campaign that is killed and leaves
    its training behind. filelock takes the same lock, but does not give its descriptor away.

    Raises:
        ConfigError: the lock cannot be made where the run belongs.
    """
    import fcntl  # Unix only, and the report alone needs no lock

    path = folder.with_name(f".{folder.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise ConfigError(f"{path} cannot be made: {error.strerror}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file.fileno()


class Relay:
    """While active, a signal ends the campaign, and the training under way gets it as well.

    A training has a process group of its own: it sees each signal once, from here, whether that
    came from a terminal or from `kill`. A first one lets it save between two steps, a second one
    stops it at once (`StopRequest`).
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._previous = {n: signal.signal(n, self._receive) for n in stop_signals()}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler or signal.SIG_DFL)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = number
        if self._process is not None:
            self._process.send_signal(number)

    def run(self, command: Sequence[str], lock: int) -> int:
        """Run a command to its end; returns its exit code, negative if a signal killed it."""
        # A process group in the background must not read from the terminal.
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, process_group=0, pass_fds=[lock]
        ) as process:
            self._process = process
            if self.signal_number is not None:  # it came while the process started
                process.send_signal(self.signal_number)
            code = process.wait()
            self._process = None
        return code
