"""From run folders to evidence: of each run of a published recipe its figures, curve and errors."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from mnist_bench.errors import DataError
from mnist_bench.reproduction.evidence import (
    FIGURES,
    KEY,
    RUNS,
    Evidence,
    Row,
    RunKey,
    as_text,
    read_rows,
)
from mnist_bench.reproduction.plan import (
    PlannedRun,
    Recipe,
    State,
    departure,
    find_runs,
    state_of,
)
from mnist_bench.reproduction.published import LOGGED, columns_of
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.predictions import read_predictions
from mnist_bench.runs.records import read_summary

OF_THE_CURVE = "best_val_accuracy"
VERSIONS = ("torch", "python")


def collect(
    runs: Path, recipe: Callable[[str], Recipe], times: bool = True
) -> tuple[Evidence, list[str]]:
    """Return the runs of the published recipes, and a sentence for each that is none or is damaged.

    Of runs that were stopped on the way there are only the curves, as far as they go. Without
    `times` the columns of seconds stay empty: for runs that shared a device with each other.
    """
    evidence, refusals = Evidence(), []
    for run in find_runs(runs):
        try:
            completed = state_of(run.folder) is State.completed
            summary = read_summary(run.folder)
            if not completed and not summary.get("epochs"):
                continue
            fault = departure(run, recipe(run.experiment))
            curve = read_rows(RunFolder(run.folder).metrics)
            wrong = _wrong_images(run) if completed and not fault else []
        except DataError as error:
            refusals.append(f"{error} It is left out.")
            continue
        if fault := fault or _damage(run, summary, curve, wrong if completed else None):
            refusals.append(f"{run.folder} {fault}: it is left out.")
            continue
        if not times:
            curve = [{**epoch, "seconds": "", "images_per_second": ""} for epoch in curve]
        key = RunKey(run.experiment, run.seed, run.precision, summary["device"])
        evidence.runs[key] = _run_row(summary, curve)
        evidence.curves[key] = curve
        evidence.errors[key] = wrong
    return evidence, refusals


def _damage(
    run: PlannedRun, summary: Mapping[str, Any], curve: Sequence[Row], wrong: Sequence[Row] | None
) -> str | None:
    """Say why nothing can be made of a run; `wrong` is None of one that has not been tested."""
    versions = summary.get("versions")
    told = {**versions} if isinstance(versions, dict) else {}
    told["device"] = summary.get("device")
    for name in ("device", *VERSIONS):
        if not isinstance(told.get(name), str):
            return f"does not say its {name} in summary.json"
    if not _is_moment(summary.get("started")):
        return "does not say in summary.json when it was started, with the offset from UTC"
    if len(curve) != summary["epochs"]:
        return f"has {len(curve)} epochs in metrics.csv, and {summary['epochs']} by summary.json"
    for place, epoch in enumerate(curve, start=1):
        for column in dict.fromkeys((*LOGGED, *columns_of(run.experiment))):
            if not _is_finite(epoch.get(column)):
                return f"has a {column} of {epoch.get(column)} after epoch {place}"
    if wrong is None:
        return None
    for column in FIGURES:
        optional = column == OF_THE_CURVE or "binary" in column
        if not _is_finite(summary.get(column)) and not (optional and summary.get(column) is None):
            return f"has a {column} of {summary.get(column)}"
    if len(wrong) != summary["test_errors"]:
        errors = summary["test_errors"]
        return f"has {len(wrong)} errors in predictions.npz, and {errors} by summary.json"
    return None


def _is_moment(text: object) -> bool:
    try:
        return isinstance(text, str) and datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _is_finite(value: object) -> bool:
    try:
        return isinstance(value, str | int | float) and math.isfinite(float(value))
    except ValueError:
        return False


def _run_row(summary: Mapping[str, Any], curve: Sequence[Row]) -> Row:
    row = {
        **summary,
        OF_THE_CURVE: max(float(epoch["val_accuracy"]) for epoch in curve),
        "seconds_per_epoch": _seconds_per_epoch(curve),
        **{name: summary["versions"][name] for name in VERSIONS},
    }
    return {column: as_text(row.get(column)) for column in RUNS if column not in KEY}


def _seconds_per_epoch(curve: Sequence[Row]) -> float | None:
    seconds = [float(epoch["seconds"]) for epoch in curve if epoch["seconds"]]
    return statistics.median(seconds) if seconds else None


def _wrong_images(run: PlannedRun) -> list[Row]:
    try:
        logits, labels = read_predictions(RunFolder(run.folder))
    except FileNotFoundError as error:
        raise DataError(f"{run.folder} has no predictions.npz.") from error
    predicted = logits.argmax(1)
    return [
        {"image": str(image), "label": str(labels[image]), "predicted": str(predicted[image])}
        for image in np.flatnonzero(predicted != labels)
    ]
