"""What a dataset is, and what it yields: images and labels as tensors.

N images, H rows, W columns, C channels (1 or 3), K classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from mnist_bench.errors import DataError

Announce = Callable[[str], None]
PARTS = ("train", "validation", "test")


@dataclass
class Images:
    """A whole dataset in memory.

    Images are uint8 (N, H, W) or (N, H, W, C), upright, of one size and one number of channels in
    all parts; labels are int64 (N,), 0..K-1; `class_names` has K names. Where there are images to
    validate on, no training images are held out.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    validation_images: Tensor | None = None
    validation_labels: Tensor | None = None
    # What the images to test on are called, such as their files, if they have names.
    test_names: tuple[str, ...] = ()

    def to(self, device: torch.device) -> "Images":
        tensors: dict[str, Any] = {
            entry.name: value.to(device)
            for entry in fields(self)
            if isinstance(value := getattr(self, entry.name), Tensor)
        }
        return replace(self, **tensors)


class Dataset(ABC):
    """A source of images. One of your own derives from it, and a file in `conf/data` names it.

    It is called with the keys of that file, but for those that all datasets have.
    """

    @property
    def source(self) -> str:
        """What errors call it: the path of its files, say."""
        return f"{type(self).__module__}.{type(self).__qualname__}"

    @abstractmethod
    def load(self, announce: Announce) -> Images:
        """Read everything, and tell `announce` about each step in one line.

        Raises DataError, in a sentence, if the files are not what they should be.
        """

    def expect_size(self, rows: int, columns: int) -> None:  # noqa: B027 - most need not listen
        """Hear, before `load`, what size images will be brought to.

        Only a dataset whose images differ in size has to bring them there itself.
        """


def check_images(images: object, source: str) -> Images:
    """Return what a dataset has yielded if it is as `Images` says.

    Raises DataError, with the name of the `source`, if anything is not.
    """
    if not isinstance(images, Images):
        raise DataError(
            f"{source}.load gave {type(images).__name__}, expected mnist_bench.data.Images."
        )
    names = images.class_names
    if not (isinstance(names, tuple) and all(type(name) is str for name in names)):
        raise DataError(f"{source} has class_names={names!r}, expected a tuple of str.")
    if len(names) < 2:
        raise DataError(
            f"{source} has images of {len(names)} class{'es' * (len(names) != 1)}, "
            f"{', '.join(names)}: a classifier needs two or more."
        )
    seen = {}
    for part in PARTS:
        pixels, labels = getattr(images, f"{part}_images"), getattr(images, f"{part}_labels")
        if part == "validation" and pixels is None and labels is None:
            continue
        _check_pixels(pixels, f"{source} has {part}_images")
        _check_labels(labels, len(pixels), len(names), f"{source} has {part}_labels")
        seen[part] = tuple(pixels.shape[1:])
    for part, shape in seen.items():
        if shape != seen["train"]:
            raise DataError(
                f"{source} has images of {describe_shape(shape)} to {part} on, unlike those of "
                f"{describe_shape(seen['train'])} to train on: all must have one size and as many "
                "channels."
            )
    return images


def _check_pixels(pixels: object, found: str) -> None:
    expected = "expected a tensor of torch.uint8, (N, H, W) or (N, H, W, C) with 1 or 3 channels."
    if not isinstance(pixels, Tensor):
        raise DataError(f"{found} of {type(pixels).__name__}, {expected}")
    grey, coloured = pixels.ndim == 3, pixels.ndim == 4 and pixels.shape[3] in (1, 3)
    if pixels.dtype != torch.uint8 or not (grey or coloured):
        raise DataError(f"{found} of {pixels.dtype} and shape {tuple(pixels.shape)}, {expected}")
    if pixels.numel() == 0:
        raise DataError(f"{found} of shape {tuple(pixels.shape)}: there must be some.")


def _check_labels(labels: object, count: int, classes: int, found: str) -> None:
    expected = f"expected a tensor of torch.int64, one for each of the {count:,} images."
    if not isinstance(labels, Tensor):
        raise DataError(f"{found} of {type(labels).__name__}, {expected}")
    if labels.dtype != torch.int64 or labels.shape != (count,):
        raise DataError(f"{found} of {labels.dtype} and shape {tuple(labels.shape)}, {expected}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"{found} from {low} to {high}, expected 0 to {classes - 1}, as there are "
            f"{classes} class_names."
        )


def describe_shape(shape: tuple[int, ...]) -> str:
    """(H, W) or (H, W, C) as in `32 x 28`, or `32 x 28 in 3 channels`."""
    rows, columns, *channels = shape
    return f"{rows} x {columns}" + (f" in {channels[0]} channels" if channels else "")
