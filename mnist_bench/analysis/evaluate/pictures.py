"""An evaluation as pictures: confusion and mistakes as a run's own, and reliability."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from mnist_bench.analysis.evaluate.evaluation import Evaluation
from mnist_bench.loggers.drawing import (
    BLUE,
    FAINT,
    ORANGE,
    draw_confusion,
    draw_mistakes,
    draw_to,
)
from mnist_bench.loggers.pictures import RunPictures, Tiles, caption

MOST_MISTAKES = 48


def draw_pictures(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write confusion.png, reliability.png and, if there are mistakes, mistakes.png; return them.

    Raises:
        OSError: one cannot be written.
    """
    pictures = _as_of_a_run(evaluation)
    drawn: dict[Path, Callable[[], Figure | None]] = {
        folder / "confusion.png": partial(draw_confusion, pictures),
        folder / "reliability.png": partial(draw_reliability, evaluation),
        folder / "mistakes.png": partial(draw_mistakes, pictures),
    }
    return [path for path, picture in drawn.items() if draw_to(path, picture)]


def _as_of_a_run(evaluation: Evaluation) -> RunPictures:
    """Return what a run's own pictures of its mistakes would be made of."""
    pixels = evaluation.images
    images_NCHW = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    shown = evaluation.wrong[:MOST_MISTAKES]
    none = Tiles(images_NCHW[:0], [])
    mistakes = Tiles(
        images_NCHW[[one.image for one in shown]],
        [caption(one.predicted, one.label, one.confidence) for one in shown],
        mistaken=True,
    )
    errors, images = len(evaluation.wrong), len(evaluation.labels)
    return RunPictures(
        name=evaluation.run.resolve().name,
        result=f"{evaluation.dataset}: accuracy {1 - errors / images:.2%}, "
        f"{errors:,} error{'s' * (errors != 1)} in {images:,}",
        class_names=evaluation.class_names,
        history=[],
        tested_epoch=None,
        samples=none,
        right=none,
        wrong=none,
        mistakes=mistakes,
        confusion=evaluation.confusion,
        kernels=None,
    )


def draw_reliability(evaluation: Evaluation) -> Figure:
    """Return how often each bin of confidence is right, over how many images it has."""
    calibration = evaluation.calibration
    full = [b for b in calibration.bins if b.images]
    figure = Figure(figsize=(4.8, 5.6), dpi=120, layout="constrained")
    above, below = figure.subplots(2, height_ratios=(3, 1), sharex=True)
    width = calibration.bins[0].high
    middles = [(b.low + b.high) / 2 for b in full]
    above.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1, label="as promised")
    above.bar(middles, [b.accuracy or 0 for b in full], 0.92 * width, color=BLUE, alpha=0.85)
    above.plot(
        *([b.confidence or 0 for b in full], [b.accuracy or 0 for b in full]),
        *("o",),
        color=ORANGE,
        markersize=5,
        clip_on=False,
        zorder=3,
        label="a bin, at its mean confidence",
    )
    title = f"{evaluation.model} on {evaluation.dataset}: calibration error {calibration.ece:.2%}"
    above.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(0, 1), title=title)
    above.legend(loc="upper left")
    below.bar(middles, [b.images for b in full], 0.92 * width, color=FAINT)
    below.set(xlabel="confidence", ylabel="images", yscale="log")
    below.yaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
    return figure
