"""An evaluation as pictures: confusion, reliability, and the images that were taken for others."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mnist_bench.analysis.evaluate.evaluation import Evaluation, Wrong

# Okabe and Ito's colours, which people who are colour-blind can tell apart.
BLUE, ORANGE = "#0072B2", "#D55E00"
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "legend.frameon": False,
}
# In the picture of mistakes, and in a row of it.
MOST_WRONG, ACROSS = 48, 8
# Of more classes the cells of the matrix have no room for numbers.
MOST_NUMBERS = 26


def draw_pictures(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write confusion.png, reliability.png and, if there are mistakes, wrong.png; return them.

    Raises:
        OSError: one cannot be written.
    """
    drawn = []
    pictures: dict[str, Callable[[Evaluation], Figure]] = {
        "confusion": draw_confusion,
        "reliability": draw_reliability,
    }
    if evaluation.wrong:
        pictures["wrong"] = draw_wrong
    for name, draw in pictures.items():
        with matplotlib.style.context(["default", STYLE]):
            path = folder / f"{name}.png"
            draw(evaluation).savefig(path, metadata={"Software": None})
            drawn.append(path)
    return drawn


def draw_confusion(evaluation: Evaluation) -> Figure:
    """Return how many images of each class were taken for which; colours are of mistakes alone."""
    confusion, names = evaluation.confusion, evaluation.class_names
    classes = len(names)
    mistakes = np.where(np.eye(classes, dtype=bool), 0, confusion)
    side = min(max(4.4, 0.5 * classes + 1.2), 14)
    figure = Figure(figsize=(side, side), dpi=120, layout="constrained")
    axes = figure.subplots()
    # By the root, or one frequent mistake would hide all others; and none is black.
    most = max(1.0, np.sqrt(mistakes.max()))
    axes.imshow(np.sqrt(mistakes), cmap="Oranges", vmin=0, vmax=1.5 * most)
    axes.set(xlabel="predicted", ylabel="truth", title=_title(evaluation))
    turned = 0 if max(map(len, names)) <= 3 else 45
    axes.set_xticks(range(classes), names, rotation=turned, ha="right" if turned else "center")
    axes.set_yticks(range(classes), names)
    axes.tick_params(length=0, labelsize=9 if classes <= MOST_NUMBERS else 5)
    axes.spines[:].set_visible(False)
    if classes <= MOST_NUMBERS:
        for (row, column), count in np.ndenumerate(confusion):
            if row == column:
                axes.text(column, row, f"{count:,}", ha="center", va="center", color="#444444")
            elif count:
                axes.text(column, row, f"{count:,}", ha="center", va="center", weight="bold")
    return figure


def draw_reliability(evaluation: Evaluation) -> Figure:
    """Return how often each bin of confidence is right, over how many images it has."""
    calibration = evaluation.calibration
    full = [b for b in calibration.bins if b.images]
    figure = Figure(figsize=(4.8, 5.6), dpi=120, layout="constrained")
    above, below = figure.subplots(2, height_ratios=(3, 1), sharex=True)
    width = calibration.bins[0].high
    middles = [(b.low + b.high) / 2 for b in full]
    above.plot([0, 1], [0, 1], color="#999999", linestyle="--", linewidth=1, label="as promised")
    above.bar(middles, [b.accuracy or 0 for b in full], 0.92 * width, color=BLUE, alpha=0.85)
    above.plot(
        *([b.confidence or 0 for b in full], [b.accuracy or 0 for b in full]),
        *("o",),
        color=ORANGE,
        markersize=5,
        clip_on=False,
        zorder=3,
        label="mean confidence of a bin",
    )
    above.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0, 1), title=_title(evaluation))
    told = f"expected calibration error {calibration.ece:.2%}"
    above.text(0.03, 0.76, told, transform=above.transAxes)
    above.legend(loc="upper left")
    below.bar(middles, [b.images for b in full], 0.92 * width, color="#777777")
    below.set(xlabel="confidence", ylabel="images", yscale="log")
    return figure


def draw_wrong(evaluation: Evaluation) -> Figure:
    """Return the images of the most confident mistakes, with what they are and were taken for."""
    shown = evaluation.wrong[:MOST_WRONG]
    across = min(ACROSS, len(shown))
    down = -(-len(shown) // across)
    longest = max(len(f"{one.label} as {one.predicted}") for one in shown)
    cell = max(1.15, 0.075 * longest)
    figure = Figure(figsize=(cell * across, 1.62 * down + 0.5), dpi=120, layout="constrained")
    all_axes = figure.subplots(down, across, squeeze=False).ravel()
    for axes in all_axes:
        axes.set_axis_off()
    for axes, one in zip(all_axes, shown, strict=False):
        _draw_image(axes, evaluation, one)
    count = len(evaluation.wrong)
    which = (
        f"the {len(shown)} most confident of {count:,}" if count > len(shown) else f"all {count}"
    )
    figure.suptitle(f"{_title(evaluation)}: {which} mistakes", fontsize=10, x=0.01, ha="left")
    return figure


def _draw_image(axes: Axes, evaluation: Evaluation, one: Wrong) -> None:
    axes.imshow(evaluation.images[one.image], cmap="gray", vmin=0, vmax=255)
    axes.set_title(
        f"{one.label} as {one.predicted}\n{one.confidence:.1%}", fontsize=8.5, loc="center"
    )


def _title(evaluation: Evaluation) -> str:
    return f"{evaluation.model} on {evaluation.dataset}"
