"""What the runs of a reproduction left, as three CSV files that are committed; and which count.

Run folders are not: a campaign may take days and several machines, and each adds its rows to what
the others brought. Values are kept as the text they are in the files; accuracies are fractions.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnist_bench.errors import DataError
from mnist_bench.reproduction.published import EXPERIMENTS
from mnist_bench.runs.folder import atomic_write

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

    def take(self, key: RunKey, source: "Evidence") -> None:
        """Have a run as `source` has it."""
        self.runs[key] = source.runs[key]
        self.curves[key] = source.curves[key]
        self.errors[key] = source.errors[key]


# --- From and to CSV --------------------------------------------------------------------------


def merge(committed: Evidence, found: Evidence) -> Evidence:
    """Both; of a run that is in both the completed one, else the one that went farther.

    A completed run that was made again is as `found` has it; the very run that was committed stays
    as it is, as its times may have been left out. What was committed of a run while it was
    unfinished gives way to one that went as far, on whatever device.
    """

    def overtaken(key: RunKey) -> bool:
        epochs = len(committed.curves[key])
        return any(
            is_complete(found, other) or len(found.curves[other]) >= epochs
            for other in found.runs
            if other[:3] == key[:3]
        )

    kept = [k for k in committed.runs if is_complete(committed, k) or not overtaken(k)]
    unfinished = {k[:3] for k in kept if not is_complete(committed, k)}
    merged = Evidence()
    for key in kept:
        merged.take(key, committed)
    for key, run in found.runs.items():
        if not is_complete(found, key):
            if key not in merged.runs and key[:3] not in unfinished:
                merged.take(key, found)
        elif key not in merged.runs or run["started"] != merged.runs[key]["started"]:
            merged.take(key, found)
    return merged


def read_evidence(folder: Path) -> Evidence:
    """What an earlier reproduction wrote to `folder`, which need not exist.

    Raises:
        DataError: a file has not got the columns or the rows that it should have, or has a run of
            no experiment.
    """
    evidence = Evidence()
    for row in read_rows(folder / "runs.csv", RUNS):
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
        for row in read_rows(folder / name, columns):
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


def as_text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _take_key(row: Row, path: Path) -> RunKey:
    """Take the key's columns out of a row; raises DataError if it is not whole."""
    if None in row.values() or not row["seed"].isdecimal():
        raise DataError(
            f"{path} has a damaged row, {','.join(map(str, row.values()))}: restore it."
        )
    experiment, seed, precision, device = (row.pop(column) for column in KEY)
    return RunKey(experiment, int(seed), precision, device)


def read_rows(path: Path, columns: Sequence[str] = ()) -> list[Row]:
    """Return the rows of a CSV file by column; none if there is no such file.

    Raises:
        DataError: it is no CSV, or has other columns.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            if columns and reader.fieldnames != list(columns):
                raise DataError(
                    f"{path} has the columns {','.join(reader.fieldnames or ())}, not "
                    f"{','.join(columns)}: restore it, or delete it to begin again."
                )
            return list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is damaged ({error}).") from error


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


# With two runs Student's quantile is 12.7: their intervals hold nearly everything.
ENOUGH_RUNS = 3


def choose(evidence: Evidence) -> Chosen:
    """For each experiment the completed runs in one precision on one device: see `counts_more`."""
    return {
        name: {
            key.seed: key
            for key in max(groups(evidence, name).values(), key=counts_more, default=[])
        }
        for name in EXPERIMENTS
    }


def counts_more(keys: Sequence[RunKey]) -> tuple[bool, int]:
    """Rank runs alike: those in fp32 first, as published, if they are enough; then most seeds.

    Of equal ones the first of `groups` counts. So no number of runs in bf16 decides what those in
    fp32 had decided.
    """
    return len(keys) >= ENOUGH_RUNS and keys[0].precision == "fp32", len(keys)


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
