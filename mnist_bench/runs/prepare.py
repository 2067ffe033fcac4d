"""Everything that can be found wrong before a run begins: machine, parts, image files, split."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from mnist_bench.config.parts import Part
from mnist_bench.config.schema import DataConfig, OwnDataConfig, TrainConfig
from mnist_bench.data import Dataset
from mnist_bench.data.datasets import find_dataset
from mnist_bench.data.images import Images
from mnist_bench.data.loading import load
from mnist_bench.data.published import Published
from mnist_bench.data.splits import Splits, split_images
from mnist_bench.errors import ConfigError
from mnist_bench.loggers.base import Logger
from mnist_bench.models import build_network
from mnist_bench.runs.failures import naming_the_batch
from mnist_bench.runs.trial import has_own_parts, try_own_parts
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
        OutOfMemory: the images do not fit.
    """
    with naming_the_batch(config):
        return _prepare(config, announce)


def _prepare(config: TrainConfig, announce: Callable[[str], None]) -> Prepared:
    placement = find_placement(config.trainer)
    for logger in config.logger.values():
        logger.find(Logger)
    if not isinstance(config.data, OwnDataConfig) and not isinstance(config.model, Part):
        shape = find_dataset(config.data.name, config.data.split).image_shape
        with torch.device("meta"):  # before anything is fetched
            build_network(config.model, 10, (1, *(wanted_size(config.data) or shape)))
    images = read_images(config.data, announce)
    splits = split_images(images, config.data)
    own = has_own_parts(config)
    with torch.device("cpu" if own else "meta"):
        network = build_network(config.model, splits.num_classes, splits.image_shape)
    if any(isinstance(module, _BatchNorm) for module in network.modules()):
        _check_batches(config.trainer.batch_size, len(splits.train))
    if own:
        try_own_parts(config, splits, network)
    return Prepared(placement, splits)


def _check_batches(batch_size: int, train_images: int) -> None:
    if 1 in (batch_size, train_images % batch_size):
        raise ConfigError(
            f"trainer.batch_size={batch_size} makes a batch of one of {train_images} training "
            f"images, and batch normalisation needs two: choose another size."
        )


# Read and verified once per process, however many runs of a sweep use them.
_READ: dict[str, Images] = {}


def read_images(config: DataConfig, announce: Callable[[str], None]) -> Images:
    """Read, or fetch and read, the images of a configuration, as large and as grey as it wants.

    Raises:
        ConfigError: there is no such dataset.
        DataError: the files are neither there nor to be had, or are not what they should be.
    """
    size = wanted_size(config)
    key = repr((config.name, config.split, config.root, size, config.grey))
    if isinstance(config, OwnDataConfig):
        key = repr((config.source, size, config.grey))
    if key not in _READ:
        if isinstance(config, OwnDataConfig):
            dataset = config.source.build(Dataset, {}, {})
            with config.source.blamed("cannot be loaded"):
                _READ[key] = load(dataset, announce, size, config.grey)
        else:
            published = Published(config.name, config.split, Path(config.root))
            _READ[key] = load(published, announce, size, config.grey)
    return _READ[key]


def wanted_size(config: DataConfig) -> tuple[int, int] | None:
    """Return rows and columns that images are to be brought to, if they are."""
    size = config.image_size
    if size is None:
        return None
    rows, columns = size if isinstance(size, list) else (size, size)
    return rows, columns
