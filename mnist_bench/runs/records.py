"""What a run leaves as plain files: metrics.csv, predictions.npz and summary.json."""

import csv
import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mnist_bench import __version__
from mnist_bench.errors import DataError
from mnist_bench.training.learner import Averages
from mnist_bench.training.loop import EpochRecord

METRICS = "metrics.csv"
PREDICTIONS = "predictions.npz"
SUMMARY = "summary.json"


def write_metrics(folder: Path, history: Sequence[EpochRecord]) -> None:
    """Write a row per epoch; columns that a run does not have (binary accuracies) are left out."""
    rows = [asdict(record) for record in history]
    columns = [
        field.name for field in fields(EpochRecord) if not rows or rows[0][field.name] is not None
    ]
    beside = folder / f"{METRICS}.partial"
    with beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.7g}" if isinstance(v, float) else v for k, v in row.items()})
    beside.replace(folder / METRICS)


def write_predictions(folder: Path, logits_NK: Tensor, labels_N: Tensor) -> None:
    """Write the test set's logits (float32, N x K) and labels (int64, N)."""
    beside = folder / "predictions.partial.npz"
    np.savez(beside, logits=logits_NK.numpy(), labels=labels_N.cpu().numpy())
    beside.replace(folder / PREDICTIONS)


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Write summary.json whole or not at all."""
    beside = folder / f"{SUMMARY}.partial"
    with beside.open("w") as file:
        json.dump(summary, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(folder / SUMMARY)


def read_summary(folder: Path) -> dict[str, Any]:
    """What summary.json holds; nothing if the run has not ended.

    Raises:
        DataError: the file is not a JSON object.
    """
    path = folder / SUMMARY
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError("it is not an object")
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): move {folder} away.") from error
    return content


def best_record(history: Sequence[EpochRecord]) -> EpochRecord:
    """The epoch of lowest validation loss, as Keras's ModelCheckpoint chooses by default.

    The accuracy on 5,000 images jumps by more from epoch to epoch than the networks differ, and
    picks the luckiest epoch rather than the best.
    """
    return min(history, key=lambda record: record.val_loss)


def epoch_figures(record: EpochRecord) -> dict[str, float | None]:
    """The training and validation figures of one epoch, as summary.json names them."""
    figures = asdict(record)
    return {
        key: value
        for key, value in figures.items()
        if key.startswith(("train_", "val_")) and value is not None
    }


def test_figures(averages: Averages, logits_NK: Tensor, labels_N: Tensor) -> dict[str, float | int]:
    """The test figures, as summary.json names them."""
    figures = {
        "test_loss": averages.loss,
        "test_accuracy": averages.accuracy,
        "test_errors": int((logits_NK.argmax(1) != labels_N.cpu()).sum()),
    }
    if averages.binary_accuracy is not None:
        figures["test_binary_accuracy"] = averages.binary_accuracy
    return figures


def provenance() -> dict[str, Any]:
    """Versions and commit of the code in this process.

    Outside a git checkout the commit is what the environment variable GIT_COMMIT says, or null.
    To be asked when a run begins: the checkout may move on while it trains.
    """
    packages = ("torch", "torchvision", "hydra-core", "omegaconf", "numpy")
    return {
        "versions": {
            "mnist-bench": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
        "git_commit": _git("rev-parse", "HEAD") or os.environ.get("GIT_COMMIT"),
        "git_changes": _git("status", "--porcelain", "--untracked-files=no"),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
