"""Learning curves of a setting: the median of its seeds after each epoch, and their range."""

import csv
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnist_bench.analysis.settings import Setting
from mnist_bench.runs.folder import RunFolder

COLUMNS = ("train_loss", "val_loss")


@dataclass(frozen=True)
class Curves:
    """Of each column, its values of the seeds that have it: seeds x epochs, as far as all go."""

    setting: Setting
    values: dict[str, NDArray[np.float64]]

    def median(self, column: str) -> NDArray[np.float64]:
        median: NDArray[np.float64] = np.median(self.values[column], 0)
        return median


def curves_of(setting: Setting) -> Curves | None:
    """Return what metrics.csv has of each run; None if that of one is gone or damaged."""
    runs = []
    for run in setting.runs:
        try:
            with RunFolder(run.path).metrics.open(newline="") as file:
                rows = list(csv.DictReader(file))
            runs.append([[float(row[column]) for row in rows] for column in COLUMNS])
        except (OSError, ValueError, KeyError, TypeError):
            return None
    epochs = min(len(run[0]) for run in runs)
    if epochs < 2:
        return None
    table = np.array([[column[:epochs] for column in run] for run in runs])  # R x columns x E
    if not (np.isfinite(table).all() and (table > 0).all()):
        return None
    return Curves(setting, {column: table[:, i] for i, column in enumerate(COLUMNS)})
