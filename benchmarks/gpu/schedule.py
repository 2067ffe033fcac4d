"""Which rows are measured next, and the processes that measure them.

A row is due if there is none at this commit. Rows that a device has never had come first, then
those that it had at another commit, then the long parts in the same order, and last what failed at
this commit; among equals the part that takes the shortest.
"""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.gpu.rows import Key, Origin, Row, add_row, name_of, now, read_rows

# A process that takes longer than a multiple of what was expected is stuck.
PATIENCE, PATIENCE_SECONDS = 3.0, 30.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Part:
    """Rows of one kind."""

    name: str
    keys: Sequence[Key]
    # A program that measures them in order, given as JSON behind its other arguments.
    command: Sequence[str]
    # What a row takes as long as none has been measured on the device.
    seconds: Callable[[Key], float]
    # What a process takes before its first row.
    start_seconds: float = 10.0
    # Long parts, which come after all others.
    long: bool = False


@dataclass(frozen=True)
class Turn:
    """Rows of a part for one process."""

    part: Part
    keys: Sequence[Key]
    key_seconds: Sequence[float]
    reason: str

    @property
    def seconds(self) -> float:
        return self.part.start_seconds + sum(self.key_seconds)

    def first(self, seconds: float) -> "Turn | None":
        """As many of its rows as fit; None if not even one does."""
        count, total = 0, self.part.start_seconds
        for one in self.key_seconds:
            total += one
            if total > seconds:
                break
            count += 1
        if count == 0:
            return None
        return replace(self, keys=self.keys[:count], key_seconds=self.key_seconds[:count])

    def without(self, taken: "Turn") -> "Turn | None":
        """What is left of it when its first rows are taken."""
        count = len(taken.keys)
        rest = replace(self, keys=self.keys[count:], key_seconds=self.key_seconds[count:])
        return rest if rest.keys else None


NEW, BEFORE, FAILED = "no row yet", "measured at another commit", "failed"


def plan(parts: Sequence[Part], rows: Sequence[Row], origin: Origin) -> list[Turn]:
    """All that is due, in its order."""
    of_device = [row for row in rows if row.origin.device == origin.device]
    here = {row.name: row for row in of_device if row.origin.commit == origin.commit}
    measured = {row.name: row for row in of_device if not row.failed}
    turns = []
    for part in parts:
        due: dict[str, list[Key]] = {NEW: [], BEFORE: [], FAILED: []}
        for key in part.keys:
            name = name_of(part.name, key)
            if name in here and not here[name].failed:
                continue
            reason = FAILED if name in here else BEFORE if name in measured else NEW
            due[reason].append(key)
        for reason, keys in due.items():
            if keys:
                seconds = [_expected(part, key, measured) for key in keys]
                turns.append(Turn(part, keys, seconds, reason))

    def place(turn: Turn) -> tuple[bool, bool, bool, float]:
        return turn.reason == FAILED, turn.part.long, turn.reason == BEFORE, turn.seconds

    return sorted(turns, key=place)


def _expected(part: Part, key: Key, measured: dict[str, Row]) -> float:
    row = measured.get(name_of(part.name, key))
    return part.seconds(key) if row is None or row.seconds is None else row.seconds


def fill(turns: Sequence[Turn], seconds: float) -> tuple[list[Turn], list[Turn]]:
    """What fits into a call of so many seconds, in its order; and what is left."""
    taken, left = [], []
    for turn in turns:
        first = turn.first(seconds)
        rest = turn if first is None else turn.without(first)
        if first is not None:
            taken.append(first)
            seconds -= first.seconds
        if rest is not None:
            left.append(rest)
    return taken, left


def calls(turns: Sequence[Turn], seconds: float) -> Iterator[list[Turn]]:
    """One call after the other; what is too long for any comes last, as a call of its own."""
    left = list(turns)
    while left:
        taken, rest = fill(left, seconds)
        if not taken:
            yield left
            return
        yield taken
        left = rest


def run(
    parts: Sequence[Part],
    folder: Path,
    origin: Origin,
    seconds: float,
    say: Say,
    after_each: Callable[[], None],
) -> int:
    """Measure what is due and fits into so many seconds; returns how many rows failed."""
    deadline = time.monotonic() + seconds
    failed: set[str] = set()
    given_up: set[str] = set()
    fruitless: str | None = None
    while True:
        # What fails is not tried twice in one call.
        untried = [
            replace(part, keys=[key for key in part.keys if name_of(part.name, key) not in failed])
            for part in parts
            if part.name not in given_up
        ]
        due = plan(untried, read_rows(folder), origin)
        taken, _ = fill(due, deadline - time.monotonic())
        if not taken:
            return len(failed)
        turn = taken[0]
        outcome = perform(turn, folder, origin, deadline, say)
        if outcome.failure is not None:
            failed.add(outcome.failure)
            # A process that measures nothing, twice, would go on like that.
            if outcome.added == 0 and fruitless == turn.part.name:
                given_up.add(turn.part.name)
            fruitless = turn.part.name if outcome.added == 0 else None
        after_each()


@dataclass(frozen=True)
class Outcome:
    added: int  # rows that were measured
    failure: str | None  # the name of the row at which the process ended


def perform(turn: Turn, folder: Path, origin: Origin, deadline: float, say: Say) -> Outcome:
    """Run one process, and note at which row it failed."""
    name = turn.part.name
    start, before = time.monotonic(), len(read_rows(folder))
    left = deadline - start
    limit = min(PATIENCE_SECONDS + PATIENCE * turn.seconds, left)
    say(f"{name}: {_rows(turn.keys)} ({turn.reason}), about {turn.seconds:.0f} s")
    log = folder / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    begun = log.stat().st_size if log.exists() else 0
    code = _run_process(turn, log, limit)
    added = {row.name for row in read_rows(folder)[before:]}
    missing = [key for key in turn.keys if name_of(name, key) not in added]
    say(f"{name}: {_rows(added)} measured in {time.monotonic() - start:.1f} s")
    if not missing:
        return Outcome(len(added), None)
    if code is None and limit == left:
        say(f"{name}: the call is over, and {_rows(missing)} left for another")
        return Outcome(len(added), None)
    reason = f"longer than {limit:.0f} s"
    if code is not None:
        reason = f"{find_reason(log.read_bytes()[begun:].decode(errors='replace'))} (code {code})"
    failure = Row(name, missing[0], {}, None, reason, origin, now())
    add_row(folder, failure)
    say(f"{failure.name} has failed: {reason}; see {log}")
    return Outcome(len(added), failure.name)


def _rows(of: Collection[object]) -> str:
    return f"{len(of)} row{'s' * (len(of) != 1)}"


def _run_process(turn: Turn, log: Path, limit: float) -> int | None:
    """The exit code, or None if it had to be killed; all it prints goes to the log."""
    keys = [json.dumps(dict(key)) for key in turn.keys]
    with (
        log.open("ab") as output,
        subprocess.Popen(
            [*turn.part.command, *keys],
            stdin=subprocess.PIPE,  # which ends when this process does
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        ) as process,
    ):
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _kill_group(process.pid)


def _kill_group(leader: int) -> None:
    """Whatever is left of a process and its children."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def find_reason(printed: str) -> str:
    """The last exception of what a process printed, or else its last line."""
    lines = printed.strip().splitlines()
    exceptions = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
    return (exceptions or lines or ["it ended without a word"])[-1]
