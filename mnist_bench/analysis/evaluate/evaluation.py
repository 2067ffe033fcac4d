"""A run's network tested again, on its own test images or on others. N images, K classes."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mnist_bench.analysis.evaluate.figures import (
    Calibration,
    ClassFigures,
    calibrate,
    confusion_matrix,
    figures_of_classes,
)
from mnist_bench.analysis.evaluate.settings import change_settings
from mnist_bench.config.identity import computed
from mnist_bench.config.schema import DataConfig, TrainConfig
from mnist_bench.config.walk import flatten
from mnist_bench.data.images import Images, describe_shape
from mnist_bench.data.splits import ImageSet, select_test
from mnist_bench.errors import DataError
from mnist_bench.kernels import accelerate, describe, resolve
from mnist_bench.models import build_network
from mnist_bench.runs.load import TrainedNetwork, load
from mnist_bench.runs.prepare import read_images
from mnist_bench.runs.records import read_summary, test_figures
from mnist_bench.training.device import Placement, find_placement, set_up_torch
from mnist_bench.training.learner import evaluate
from mnist_bench.training.losses import build_loss
from mnist_bench.training.metrics import metrics_for


@dataclass(frozen=True)
class Wrong:
    """An image that was taken for something else; `image` counts the test images from 0."""

    image: int
    name: str | None  # its file, say, if the dataset tells
    label: str
    predicted: str
    confidence: float
    label_probability: float


@dataclass(frozen=True)
class Evaluation:
    """What a network answers to labelled images, and all figures of it.

    `figures` are those of summary.json that begin with `test_`. `unlike` says in a sentence what
    keeps them from being summary.json's own to the bit; None if nothing does, or if there is
    nothing to compare with: then `as_recorded` is False, too.
    """

    run: Path
    model: str
    dataset: str
    when: str
    class_names: tuple[str, ...]
    images: NDArray[np.uint8]  # (N, H, W) or (N, H, W, 3)
    image_names: tuple[str, ...]  # none, or N
    labels: NDArray[np.int64]  # (N,)
    logits: NDArray[np.float32]  # (N, K)
    figures: dict[str, float | int]
    computed_by: dict[str, str]
    as_recorded: bool = False
    unlike: str | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """Of every class, (N, K)."""
        probabilities: NDArray[np.float32] = torch.from_numpy(self.logits).softmax(1).numpy()
        return probabilities

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """The likeliest class of each image, (N,)."""
        predicted: NDArray[np.int64] = self.logits.argmax(1)
        return predicted

    @cached_property
    def confidences(self) -> NDArray[np.float32]:
        """The probability of the likeliest class, (N,)."""
        return self.probabilities[np.arange(len(self.labels)), self.predicted]

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """How many images of each class (rows) were taken for which (columns), (K, K)."""
        return confusion_matrix(self.labels, self.predicted, len(self.class_names))

    @cached_property
    def classes(self) -> list[ClassFigures]:
        return figures_of_classes(self.confusion, self.class_names)

    @cached_property
    def calibration(self) -> Calibration:
        return calibrate(self.confidences, self.predicted == self.labels)

    @cached_property
    def wrong(self) -> list[Wrong]:
        """The images that were taken for something else, the most confident mistakes first."""
        (places,) = (self.predicted != self.labels).nonzero()
        order = places[np.argsort(-self.confidences[places], kind="stable")]
        return [
            Wrong(
                int(n),
                self.image_names[n] if self.image_names else None,
                self.class_names[self.labels[n]],
                self.class_names[self.predicted[n]],
                float(self.confidences[n]),
                float(self.probabilities[n, self.labels[n]]),
            )
            for n in order
        ]

    def as_json(self) -> dict[str, Any]:
        """Return all figures, as `mnist-bench evaluate --json` prints them."""
        return {
            "run": str(self.run),
            "model": self.model,
            "dataset": self.dataset,
            "weights": self.when,
            "images": len(self.labels),
            **self.figures,
            **self.computed_by,
            "as_recorded": self.as_recorded,
            "unlike_summary": self.unlike,
            "notes": list(self.notes),
            "classes": [asdict(figures) for figures in self.classes],
            "confusion": self.confusion.tolist(),
            "calibration": asdict(self.calibration),
            "wrong": [asdict(wrong) for wrong in self.wrong],
        }


def evaluate_run(
    run: str | Path,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
    announce: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Test the network of a run with the weights that it was tested with.

    It is computed where and as the run was, so that on the same machine the figures are those of
    its summary.json to the bit. `overrides`, as for train.py, choose other images (`data=...`,
    `data.root=...`), or another way to compute (`trainer.gpus`, `trainer.precision`,
    `trainer.kernels`). `announce` hears of images that are read.

    Raises:
        ConfigError: the folder is not that of a run, or an override cannot be.
        DataError: the images have other classes or another size than the network, or cannot be
            had; or a file of the run is damaged.
    """
    trained = load(run, config_dir)
    config = change_settings(Path(run), trained.config, overrides, config_dir)
    images = read_images(config.data, announce)
    _refuse_other_size(images, trained, config.data)
    test, notes = _as_known(select_test(images, config.data), images.class_names, trained, config)
    placement = find_placement(config.trainer)
    figures, logits_NK, kernels = _compute(trained, config, placement, test)
    tested = test_figures(figures, logits_NK, test.labels)
    computed_by = {
        "device": placement.device_name,
        "precision": placement.precision.name,
        "kernels": kernels,
        "torch": version("torch"),
    }
    recorded = read_summary(Path(run))
    unlike = None
    same_images = _same_images(trained.config, config)
    if same_images:
        unlike = _compare(tested, computed_by, recorded)
    pixels_NCHW = test.images
    pixels = pixels_NCHW[:, 0] if pixels_NCHW.shape[1] == 1 else pixels_NCHW.permute(0, 2, 3, 1)
    return Evaluation(
        *(Path(run), config.model.name, config.data.name, trained.when, trained.class_names),
        images=pixels.numpy(),
        image_names=images.test_names[: len(test)],
        labels=test.labels.numpy(),
        logits=logits_NK.numpy(),
        figures=tested,
        computed_by=computed_by,
        as_recorded=same_images and unlike is None,
        unlike=unlike,
        notes=notes,
    )


def _compute(
    trained: TrainedNetwork, config: TrainConfig, placement: Placement, test: ImageSet
) -> tuple[dict[str, float], Tensor, str]:
    """Return figures and logits as a run computes them at its end, and what computed the layers."""
    trainer = config.trainer
    set_up_torch(config.seed, placement.precision, trainer.deterministic)
    network = build_network(config.model, len(trained.class_names), trained.image_shape)
    network = placement.place(network)
    accelerate(network, placement.device, trainer.kernels.name)
    network.load_state_dict(trained.network.state_dict())
    figures, logits_NK = evaluate(
        *(network, test.to(placement.device), "test", build_loss(config.loss, placement.device)),
        *(metrics_for(config.loss), placement, trained.scaling),
    )
    return figures, logits_NK, describe(resolve(trainer.kernels.name, placement.device))


# --- Other images -----------------------------------------------------------------------------


def _refuse_other_size(images: Images, trained: TrainedNetwork, data: DataConfig) -> None:
    found = tuple(images.test_images.shape[1:])
    shape = (*found[:2], found[2] if len(found) == 3 else 1)
    channels, height, width = trained.image_shape
    if shape == (height, width, channels):
        return
    grey_helps = channels == 1 and shape[2] == 3
    wanted = (height, width) if channels == 1 else (height, width, channels)
    size = f"data.image_size=[{height},{width}]" if shape[:2] != (height, width) else ""
    remedy = " and ".join(filter(None, [size, "data.grey=true" * grey_helps]))
    told = f": give {remedy}" if remedy else ", and grey images cannot be made colours"
    raise DataError(
        f"The images of {data.name} are {describe_shape(found)}, and this network takes "
        f"{describe_shape(wanted)}{told}."
    )


def _as_known(
    test: ImageSet, names: tuple[str, ...], trained: TrainedNetwork, config: TrainConfig
) -> tuple[ImageSet, tuple[str, ...]]:
    """Return the images with labels that count the network's classes, and what is to be told.

    Classes are the same if they are called the same, in any order. Those that are called otherwise
    are taken in their order, if there are as many.
    """
    known = trained.class_names
    if names == known:
        return test, ()
    if set(names) <= set(known):
        numbers = torch.tensor([known.index(name) for name in names])
        return ImageSet(test.images, numbers[test.labels]), ()
    if len(names) != len(known):
        raise DataError(
            f"{config.data.name} has {len(names)} classes ({_some(names)}), and this network knows "
            f"{len(known)} ({_some(known)}): give images of those."
        )
    note = (
        f"The classes of {config.data.name} ({_some(names)}) are taken in their order for those "
        f"that the network knows ({_some(known)})."
    )
    return test, (note,)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])}, … {names[-1]}"


# --- The figures of the run itself ------------------------------------------------------------


def _same_images(saved: TrainConfig, config: TrainConfig) -> bool:
    def of_data(given: TrainConfig) -> dict[str, Any]:
        return {k: v for k, v in computed(flatten(given)).items() if k.startswith("data.")}

    return of_data(saved) == of_data(config)


def _compare(
    figures: dict[str, float | int], computed_by: dict[str, str], recorded: dict[str, Any]
) -> str | None:
    """Return why figures are not those of summary.json to the bit; None if they are."""
    if recorded.get("test_loss") is None:
        status = recorded.get("status", "not ended")
        return f"summary.json has no test figures to compare with: the run is {status}."
    different = [
        key for key, value in figures.items() if key in recorded and recorded[key] != value
    ]
    if not different:
        return None
    then = {**recorded, "torch": recorded.get("versions", {}).get("torch")}
    changed = [
        f"{key} was {then[key]} and is {value}"
        for key, value in computed_by.items()
        if then.get(key) is not None and then[key] != value
    ]
    key = "test_errors" if "test_errors" in different else different[0]
    told = f"summary.json has {key} {recorded[key]}, and here it is {figures[key]}: "
    if changed:
        return f"{told}{'; '.join(changed)}."
    return f"{told}the weights, the images or the machine are not those of the test."
