"""Which images train, validate and test, and how pixels become the network's input.

N images, C channels (1 or 3), H rows, W columns. Images stay uint8, whole, on the training device.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from mnist_bench.config.schema import DataConfig, HoldoutFrom, Scaling, Validation
from mnist_bench.data.images import Images
from mnist_bench.errors import ConfigError


@dataclass(frozen=True)
class ImageSet:
    """Images, uint8 (N, C, H, W), and their labels, int64 (N,), on one device."""

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
    """Turns pixels from 0 to 255 into the network's input: (pixel - offset) / divisor.

    There is one offset and one divisor for all channels, or a tuple of one for each.
    """

    offset: float | tuple[float, ...]
    divisor: float | tuple[float, ...]

    @classmethod
    def fit(cls, scaling: Scaling, train_images_NCHW: Tensor) -> Self:
        """The scaling that the configuration names, with statistics of the training images only."""
        match scaling:
            case Scaling.raw:
                return cls(0.0, 1.0)
            case Scaling.unit:
                return cls(0.0, 255.0)
            case Scaling.standardised:
                statistics = [_mean_and_deviation(c) for c in train_images_NCHW.unbind(1)]
                if len(statistics) == 1:
                    return cls(*statistics[0])
                means, deviations = zip(*statistics, strict=True)
                return cls(means, deviations)

    def __call__(self, images_NCHW: Tensor) -> Tensor:
        """uint8 or float32 (N, C, H, W) to float32 of the same shape."""
        pixels_NCHW = images_NCHW.float()
        if isinstance(self.offset, tuple) and isinstance(self.divisor, tuple):
            for channel in zip(pixels_NCHW.unbind(1), self.offset, self.divisor, strict=True):
                _scale(*channel)
        else:
            assert not isinstance(self.offset, tuple) and not isinstance(self.divisor, tuple)
            _scale(pixels_NCHW, self.offset, self.divisor)
        return pixels_NCHW


def _scale(pixels: Tensor, offset: float, divisor: float) -> None:
    """In place. By numbers rather than tensors, which a CUDA graph would have to find in memory."""
    if offset:
        pixels -= offset
    if divisor != 1:
        pixels.div_(divisor)


def _mean_and_deviation(pixels_NHW: Tensor) -> tuple[float, float]:
    """Of pixels that are all the same, a deviation of 1, which can be divided by."""
    counts = torch.bincount(pixels_NHW.flatten(), minlength=256).double()
    values = torch.arange(256, dtype=torch.float64, device=counts.device)
    mean = counts @ values / counts.sum()
    variance = counts @ (values - mean) ** 2 / counts.sum()
    return mean.item(), variance.sqrt().item() or 1.0


@dataclass(frozen=True)
class Splits:
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    scaling: PixelScaling

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """C, H and W of every image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def to(self, device: torch.device) -> "Splits":
        return replace(
            self,
            train=self.train.to(device),
            validation=self.validation.to(device),
            test=self.test.to(device),
        )


def split_images(images: Images, config: DataConfig) -> Splits:
    """Set the validation images aside as configured, then apply the limit to each part.

    A dataset that has images to validate on keeps all of its training images.

    Raises:
        ConfigError: nothing would be left to train on.
    """
    train = _image_set(images.train_images, images.train_labels)
    test = select_test(images, config)
    if images.validation_images is not None and images.validation_labels is not None:
        validation = _image_set(images.validation_images, images.validation_labels)
    else:
        train, validation = _hold_out(train, config)
    if config.validation is Validation.test:
        validation = test
    limit = slice(config.limit)
    scaling = PixelScaling.fit(config.scaling, train[limit].images)
    return Splits(train[limit], validation[limit], test, images.class_names, scaling)


def select_test(images: Images, config: DataConfig) -> ImageSet:
    """Return the images to test on, as `split_images` does, without any to train on."""
    return _image_set(images.test_images, images.test_labels)[slice(config.limit)]


def _image_set(pixels: Tensor, labels: Tensor) -> ImageSet:
    """Of uint8 (N, H, W) or (N, H, W, C); grey images are not copied."""
    if pixels.ndim == 4 and pixels.shape[3] == 1:
        pixels = pixels[..., 0]
    grey = pixels.ndim == 3
    return ImageSet(
        pixels.unsqueeze(1) if grey else pixels.permute(0, 3, 1, 2).contiguous(), labels
    )


def _hold_out(train: ImageSet, config: DataConfig) -> tuple[ImageSet, ImageSet]:
    """Divide the training images into those that train and those that are set aside."""
    total, size = len(train), config.holdout_size
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
    last = config.holdout_from is HoldoutFrom.last
    if config.stratified:
        chosen_N = of_each_class(train.labels, held_out, last)
        return train[(~chosen_N).nonzero().flatten()], train[chosen_N.nonzero().flatten()]
    if last:
        return train[: total - held_out], train[total - held_out :]
    return train[held_out:], train[:held_out]


def of_each_class(labels_N: Tensor, count: int, last: bool) -> Tensor:
    """Choose so many of N images, the last or first of each class in proportion: bool (N,).

    Where proportions are broken, the classes with the largest remainders get one more.
    """
    sizes_K = torch.bincount(labels_N)
    shares_K = sizes_K * count // len(labels_N)
    remainders_K = sizes_K * count % len(labels_N)
    most_K = remainders_K.argsort(descending=True, stable=True)
    shares_K[most_K[: count - int(shares_K.sum())]] += 1
    chosen_N = torch.zeros_like(labels_N, dtype=torch.bool)
    for label, share in enumerate(shares_K.tolist()):
        places = (labels_N == label).nonzero().flatten()
        chosen_N[places[len(places) - share :] if last else places[:share]] = True
    return chosen_N


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order of the training images in one epoch, int64 (count,) on the CPU.

    A function of the seed and the epoch alone: the same on every device and after a resume.
    """
    state = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    generator = torch.Generator().manual_seed(int(state[0]))
    return torch.randperm(count, generator=generator)
