"""What the runs of a reproduction left, as three CSV files that are committed.

Run folders are not: a campaign may take days and several machines, and each adds its rows to what
the others brought. Values are kept as the text they are in the files; accuracies are fractions.
"""

import csv
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnist_bench.errors import DataError
from mnist_bench.reproduction.plan import (
    PlannedRun,
    Recipe,
    State,
    departure,
    find_runs,
    state_of,
)
from mnist_bench.reproduction.published import EXPERIMENTS
from mnist_bench.runs.folder import RunFolder, atomic_write
from mnist_bench.runs.predictions import read_predictions
from mnist_bench.runs.records import read_summary

KEY = ("experiment", "seed", "precision", "device")
# Of the last epoch, but for the best validation accuracy.
FIGURES = (
    *("train_loss", "train_accuracy", "val_loss", "val_accuracy"),
    *("test_loss", "test_accuracy", "test_errors", "test_images"),
    *("train_binary_accuracy", "val_binary_accuracy", "test_binary_accuracy"),
    "best_val_accuracy",
)
# The files: a row per run, per epoch of a run, and per test image that a run got wrong.
RUNS = (
    *(*KEY, "epochs", *FIGURES, "seconds_per_epoch"),
    *("git_commit", "torch", "python", "started"),
)
CURVES = (
    *(*KEY, "epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy"),
    *("train_binary_accuracy", "val_binary_accuracy"),
    *("learning_rate", "seconds", "images_per_second"),
)
ERRORS = (*KEY, "image", "label", "predicted")

Row = dict[str, str]


class RunKey(NamedTuple):
    experiment: str
    seed: int
    precision: str
    device: str


@dataclass
class Evidence:
    runs: dict[RunKey, Row] = field(default_factory=dict)
    curves: dict[RunKey, list[Row]] = field(default_factory=dict)
    errors: dict[RunKey, list[Row]] = field(default_factory=dict)


# --- From run folders -------------------------------------------------------------------------


def collect(
    runs: Path, recipe: Callable[[str], Recipe], times: bool = True
) -> tuple[Evidence, list[str]]:
    """Return the runs of the published recipes, and a sentence for each that is of another.

    Of runs that were stopped on the way there are only the curves, as far as they go. Without
    `times` the columns of seconds stay empty: for runs that shared a device with each other.
    """
    evidence, refusals = Evidence(), []
    for run in find_runs(runs):
        completed = state_of(run.folder) is State.completed
        if not completed and not read_summary(run.folder).get("epochs"):
            continue
        if fault := departure(run, recipe(run.experiment)):
            refusals.append(f"{run.folder} {fault}: it is left out.")
            continue
        summary = read_summary(run.folder)
        key = RunKey(run.experiment, run.seed, run.precision, summary["device"])
        curve = _read_rows(RunFolder(run.folder).metrics)
        if not times:
            curve = [{**epoch, "seconds": "", "images_per_second": ""} for epoch in curve]
        evidence.runs[key] = _run_row(summary, curve)
        evidence.curves[key] = curve
        evidence.errors[key] = _wrong_images(run) if completed else []
    return evidence, refusals


def _run_row(summary: Mapping[str, Any], curve: Sequence[Row]) -> Row:
    row = {
        **summary,
        "best_val_accuracy": max(float(epoch["val_accuracy"]) for epoch in curve),
        "seconds_per_epoch": _seconds_per_epoch(curve),
        "torch": summary["versions"]["torch"],
        "python": summary["versions"]["python"],
    }
    return {column: as_text(row.get(column)) for column in RUNS if column not in KEY}


def _seconds_per_epoch(curve: Sequence[Row]) -> float | None:
    seconds = [float(epoch["seconds"]) for epoch in curve if epoch["seconds"]]
    return statistics.median(seconds) if seconds else None


def as_text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _wrong_images(run: PlannedRun) -> list[Row]:
    logits, labels = read_predictions(RunFolder(run.folder))
    predicted = logits.argmax(1)
    return [
        {"image": str(image), "label": str(labels[image]), "predicted": str(predicted[image])}
        for image in np.flatnonzero(predicted != labels)
    ]


# --- From and to CSV --------------------------------------------------------------------------


def merge(committed: Evidence, found: Evidence) -> Evidence:
    """Both; a run that is in both is as `found` has it, unless that stopped and the other did not.

    What was committed of a run while it was unfinished gives way, on whatever device it goes on.
    """
    there = {key[:3] for key in found.runs}
    kept = [k for k in committed.runs if is_complete(committed, k) or k[:3] not in there]
    added = [k for k in found.runs if is_complete(found, k) or k not in kept]
    merged = Evidence()
    for source, keys in ((committed, kept), (found, added)):
        for key in keys:
            merged.runs[key] = source.runs[key]
            merged.curves[key] = source.curves[key]
            merged.errors[key] = source.errors[key]
    return merged


def read_evidence(folder: Path) -> Evidence:
    """What an earlier reproduction wrote to `folder`, which need not exist.

    Raises:
        DataError: a file has not got the columns that it should have.
    """
    evidence = Evidence()
    for row in _read_rows(folder / "runs.csv", RUNS):
        key = _take_key(row, folder / "runs.csv")
        if key.experiment not in EXPERIMENTS:
            raise DataError(
                f"{folder / 'runs.csv'} has a run of {key.experiment}, which is not an experiment: "
                f"take its rows out."
            )
        evidence.runs[key] = row
        evidence.curves[key], evidence.errors[key] = [], []
    for name, columns, tables in (
        ("curves.csv", CURVES, evidence.curves),
        ("errors.csv", ERRORS, evidence.errors),
    ):
        for row in _read_rows(folder / name, columns):
            key = _take_key(row, folder / name)
            if key not in tables:
                raise DataError(
                    f"{folder / name} has rows of {' '.join(map(str, key))}, and "
                    f"runs.csv has no such run: restore both from the same commit."
                )
            tables[key].append(row)
    for key, run in evidence.runs.items():
        for name, found, expected in (
            ("curves.csv", len(evidence.curves[key]), run["epochs"]),
            ("errors.csv", len(evidence.errors[key]), run["test_errors"] or "0"),
        ):
            if str(found) != expected:
                raise DataError(
                    f"{folder / name} has {found} rows of {' '.join(map(str, key))}, and runs.csv "
                    f"says {expected}: restore both from the same commit."
                )
    return evidence


def write_evidence(folder: Path, evidence: Evidence) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    keys = sorted(evidence.runs, key=by_experiment)
    one_each = {key: [evidence.runs[key]] for key in keys}
    return [
        _write_rows(folder / name, columns, ((k, row) for k in keys for row in tables[k]))
        for name, columns, tables in (
            ("runs.csv", RUNS, one_each),
            ("curves.csv", CURVES, evidence.curves),
            ("errors.csv", ERRORS, evidence.errors),
        )
    ]


def by_experiment(key: RunKey) -> tuple[int, RunKey]:
    """Sort runs in the order of the report."""
    return EXPERIMENTS.index(key.experiment), key


def by_machine(key: RunKey) -> tuple[int, str, str, int]:
    """Sort runs in the order of the report, those of one machine and precision together."""
    return EXPERIMENTS.index(key.experiment), key.device, key.precision, key.seed


def _take_key(row: Row, path: Path) -> RunKey:
    """Take the key's columns out of a row; raises DataError if it is not whole."""
    if None in row.values() or not row["seed"].isdecimal():
        raise DataError(
            f"{path} has a damaged row, {','.join(map(str, row.values()))}: restore it."
        )
    experiment, seed, precision, device = (row.pop(column) for column in KEY)
    return RunKey(experiment, int(seed), precision, device)


def _read_rows(path: Path, columns: Sequence[str] = ()) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if columns and reader.fieldnames != list(columns):
            raise DataError(
                f"{path} has the columns {','.join(reader.fieldnames or ())}, not "
                f"{','.join(columns)}: restore it, or delete it to begin again."
            )
        return list(reader)


def _write_rows(path: Path, columns: Sequence[str], rows: Iterable[tuple[RunKey, Row]]) -> Path:
    """Write the columns of rows whole or not at all."""
    with atomic_write(path) as file:
        writer = csv.DictWriter(
            file, columns, restval="", extrasaction="ignore", lineterminator="\n"
        )
        writer.writeheader()
        for key, row in rows:
            writer.writerow({**row, **dict(zip(KEY, map(str, key), strict=True))})
    return path


# --- The runs that statistics are made of -----------------------------------------------------

Chosen = dict[str, dict[int, RunKey]]


def choose(evidence: Evidence) -> Chosen:
    """For each experiment the completed runs of the one precision and device with most seeds.

    Of equal ones the first of `groups`: a seed counts once, and no statistics mix what was computed
    in two ways.
    """
    return {
        name: {key.seed: key for key in max(groups(evidence, name).values(), key=len, default=[])}
        for name in EXPERIMENTS
    }


def groups(evidence: Evidence, experiment: str) -> dict[tuple[str, str], list[RunKey]]:
    """The completed runs by precision and device, by seed.

    fp32 comes first, then the device that has most runs of all experiments, then the first by name.
    """
    runs_of = Counter(key.device for key in evidence.runs)

    def place(key: RunKey) -> tuple[bool, int, str, int]:
        return key.precision != "fp32", -runs_of[key.device], key.device, key.seed

    found: dict[tuple[str, str], list[RunKey]] = {}
    for key in sorted(evidence.runs, key=place):
        if key.experiment == experiment and is_complete(evidence, key):
            found.setdefault((key.precision, key.device), []).append(key)
    return found


def with_unfinished(evidence: Evidence, chosen: Chosen) -> Chosen:
    """The same, and for an experiment without a completed run the one that came farthest.

    Good for curves: rates are constant, so that its epochs are those of a whole run.
    """
    farthest = sorted(evidence.runs, key=lambda k: len(evidence.curves[k]))
    unfinished = {key.experiment: {key.seed: key} for key in farthest}
    return {name: keys or unfinished.get(name, {}) for name, keys in chosen.items()}


def is_complete(evidence: Evidence, key: RunKey) -> bool:
    return evidence.runs[key]["test_accuracy"] != ""


def value(evidence: Evidence, key: RunKey, column: str) -> float:
    return float(evidence.runs[key][column])


def curves(evidence: Evidence, chosen: Chosen, experiment: str, column: str) -> NDArray[np.float64]:
    """A figure of each chosen run after each epoch: float64, runs x epochs."""
    return np.array(
        [
            [float(row[column]) for row in evidence.curves[key]]
            for key in chosen[experiment].values()
        ]
    )
