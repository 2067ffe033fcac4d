"""Everything that can be found wrong before a run begins: machine, network, image files, split."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from mnist_bench.config.schema import TrainConfig
from mnist_bench.data.datasets import IMAGE_SHAPE, find_dataset
from mnist_bench.data.fetch import ensure_files
from mnist_bench.data.images import Images, load_images
from mnist_bench.data.splits import Splits, split_images
from mnist_bench.errors import ConfigError
from mnist_bench.models import build_network
from mnist_bench.training.device import Placement, find_placement


@dataclass(frozen=True)
class Prepared:
    """A place to compute and the images, still on the CPU."""

    placement: Placement
    splits: Splits


def prepare(config: TrainConfig, announce: Callable[[str], None]) -> Prepared:
    """Find or fetch all that a run needs, without writing outside `data.root`.

    Raises:
        ConfigError: the machine, the network or the split cannot be as configured.
        DataError: the image files are neither there nor to be had.
    """
    placement = find_placement(config.trainer)
    with torch.device("meta"):
        build_network(config.model, image_shape=(1, *IMAGE_SHAPE))
    images = read_images(config.data.name, config.data.split, Path(config.data.root), announce)
    splits = split_images(images, config.data)
    _check_batches(config, len(splits.train))
    return Prepared(placement, splits)


def _check_batches(config: TrainConfig, train_images: int) -> None:
    batch_size = config.trainer.batch_size
    normalises = config.model.batch_norm or config.model.conv_batch_norm
    if normalises and 1 in (batch_size, train_images % batch_size):
        raise ConfigError(
            f"trainer.batch_size={batch_size} makes a batch of one of {train_images} training "
            f"images, and batch normalisation needs two: choose another size."
        )


@cache
def read_images(
    name: str, split: str | None, root: Path, announce: Callable[[str], None]
) -> Images:
    """Read and verified once per process, however many runs of a sweep use them."""
    dataset = find_dataset(name, split)
    ensure_files(dataset, root, announce)
    return load_images(dataset, root)
