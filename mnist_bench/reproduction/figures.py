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
from mnist_bench.reproduction.evidence import Chosen, Evidence, curves, is_complete
from mnist_bench.reproduction.findings import LOG, READINGS
from mnist_bench.reproduction.published import BINARY, published_curve
from mnist_bench.reproduction.tables import count_precisions

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
    """Loss and accuracy after each epoch: the published curve over the band of our seeds."""
    published = published_curve(experiment)
    accuracy = "binary_accuracy" if experiment in BINARY else "accuracy"
    with _figure(path, 2, describe(evidence, chosen, experiment)) as (loss_axes, accuracy_axes):
        for axes, figure in ((loss_axes, "loss"), (accuracy_axes, accuracy)):
            for part in ("train", "val"):
                key = f"{part}_{figure}"
                name = "training" if part == "train" else "validation"
                _draw_band(axes, curves(evidence, chosen, experiment, key), COLOURS[part], name)
                if published:
                    _draw_published(axes, published[key], f"{name}, published", MARKERS[part])
        _loss_axis(loss_axes, "loss")
        _accuracy_axis(accuracy_axes, f"{accuracy.replace('_', ' ')}, %")
        loss_axes.legend(ncols=2, loc="upper right")


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
    keys = chosen[experiment].values()
    unfinished = "" if all(is_complete(evidence, key) for key in keys) else " unfinished"
    devices = " and ".join(sorted({key.device for key in keys}))
    runs = f"{len(keys)}{unfinished} run{'s' * (len(keys) != 1)}"
    return f"{experiment}: {runs} ({count_precisions(keys)}) on {devices}"


# --- Parts of a figure ------------------------------------------------------------------------


@contextmanager
def _figure(path: Path, panels: int, title: str) -> Iterator[Sequence[Axes]]:
    """Panels side by side, written as a PNG that is the same to the byte each time."""
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(1.2 + 4.2 * max(panels, 1.5), 4.2), dpi=120, layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False)[0]
        yield axes
        figure.suptitle(title, fontsize=10)
        figure.savefig(path, metadata={"Software": None})


def _draw_band(axes: Axes, ours: NDArray[np.float64], colour: str, label: str) -> None:
    epochs = np.arange(1, ours.shape[1] + 1)
    axes.fill_between(epochs, ours.min(0), ours.max(0), color=colour, alpha=0.25, linewidth=0)
    axes.plot(epochs, ours.mean(0), color=colour, label=label)


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
