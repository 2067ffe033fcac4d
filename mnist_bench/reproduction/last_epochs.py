"""How much the accuracy wanders in the last epochs: what a last epoch's figure is worth."""

import numpy as np
from numpy.typing import NDArray

from mnist_bench.analysis.markdown import NONE, number, table
from mnist_bench.reproduction.evidence import Chosen, Evidence, curves
from mnist_bench.reproduction.published import BINARY, PUBLISHED, published_curve

LAST = 5

NOTE = f"""\
Validation accuracy after each of the last {LAST} epochs, in per cent (vgg16's is the binary one):
*range* is highest less lowest, *fall* the largest from one epoch to the next, both in points. Ours
are those of the runs that the intervals above are of: mean, standard deviation, lowest and highest
of all their last {LAST} epochs, and the largest range and fall of a run. Where a run wanders as
much, its last figure is a draw."""


def last_epochs_text(evidence: Evidence, chosen: Chosen) -> str:
    rows = []
    for name in PUBLISHED:
        if chosen[name]:
            column = "val_binary_accuracy" if name in BINARY else "val_accuracy"
            ours = curves(evidence, chosen, name, column)[:, -LAST:]
            log = published_curve(name).get(column, [])[-LAST:]
            rows.append([name, *_published_cells(np.array([log])), *_our_cells(ours)])
    if not rows:
        return "Not yet run."
    header = (
        *("experiment", "published: mean", "range", "fall"),
        *("runs", "ours: mean", "std", "lowest", "highest", "range", "fall"),
    )
    return table(header, rows)


def largest_fall(accuracies: NDArray[np.float64]) -> float:
    """Return the largest step down from an epoch to the next of runs x epochs, 0 if none is."""
    return float(max(0.0, -np.diff(accuracies, axis=1).min(initial=0.0)))


def _published_cells(log: NDArray[np.float64]) -> list[str]:
    if not log.size:
        return [NONE] * 3
    return [number("accuracy", v) for v in (log.mean(), np.ptp(log), largest_fall(log))]


def _our_cells(ours: NDArray[np.float64]) -> list[str]:
    std = float(ours.std(ddof=1)) if ours.size > 1 else None
    figures = (ours.mean(), std, ours.min(), ours.max(), np.ptp(ours, axis=1).max())
    cells = [number("accuracy", figure) for figure in (*figures, largest_fall(ours))]
    return [str(len(ours)), *cells]
