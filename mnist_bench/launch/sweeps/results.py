"""What a sweep has come to: the table that ends it, sweep.csv, and how long the rest will take."""

import csv
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from mnist_bench.analysis.settings import short_keys
from mnist_bench.analysis.sweeps import FILE, SweepFolder
from mnist_bench.errors import ConfigError
from mnist_bench.loggers.console import PLAIN_WIDTH, Screen, format_seconds, info, print_error
from mnist_bench.runs.folder import atomic_write
from mnist_bench.runs.standing import Standing, State, best_of

# Of more runs, a table shows the best; sweep.csv has all.
MOST_ROWS = 40
# Of those that wait, as many stand in it: there is nothing to see of them.
MOST_WAITING = 5
COLUMNS = ("train", "val", "val loss", "test", "errors", "time")
NARROW = ("val loss", "test", "time")
FIGURES = (
    *("epochs", "tested_epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy"),
    *("test_loss", "test_accuracy", "test_errors", "train_seconds", "device", "precision"),
    *("kernels", "git_commit", "digest"),
)


def results_table(
    title: str,
    standings: Sequence[Standing],
    varied: Sequence[str] = (),
    most_waiting: int = MOST_WAITING,
) -> Table:
    """Return a row for each run; of very many, for those of lowest validation loss.

    The lowest of all, of the completed ones, is marked as the best. `varied` are the keys that vary
    in the sweep. Of runs that wait the first are shown, and the others counted.
    """
    waiting = [place for place, s in enumerate(standings) if s.state is State.waiting]
    hidden = set(waiting[most_waiting:])
    best, shown = best_of(standings), [s for p, s in enumerate(standings) if p not in hidden]
    if len(shown) > MOST_ROWS:
        shown = sorted(shown, key=lambda s: s.summary.get("val_loss") or float("inf"))[:MOST_ROWS]
        title = f"{title}: the {MOST_ROWS} best of {len(standings)} runs"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_style="bold", title_justify="left")
    if hidden:
        table.caption, table.caption_justify = f"and {len(hidden)} more that wait", "left"
    table.collapse_padding = True
    table.add_column("run", overflow="fold")
    if any(s.state is not State.completed for s in shown):
        table.add_column("state, epochs", no_wrap=True)
    # On a narrow screen names need the room.
    table.pad_edge = Screen().console.width >= PLAIN_WIDTH
    columns = COLUMNS if table.pad_edge else NARROW
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    if best is not None:
        table.add_column("", no_wrap=True)  # which has the lowest validation loss
    labels = shorten([_whole_name(s, varied) for s in shown])
    for label, found in zip(labels, shown, strict=True):
        state = [_state(found)] * (table.columns[1].header == "state, epochs")
        row = (label, *state, *(_figures(found)[column] for column in columns))
        if found is best:
            table.add_row(*row, "best", style="bold")
        else:
            table.add_row(*row)
    return table


def _whole_name(found: Standing, varied: Sequence[str]) -> str:
    """Return its name with the settings of keys that have come to vary since it got that."""
    given = {part.partition("=")[0] for part in found.name.split("--")}
    lacks = {key: setting(found, key) for key in varied if key not in given}
    more = [f"{key}={value}" for key, value in lacks.items() if value is not None]
    return "--".join(sorted([*found.name.split("--"), *more]) if more else [found.name])


def _state(found: Standing) -> str:
    return found.state.value + (f", {found.epochs}" if found.epochs else "")


def _figures(found: Standing) -> dict[str, str]:
    """Return what a run has in each column."""
    summary = found.summary
    if found.state is not State.completed:
        return dict.fromkeys(COLUMNS, "")
    return {
        "train": f"{summary['train_accuracy']:.2%}",
        "val": f"{summary['val_accuracy']:.2%}",
        "val loss": f"{summary['val_loss']:.4f}",
        "test": f"{summary['test_accuracy']:.2%}",
        "errors": f"{summary['test_errors']}",
        "time": _duration(summary["train_seconds"]),
    }


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else format_seconds(seconds)


def shorten(names: Sequence[str]) -> list[str]:
    """Return names of runs as people read them: `kernel_size=3 seed=0`.

    Keys lose their group where that leaves them apart.
    """
    parts = [name.split("--") for name in names]
    short = short_keys({part.partition("=")[0] for name in parts for part in name})

    def label(part: str) -> str:
        key, equals, value = part.partition("=")
        return f"{short[key]}{equals}{value}"

    return [" ".join(map(label, name)) for name in parts]


def print_status(sweep: Path) -> None:
    """Show the table of a sweep by its folder, and how long the rest will take.

    Raises:
        ConfigError: it is not the folder of a sweep.
    """
    record = SweepFolder(sweep)
    standings = list(record.standings())
    if not standings:
        raise ConfigError(
            f"{sweep} is not the folder of a sweep, as it has no {FILE}, nor of a search: "
            f"mnist-bench runs {sweep} lists what runs it has."
        )
    Screen().console.print(results_table(str(sweep), standings, record.varied()))
    for damage in filter(None, (found.damage for found in standings)):
        print_error(damage)
    tell_best(record, standings)
    info(forecast(standings))
    if any(s.state is not State.completed for s in standings) and (command := record.command()):
        info(f"To go on: {command}")


def tell_best(record: SweepFolder, standings: Sequence[Standing]) -> None:
    """Say which run has the lowest validation loss, and of several seeds which setting on average.

    One seed's best is partly luck.
    """
    if (best := best_of(standings)) is not None:
        info(f"best: {os.path.relpath(record.path / best.name)}")
    varied = record.varied()
    losses: dict[str, list[float]] = {}
    for found in standings:
        if found.state is State.completed:
            parts = shorten([_whole_name(found, varied)])[0].split()
            settings = " ".join(part for part in parts if not part.startswith("seed="))
            losses.setdefault(settings, []).append(float(found.summary["val_loss"]))
    if len(losses) > 1 and (seeds := min(map(len, losses.values()))) > 1:
        least = min(losses, key=lambda settings: statistics.fmean(losses[settings]))
        mean, spread = statistics.fmean(losses[least]), statistics.stdev(losses[least])
        info(
            f"best over {seeds} seeds or more: {least}, mean validation loss {mean:.4f} "
            f"(standard deviation {spread:.4f})"
        )


def write_csv(path: Path, varied: Sequence[str], standings: Sequence[Standing]) -> None:
    """Write a row for each run: its name, state, the settings that vary, and its figures."""
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", "state", *varied, *FIGURES])
        for found in standings:
            values = [setting(found, key) for key in varied]
            figures = [found.summary.get(key) for key in FIGURES]
            writer.writerow([found.name, found.state.value, *values, *figures])


def setting(found: Standing, key: str) -> Any:
    """Return what a run has of a key that varies in its sweep; None if nothing tells it.

    A run from before the key varied has it among its settings, not in its name.
    """
    summary = found.summary
    settings: Mapping[str, Any] = summary.get("config", {})
    named = dict(part.split("=", 1) for part in found.name.split("--") if "=" in part)
    known = [settings, named, {key: settings.get(f"{key}.name")}, summary]
    return next((place[key] for place in known if place.get(key) is not None), None)


def forecast(standings: Sequence[Standing]) -> str:
    """Return how many runs are missing, and how long they will take by what is known."""
    seconds = [s.summary["train_seconds"] for s in standings if s.state is State.completed]
    missing = len(standings) - len(seconds)
    if not missing:
        return "All runs are completed."
    running = sum(s.state is State.running for s in standings)
    told = f"{missing} of {len(standings)} runs are missing"
    told += f", {running} of them running" if running else ""
    if not seconds:
        return f"{told}; how long a run takes is not known yet."
    mean = sum(seconds) / len(seconds)
    return f"{told}: about {_duration(missing * mean)} of training, at {_duration(mean)} a run."
