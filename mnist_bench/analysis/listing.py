"""Runs as a list, newest first: how they stand, what tells them apart, what they have reached.

from mnist_bench.analysis.listing import list_runs
for run in list_runs(["outputs/sweeps/kernels"]):
    print(run.path, run.state, run.differs, run.test_accuracy)
"""

import itertools
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from mnist_bench.analysis.collect import FoundRun, collect, without_garbage_collection
from mnist_bench.analysis.settings import (
    as_typed,
    differences,
    settings_of,
    short_keys,
    short_values,
)
from mnist_bench.loggers.console import Screen, info


@dataclass(frozen=True)
class ListedRun:
    """A run in a list; accuracies are fractions, None where there are none (yet)."""

    path: Path
    state: str
    epochs: int  # done so far
    started: datetime | None  # None of a run that waits
    model: str | None
    dataset: str | None
    seed: int | None
    # What tells it from the other runs of the list, by key.
    differs: dict[str, Any]
    val_accuracy: float | None
    test_accuracy: float | None
    error: str | None

    def as_plain(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        moment = self.started.isoformat() if self.started else None
        return {**asdict(self), "path": str(self.path), "started": moment}


@without_garbage_collection()
def list_runs(paths: Sequence[Path | str] = ()) -> list[ListedRun]:
    """Return the runs in folders of runs, sweeps or searches, or above them, newest first.

    Without any path, those in outputs/. Runs of a sweep that have not begun come last.

    Raises:
        ConfigError: there is no such path, or there are no runs.
        DataError: a sweep.json is damaged.
    """
    runs = sorted(collect(paths), key=lambda run: -run.started)
    told = [run for run in runs if run.settings]  # the others have not begun, or are damaged
    columns = settings_of(told)
    # Of those that have not begun, the names of their folders tell what they will differ in.
    named = {key for run in runs if not run.settings for key in _named(run)}
    shown = differences(told, columns)
    shown += [key for key in columns if key in named and key not in shown]
    values = {
        run.path: {key: columns[key][place] for key in shown} for place, run in enumerate(told)
    }
    return [_listed(run, values.get(run.path, _named(run))) for run in runs]


def _named(run: FoundRun) -> dict[str, Any]:
    """Return what the name of a run's folder says."""
    parts = (part.partition("=") for part in run.path.name.split("--"))
    return {key: value for key, equals, value in parts if equals}


def _listed(run: FoundRun, differs: dict[str, Any]) -> ListedRun:
    summary, settings = run.summary, run.settings
    started = datetime.fromtimestamp(run.started, UTC).astimezone() if run.started else None
    return ListedRun(
        run.path,
        run.standing.state.value,
        run.standing.epochs or int(summary.get("epochs") or 0),
        started,
        summary.get("model") or settings.get("model.name"),
        summary.get("dataset") or settings.get("data.name"),
        summary.get("seed", settings.get("seed")),
        {key: value for key, value in differs.items() if value is not None},
        summary.get("val_accuracy"),
        summary.get("test_accuracy"),
        run.standing.damage or summary.get("error"),
    )


# --- On the terminal --------------------------------------------------------------------------

Teller = Callable[[dict[str, Any]], str]

STYLES = {
    "completed": "green",
    "running": "cyan",
    "failed": "red",
    "stopped": "yellow",
    "cut off": "red",
}


def show_runs(runs: Sequence[ListedRun], most: int) -> None:
    """Print the newest, each folder's under its name; of an endless list, `most` of them."""
    shown = runs[:most] if most else runs
    tell = _teller(shown)
    by_folder: dict[Path, list[ListedRun]] = {}
    for run in shown:
        by_folder.setdefault(run.path.parent, []).append(run)
    for folder, own in by_folder.items():
        Screen().console.print(_table(folder, own, tell))
    for error in itertools.islice((run for run in shown if run.error), 3):
        info(f"{_relative(error.path)}: {error.error}", style="red")
    counts = {run.state: 0 for run in runs}
    for run in runs:
        counts[run.state] += 1
    told = ", ".join(f"{count:,} {state}" for state, count in counts.items())
    newest = f"The {len(shown)} newest of " if len(shown) < len(runs) else ""
    more = "; --last 0 shows all" if newest else ""
    info(f"{newest}{len(runs):,} run{'s' * (len(runs) != 1)}: {told}{more}")


def _table(folder: Path, runs: Sequence[ListedRun], tell: Teller) -> Table:
    """Return a folder's runs; what all of them have in common is in its title."""
    common = {
        key: value
        for key, value in runs[0].differs.items()
        if len(runs) > 1 and all(run.differs.get(key) == value for run in runs)
    }
    title = f"{_relative(folder)}  {tell(common)}".rstrip()
    table = Table(title=title, box=box.SIMPLE_HEAD, title_style="bold", title_justify="left")
    table.pad_edge, table.collapse_padding = False, True
    table.add_column("run", overflow="fold")
    table.add_column("started", no_wrap=True)
    table.add_column("state, epochs", no_wrap=True)
    for name in ("val", "test"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in runs:
        own = {key: value for key, value in run.differs.items() if key not in common}
        after = f", {run.epochs}" if run.state in ("running", "stopped", "failed") else ""
        table.add_row(
            _name(run, tell(own)),
            f"{run.started:%d %b %H:%M}" if run.started else "",
            Text(f"{run.state}{after if run.epochs else ''}", style=STYLES.get(run.state, "")),
            *map(_percent, (run.val_accuracy, run.test_accuracy)),
        )
    return table


def _percent(accuracy: float | None) -> str:
    return f"{accuracy:.2%}" if accuracy is not None and math.isfinite(accuracy) else ""


def _name(run: ListedRun, told: str) -> Text:
    """Return a run's folder and what tells it apart; once, where its folder is called by that."""
    if "=" in run.path.name:
        return Text(told or run.path.name)
    return Text.assemble(run.path.name, (f"  {told}" if told else "", "dim"))


def _teller(runs: Sequence[ListedRun]) -> Teller:
    """Return how to write settings of these runs."""
    short = short_keys(key for run in runs for key in run.differs)
    texts = {}
    for key in short:
        values = [run.differs[key] for run in runs if key in run.differs]
        texts[key] = dict(zip(map(as_typed, values), short_values(values), strict=True))

    def tell(settings: dict[str, Any]) -> str:
        return " ".join(f"{short[k]}={texts[k][as_typed(value)]}" for k, value in settings.items())

    return tell


def _relative(path: Path) -> str:
    """Return a path as it is shortest to type."""
    return min(os.path.relpath(path), str(path), key=len)
