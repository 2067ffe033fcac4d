"""From a dataset to images as the configuration wants them.

N images, H rows, W columns, C channels.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mnist_bench.data.images import Announce, Dataset, Images, check_images, describe_shape
from mnist_bench.data.labels import describe_rare_classes

# ITU-R 601-2, in parts of 65,536 and rounded as Pillow does.
LUMA = (19595, 38470, 7471)
# Values in memory at once, as four bytes each, while images are changed.
VALUES_AT_ONCE = 1 << 24


def load(
    dataset: Dataset,
    announce: Announce,
    image_size: tuple[int, int] | None = None,
    grey: bool = False,
) -> Images:
    """Load and check a dataset, make it grey and bring it to a size (rows, columns), if wanted.

    Tells `announce` of classes that have very few images. Raises DataError if the dataset yields
    what it should not, or as its `load` does.
    """
    if image_size is not None:
        dataset.expect_size(*image_size)
    images = check_images(dataset.load(announce), dataset.source)
    rare = describe_rare_classes(images.train_labels, images.class_names)
    if rare is not None:
        announce(f"Of the images to train on, {rare}.")
    if images.validation_images is not None:
        announce(
            f"The dataset has {len(images.validation_images):,} images to validate on: no training "
            "images are held out."
        )
    if grey:
        images = _change(images, to_grey)
    found = tuple(images.train_images.shape[1:3])
    if image_size is not None and found != image_size:
        announce(f"Images of {describe_shape(found)} become {describe_shape(image_size)}.")
        images = _change(images, partial(resize, size=image_size))
    return images


def _change(images: Images, function: Callable[[Tensor], Tensor]) -> Images:
    validation = images.validation_images
    return replace(
        images,
        train_images=function(images.train_images),
        test_images=function(images.test_images),
        validation_images=None if validation is None else function(validation),
    )


def to_grey(images: Tensor) -> Tensor:
    """Take the luma of uint8 (N, H, W, 3) as Pillow does, (N, H, W); grey ones stay as they are."""
    if images.ndim == 3 or images.shape[3] == 1:
        return images

    def luma(part_NHWC: Tensor) -> Tensor:
        red, green, blue = (w * c for w, c in zip(LUMA, part_NHWC.int().unbind(3), strict=True))
        return (red + green + blue + (1 << 15) >> 16).byte()

    return _in_parts(images, luma)


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring uint8 (N, H, W) or (N, H, W, C) to other H and W, bilinearly, without aliasing."""

    def interpolate(part: Tensor) -> Tensor:
        maps_NCHW = (part.unsqueeze(1) if part.ndim == 3 else part.permute(0, 3, 1, 2)).float()
        maps_NCHW = F.interpolate(maps_NCHW, size, mode="bilinear", antialias=True)
        pixels_NCHW = maps_NCHW.round_().clamp_(0, 255).byte()
        return pixels_NCHW[:, 0] if part.ndim == 3 else pixels_NCHW.permute(0, 2, 3, 1)

    return _in_parts(images, interpolate)


def _in_parts(images: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    count = max(1, VALUES_AT_ONCE // images[0].numel())
    return torch.cat([function(part) for part in images.split(count)])
