"""The curves as images, with the same axes for every experiment so that they can be compared."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mnist_bench.loggers.drawing import BLUE, GREEN, ORANGE
from mnist_bench.reproduction.evidence import ENOUGH_RUNS, Chosen, Evidence, curves, is_complete
from mnist_bench.reproduction.findings import LOG, READINGS
from mnist_bench.reproduction.intervals import (
    ABOVE,
    BELOW,
    epoch_samples,
    place,
    prediction_band,
)
from mnist_bench.reproduction.published import columns_of, published_curve

COLOURS = {"train": BLUE, "val": ORANGE}
PUBLISHED_COLOUR = "#222222"
MARKERS = {"train": "o", "val": "s"}

# Enough for the first epoch of every experiment and for the last of those without dropout.
LOSSES = (1e-3, 0.7)
LOSS_TICKS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
RATIO_TICKS = (0.03, 0.1, 0.3, 1, 3)
ACCURACIES = (0.82, 0.9998)
ACCURACY_TICKS = (0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995)

STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
}


def draw_experiment(path: Path, evidence: Evidence, chosen: Chosen, experiment: str) -> None:
    """Each of the four figures after each epoch: the published curve over our median and band."""
    published = published_curve(experiment)
    title = describe(evidence, chosen, experiment)
    with _figure(path, 2, title, rows=2) as all_axes:
        for axes, key in zip(all_axes, columns_of(experiment), strict=True):
            part, _, figure = key.partition("_")
            ours = curves(evidence, chosen, experiment, key)
            _draw_band(axes, ours, COLOURS[part], _band_label(len(ours)))
            if published:
                _draw_published(axes, published[key], "published", MARKERS[part])
                _mark_outside(axes, published[key], ours, MARKERS[part])
            name = f"{'training' if part == 'train' else 'validation'} {figure.replace('_', ' ')}"
            if figure == "loss":
                _loss_axis(axes, name)
                axes.legend(loc="upper right")
            else:
                _accuracy_axis(axes, f"{name}, %")


def draw_vgg16(path: Path, evidence: Evidence, chosen: Chosen) -> None:
    """Both validation accuracies of ours and the one that was published."""
    with _figure(path, 1, describe(evidence, chosen, "vgg16")) as (axes,):
        for column, colour, name in (
            ("val_binary_accuracy", BLUE, "binary accuracy, over the ten outputs"),
            ("val_accuracy", ORANGE, "accuracy, over the ten classes"),
        ):
            _draw_band(axes, curves(evidence, chosen, "vgg16", column), colour, name)
        published = published_curve("vgg16")["val_binary_accuracy"]
        _draw_published(axes, published, "val_acc, published", MARKERS["val"])
        _accuracy_axis(axes, "on the validation images, %")
        axes.legend(loc="lower right")


def draw_dropout(path: Path, evidence: Evidence, chosen: Chosen) -> None:
    """The log headed "5 x 5 without dropout" and its readings: both losses, and their ratio."""
    log = published_curve(LOG)
    with _figure(path, 3, 'The log headed "5 x 5 without dropout"') as all_axes:
        train_axes, val_axes, ratio_axes = all_axes
        for (experiment, reading), colour in zip(
            READINGS.items(), (BLUE, ORANGE, GREEN), strict=True
        ):
            train = curves(evidence, chosen, experiment, "train_loss")
            val = curves(evidence, chosen, experiment, "val_loss")
            label = f"{reading} (n = {len(train)})"
            for axes, ours in zip(all_axes, (train, val, train / val), strict=True):
                _draw_band(axes, ours, colour, label)
        ratio = np.divide(log["train_loss"], log["val_loss"]).tolist()
        for axes, theirs in zip(all_axes, (log["train_loss"], log["val_loss"], ratio), strict=True):
            _draw_published(axes, theirs, "published", MARKERS["train"])
        _loss_axis(train_axes, "training loss")
        _loss_axis(val_axes, "validation loss")
        _log_axis(ratio_axes, "training loss / validation loss", RATIO_TICKS)
        ratio_axes.axhline(1, color=PUBLISHED_COLOUR, linewidth=0.8, linestyle=":")
        train_axes.legend(loc="upper right")


def describe(evidence: Evidence, chosen: Chosen, experiment: str) -> str:
    """`cnn3x3: 5 runs (fp32) on AMD EPYC, 1 thread`."""
    keys = list(chosen[experiment].values())
    unfinished = "" if is_complete(evidence, keys[0]) else " unfinished"
    runs = f"{len(keys)}{unfinished} run{'s' * (len(keys) != 1)}"
    return f"{experiment}: {runs} ({keys[0].precision}) on {keys[0].device}"


# --- Parts of a figure ------------------------------------------------------------------------


@contextmanager
def _figure(path: Path, panels: int, title: str, rows: int = 1) -> Iterator[Sequence[Axes]]:
    """Rows of panels, written as a PNG that is the same to the byte each time.

    Those of several rows come column by column.
    """
    size = (1.2 + 4.2 * max(panels, 1.5), 0.6 + 3.6 * rows)
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=size, dpi=120, layout="constrained")
        axes = figure.subplots(rows, panels, squeeze=False)
        yield axes.T.ravel().tolist()
        figure.suptitle(title, fontsize=10)
        figure.savefig(path, metadata={"Software": None})


def _draw_band(axes: Axes, ours: NDArray[np.float64], colour: str, label: str) -> None:
    """Draw median and prediction band of runs x epochs; of too few runs each by itself."""
    epochs = np.arange(1, ours.shape[1] + 1)
    if len(ours) < ENOUGH_RUNS:
        lines = axes.plot(epochs, ours.T, color=colour, linewidth=1)
        lines[0].set_label(label)
        return
    axes.fill_between(epochs, *prediction_band(ours), color=colour, alpha=0.25, linewidth=0)
    axes.plot(epochs, np.median(ours, axis=0), color=colour, label=label)


def _draw_published(axes: Axes, figures: Sequence[float], label: str, marker: str) -> None:
    epochs = range(1, len(figures) + 1)
    axes.plot(
        *(epochs, figures),
        color=PUBLISHED_COLOUR,
        label=label,
        linewidth=0.6,
        marker=marker,
        markersize=2.8,
        markerfacecolor="white",
        markeredgewidth=0.8,
    )


def _band_label(runs: int) -> str:
    if runs < ENOUGH_RUNS:
        return "our run" if runs == 1 else f"our {runs} runs"
    return "our median, and 95 % of further runs"


def _mark_outside(
    axes: Axes, figures: Sequence[float], ours: NDArray[np.float64], marker: str
) -> None:
    """Fill the markers of published values that lie outside the band of our runs x epochs."""
    if len(ours) < ENOUGH_RUNS:
        return
    outside = [
        (epoch, value)
        for epoch, (value, sample) in enumerate(
            zip(figures, epoch_samples(ours), strict=False), start=1
        )
        if place(value, sample) in (BELOW, ABOVE)
    ]
    if outside:
        epochs, values = zip(*outside, strict=True)
        axes.plot(
            *(epochs, values),
            linestyle="none",
            marker=marker,
            markersize=4.5,
            color=PUBLISHED_COLOUR,
            label="published, outside",
            zorder=3,
        )


def _loss_axis(axes: Axes, label: str) -> None:
    _log_axis(axes, label, LOSS_TICKS)
    axes.set_ylim(LOSSES)


def _log_axis(axes: Axes, label: str, ticks: Sequence[float]) -> None:
    axes.set_yscale("log")
    _label(axes, label, ticks, [f"{tick:g}" for tick in ticks])


def _accuracy_axis(axes: Axes, label: str) -> None:
    """Accuracies by the logarithm of the errors, or the last epochs would be one line."""
    axes.set_yscale(
        "function",
        functions=(
            lambda accuracy: -np.log10(np.maximum(1 - accuracy, 1e-5)),
            lambda position: 1 - 10.0**-position,
        ),
    )
    _label(axes, label, ACCURACY_TICKS, [f"{100 * tick:g}" for tick in ACCURACY_TICKS])
    axes.set_ylim(ACCURACIES)


def _label(axes: Axes, label: str, ticks: Sequence[float], texts: Sequence[str]) -> None:
    axes.set(xlabel="epoch", ylabel=label)
    axes.set_yticks(ticks, texts)
    axes.minorticks_off()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
