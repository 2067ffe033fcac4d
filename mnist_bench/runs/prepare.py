"""Everything that can be found wrong before a run begins: machine, parts, image files, split."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
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
from mnist_bench.training.device import Placement, find_placement
from mnist_bench.training.losses import build_loss
from mnist_bench.training.optimizers import build_optimizer
from mnist_bench.training.schedulers import build_schedule


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
    for logger in config.logger.values():
        logger.find(Logger)
    if not isinstance(config.data, OwnDataConfig) and not isinstance(config.model, Part):
        shape = find_dataset(config.data.name, config.data.split).image_shape
        with torch.device("meta"):  # before anything is fetched
            build_network(config.model, 10, (1, *(wanted_size(config.data) or shape)))
    images = read_images(config.data, announce)
    splits = split_images(images, config.data)
    network = _try_network(config, splits)
    if any(isinstance(module, _BatchNorm) for module in network.modules()):
        _check_batches(config.trainer.batch_size, len(splits.train))
    _try_own_parts(config, splits)
    return Prepared(placement, splits)


def _try_network(config: TrainConfig, splits: Splits) -> nn.Module:
    """Build the network; of one's own, see whether it takes images and returns logits."""
    if not isinstance(config.model, Part):
        with torch.device("meta"):
            return build_network(config.model, splits.num_classes, splits.image_shape)
    network = build_network(config.model, splits.num_classes, splits.image_shape).eval()
    fresh = network.state_dict().keys()
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in network.parameters()):
        raise ConfigError(
            f"model._target_={config.model.target} has a layer that learns its size from the first "
            f"images, such as LazyLinear: give the size, which image_shape in __init__ tells."
        )
    images = splits.scaling(splits.train[:2].images)
    target = f"model._target_={config.model.target}"
    with torch.inference_mode(), config.model.blamed(f"fails on images of {tuple(images.shape)}"):
        logits = network(images)
    expected = (len(images), splits.num_classes)
    if not isinstance(logits, torch.Tensor) or logits.shape != expected:
        what = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ConfigError(
            f"{target} returns {what} for images of {tuple(images.shape)}: its forward has to "
            f"return logits of shape {expected}, one for each class."
        )
    if not any(p.requires_grad for p in network.parameters()):
        raise ConfigError(f"{target} has no parameters to train.")
    with config.model.blamed("fails in a training step"):
        network.train()
        loss = build_loss(config.loss, torch.device("cpu"))
        loss(network(images).float(), splits.train.labels[:2]).backward()
    if network.state_dict().keys() != fresh:
        raise ConfigError(
            f"{target} makes layers or buffers in forward, which neither an optimizer nor a "
            f"checkpoint would know of: make them in __init__."
        )
    return network


def _try_own_parts(config: TrainConfig, splits: Splits) -> None:
    """Build what else is of one's own, as a run will."""
    weight = nn.Parameter(torch.zeros(1))
    if isinstance(config.optimizer, Part):
        build_optimizer(config.optimizer, [weight])
    if isinstance(config.scheduler, Part):
        build_schedule(config.scheduler, 1.0, 1, 1)
    if isinstance(config.loss, Part):
        logits, labels = torch.zeros(2, splits.num_classes), splits.train.labels[:2]
        own = build_loss(config.loss, torch.device("cpu"))
        if isinstance(own, nn.Module) and list(own.parameters()):
            raise ConfigError(
                f"loss._target_={config.loss.target} has parameters, which would not be trained: "
                f"make them a part of the network."
            )
        loss = own(logits, labels)
        if not isinstance(loss, torch.Tensor) or loss.dim() > 0:
            raise ConfigError(
                f"loss._target_={config.loss.target} does not return one number: it is called with "
                f"logits (N, K) and labels (N,), and has to return their mean loss, a 0-d tensor."
            )


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
