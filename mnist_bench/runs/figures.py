"""What the pictures of a run show: chosen of its images, predictions and weights.

N images, C channels, H rows, W columns, K classes, O kernels.
"""

import csv
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mnist_bench.data.splits import Splits, split_images
from mnist_bench.errors import ConfigError, DataError, naming
from mnist_bench.loggers.artist import ARTIST, why_not_drawn
from mnist_bench.loggers.pictures import RunPictures, Tiles, caption
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.load import load
from mnist_bench.runs.predictions import read_predictions
from mnist_bench.runs.prepare import read_images
from mnist_bench.runs.records import read_summary
from mnist_bench.runs.run import Run

hydras_log = logging.getLogger("mnist_bench")

SAMPLES, ANSWERS, MISTAKES = 50, 9, 16
# Larger images are made smaller, to as many pixels as a picture shows of each.
MOST_PIXELS = 96
MOST_KERNELS = 96


def hand_over(run: Run, summary: Mapping[str, Any]) -> None:
    """Have the pictures of a run drawn that was tested just now; `summary` is that of its end.

    What goes wrong is told, and costs the pictures alone.
    """
    try:
        weights = run.learner.tested.state_dict()
        pictures = choose_pictures(run.folder, summary, run.position.history, run.splits, weights)
        events = run.folder.tensorboard if run.folder.tensorboard.is_dir() else None
        ARTIST.draw(pictures, run.folder.figures, events)
    except Exception as error:
        hydras_log.warning(f"The figures are not drawn: {why_not_drawn(error)}")


def draw_again(path: Path, config_dir: Path | None, announce: Callable[[str], None]) -> list[Path]:
    """Draw the pictures of the run in `path` into its folder, and return their files.

    `config_dir` vouches for a network of one's own, as for `load`; `announce` is told of each step
    of reading the images.

    Raises:
        ConfigError: the folder is not that of a run that was tested.
        DataError: a file in it is damaged.
    """
    from mnist_bench.loggers.drawing import draw  # matplotlib, which trainings do without

    folder = RunFolder(path)
    chosen = _choose_again(folder, config_dir, announce)
    with naming(folder.figures):
        return list(draw(chosen, folder.figures).values())


def hand_over_again(path: Path, config_dir: Path | None) -> None:
    """Have the pictures of a run drawn beside this process, as `hand_over` has those of a new one.

    Raises:
        ConfigError, DataError: as `draw_again`.
    """
    folder = RunFolder(path)
    events = folder.tensorboard if folder.tensorboard.is_dir() else None
    chosen = _choose_again(folder, config_dir, lambda line: None)
    ARTIST.draw(chosen, folder.figures, events)


def _choose_again(
    folder: RunFolder, config_dir: Path | None, announce: Callable[[str], None]
) -> RunPictures:
    path = folder.path
    trained = load(path, config_dir)
    summary = read_summary(path)
    if summary.get("status") not in ("completed", "imported"):
        raise ConfigError(
            f"{path} has no result to draw: the run was not tested, go on with it first."
        )
    splits = split_images(read_images(trained.config.data, announce), trained.config.data)
    history = read_history(folder)
    return choose_pictures(folder, summary, history, splits, trained.network.state_dict())


def choose_pictures(
    folder: RunFolder,
    summary: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    splits: Splits,
    weights: Mapping[str, Tensor],
) -> RunPictures:
    """Return what the pictures of a tested run are drawn of.

    Raises:
        DataError: its predictions.npz is damaged, or of other images than those of `splits`.
    """
    logits_NK, labels_N = read_predictions(folder)
    if not np.array_equal(labels_N, splits.test.labels.cpu().numpy()):
        raise DataError(
            f"{folder.predictions} is of other test images than there are now: its labels differ."
        )
    names, images_NCHW = splits.class_names, splits.test.images
    probabilities_NK = torch.from_numpy(logits_NK).double().softmax(1)
    confidence_N, predicted_N = probabilities_NK.max(1)
    confidence, predicted = confidence_N.numpy(), predicted_N.numpy()
    is_wrong_N = predicted != labels_N
    right, wrong = np.flatnonzero(~is_wrong_N), np.flatnonzero(is_wrong_N)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]

    def answers(places: np.ndarray, mistaken: bool, sure: bool = False) -> Tiles:
        captions = [
            caption(names[predicted[i]], names[labels_N[i]], confidence[i] if sure else None)
            for i in places
        ]
        return Tiles(_pixels(images_NCHW, places), captions, mistaken)

    errors = summary["test_errors"]
    sampled = _spread(len(splits.train), SAMPLES)
    labels = splits.train.labels.cpu()
    confusion_KK = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(confusion_KK, (labels_N, predicted), 1)
    return RunPictures(
        name=folder.path.resolve().name,
        result=f"test accuracy {summary['test_accuracy']:.2%}, "
        f"{errors:,} error{'s' * (errors != 1)} in {summary['test_images']:,}",
        class_names=names,
        history=[dict(record) for record in history],
        tested_epoch=summary["tested_epoch"],
        samples=Tiles(_pixels(splits.train.images, sampled), [names[labels[i]] for i in sampled]),
        right=answers(right[_spread(len(right), ANSWERS)], mistaken=False),
        wrong=answers(wrong[_spread(len(wrong), ANSWERS)], mistaken=True),
        mistakes=answers(surest, mistaken=True, sure=True),
        confusion=confusion_KK,
        kernels=_first_kernels(weights, splits.image_shape[0]),
    )


def read_history(folder: RunFolder) -> list[dict[str, float]]:
    """Return a mapping of the columns of metrics.csv for each epoch.

    Raises:
        DataError: it is damaged.
    """
    try:
        with naming(folder.metrics), folder.metrics.open(newline="") as file:
            rows = [
                {key: float(value) for key, value in row.items()} for row in csv.DictReader(file)
            ]
        return [{**row, "epoch": int(row["epoch"])} for row in rows]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{folder.metrics} is damaged ({error}).") from error


def _spread(count: int, most: int) -> np.ndarray:
    """Return at most so many places, evenly over all: files may be sorted by class."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)


def _pixels(images_NCHW: Tensor, places: np.ndarray) -> np.ndarray:
    """Return some of the images, none larger than is shown: uint8 (N, C, H, W)."""
    index = torch.as_tensor(places, device=images_NCHW.device)
    chosen_NCHW = images_NCHW.index_select(0, index).cpu()
    height, width = chosen_NCHW.shape[2:]
    factor = MOST_PIXELS / max(height, width)
    if factor < 1 and len(chosen_NCHW):
        size = max(1, round(height * factor)), max(1, round(width * factor))
        chosen_NCHW = F.interpolate(chosen_NCHW.float(), size, mode="area").round().byte()
    return chosen_NCHW.numpy()


def _first_kernels(weights: Mapping[str, Tensor], channels: int) -> np.ndarray | None:
    """Return the kernels of the first layer, (O, C, H, W), if that is a convolution of images."""
    first = next((w for name, w in weights.items() if name.endswith("weight")), None)
    if first is None or first.ndim != 4 or first.shape[1] != channels or min(first.shape[2:]) < 2:
        return None
    return first[:MOST_KERNELS].float().cpu().numpy()
