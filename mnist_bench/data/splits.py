"""Which images train, validate and test, and how pixels become the network's input.

N images, H rows, W columns. Images stay uint8, whole, on the training device.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from mnist_bench.config.schema import DataConfig, HoldoutFrom, Scaling, Validation
from mnist_bench.data.images import Images
from mnist_bench.errors import ConfigError


@dataclass(frozen=True)
class ImageSet:
    """Images, uint8 (N, 28, 28), and their labels, int64 (N,), on one device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice | Tensor) -> "ImageSet":
        if isinstance(index, slice):
            return ImageSet(self.images[index], self.labels[index])
        return ImageSet(self.images.index_select(0, index), self.labels.index_select(0, index))

    def to(self, device: torch.device) -> "ImageSet":
        return ImageSet(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class PixelScaling:
    """Turns pixels from 0 to 255 into the network's input: (pixel - offset) / divisor."""

    offset: float
    divisor: float

    @classmethod
    def fit(cls, scaling: Scaling, train_images: Tensor) -> Self:
        """The scaling that the configuration names, with statistics of the training images only."""
        match scaling:
            case Scaling.raw:
                return cls(0.0, 1.0)
            case Scaling.unit:
                return cls(0.0, 255.0)
            case Scaling.standardised:
                counts = torch.bincount(train_images.flatten(), minlength=256).double()
                values = torch.arange(256, dtype=torch.float64, device=counts.device)
                mean = counts @ values / counts.sum()
                variance = counts @ (values - mean) ** 2 / counts.sum()
                return cls(mean.item(), variance.sqrt().item())

    def __call__(self, images_NHW: Tensor) -> Tensor:
        """uint8 or float32 (N, H, W) to float32 (N, 1, H, W)."""
        pixels_N1HW = images_NHW.unsqueeze(1).float()
        if self.offset:
            pixels_N1HW -= self.offset
        return pixels_N1HW.div_(self.divisor) if self.divisor != 1 else pixels_N1HW


@dataclass(frozen=True)
class Splits:
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    num_classes: int
    scaling: PixelScaling

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of an image as the network sees it: channels, rows, columns."""
        channels, rows, columns = self.scaling(self.train[:1].images).shape[1:]
        return channels, rows, columns

    def to(self, device: torch.device) -> "Splits":
        return Splits(
            self.train.to(device),
            self.validation.to(device),
            self.test.to(device),
            self.num_classes,
            self.scaling,
        )


def split_images(images: Images, config: DataConfig) -> Splits:
    """Set the validation images aside as configured, then apply the limit to each part.

    Raises:
        ConfigError: nothing would be left to train on.
    """
    train = ImageSet(images.train_images, images.train_labels)
    test = ImageSet(images.test_images, images.test_labels)
    total = len(train)
    size = config.holdout_size
    held_out = round(size * total) if isinstance(size, float) else size
    if held_out >= total:
        raise ConfigError(
            f"data.holdout_size={size} leaves nothing to train on: "
            f"{config.name} has {total} training images."
        )
    if held_out == 0 and config.validation is Validation.holdout:
        raise ConfigError(
            f"data.holdout_size={size} leaves nothing to validate on: hold out some training "
            "images, or set data.validation=test."
        )
    if config.holdout_from is HoldoutFrom.last:
        train, holdout = train[: total - held_out], train[total - held_out :]
    else:
        train, holdout = train[held_out:], train[:held_out]
    validation = test if config.validation is Validation.test else holdout
    limit = slice(config.limit)
    scaling = PixelScaling.fit(config.scaling, train[limit].images)
    return Splits(train[limit], validation[limit], test[limit], images.classes, scaling)


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order of the training images in one epoch, int64 (count,) on the CPU.

    A function of the seed and the epoch alone: the same on every device and after a resume.
    """
    state = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(state[0]))
    return torch.randperm(count, generator=generator)
