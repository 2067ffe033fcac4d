"""Everything that can be found wrong before a run begins: machine, network, image files, split."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from mnist_bench.config.schema import DataConfig, TrainConfig
from mnist_bench.data.images import Images
from mnist_bench.data.loading import load
from mnist_bench.data.published import Published
from mnist_bench.data.splits import Splits, split_images
from mnist_bench.errors import ConfigError
from mnist_bench.models import ConvNet
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
        ConvNet(config.model)
    images = read_images(config.data, announce)
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


def read_images(config: DataConfig, announce: Callable[[str], None]) -> Images:
    """Read, verified and brought to size, once per process, however many runs of a sweep use them.

    Raises:
        ConfigError: there is no such dataset.
        DataError: its files are neither there nor to be had.
    """
    size = config.image_size
    rows_and_columns = tuple(size) if isinstance(size, list) else size and (size, size)
    place = config.name, config.split, Path(config.root)
    return _read_images(*place, rows_and_columns, bool(config.grey), announce)


@cache
def _read_images(
    name: str,
    split: str | None,
    root: Path,
    image_size: tuple[int, int] | None,
    grey: bool,
    announce: Callable[[str], None],
) -> Images:
    return load(Published(name, split, root), announce, image_size, grey)
