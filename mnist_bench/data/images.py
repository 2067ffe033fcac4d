"""A dataset's images and labels as tensors.

Dimensions: N images, H rows, W columns, K classes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mnist_bench.data.datasets import IMAGE_SHAPE, DataFile, Dataset
from mnist_bench.data.idx import read_idx
from mnist_bench.errors import DataError


@dataclass
class Images:
    """A whole dataset in memory.

    Images are uint8 (N, H, W), upright; labels are int64 (N,), 0..K-1; `classes` is K.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int

    def to(self, device: torch.device) -> "Images":
        return Images(
            self.train_images.to(device),
            self.train_labels.to(device),
            self.test_images.to(device),
            self.test_labels.to(device),
            self.classes,
        )


def load_images(dataset: Dataset, root: Path) -> Images:
    """Read the four files of a dataset that `ensure_files` has put under `root`.

    The labels found in the training data, sorted, become 0..K-1: EMNIST's letters are published as
    1..26. Raises DataError if a file is not what it should be, if images and labels do not match in
    number, or if the test data has a label that the training data lacks.
    """
    folder = dataset.raw_folder(root)
    train_images = _read_images(dataset, folder / dataset.train_images.name)
    train_labels = _read_labels(dataset, folder, dataset.train_labels, len(train_images))
    test_images = _read_images(dataset, folder / dataset.test_images.name)
    test_labels = _read_labels(dataset, folder, dataset.test_labels, len(test_images))

    first, end = dataset.test_rows
    test_images, test_labels = test_images[first:end], test_labels[first:end]
    if len(train_images) == 0 or len(test_images) == 0:
        raise DataError(
            f"{folder} has {len(train_images)} images to train on and {len(test_images)} to test "
            f"on for data.split={dataset.split}: there must be some of both."
        )

    published = np.unique(train_labels)
    unknown = np.setdiff1d(test_labels, published)
    if unknown.size:
        raise DataError(
            f"{folder / dataset.test_labels.name} has the label {unknown[0]}, "
            f"which {dataset.train_labels.name} does not have."
        )
    return Images(
        train_images,
        torch.from_numpy(np.searchsorted(published, train_labels)),
        test_images,
        torch.from_numpy(np.searchsorted(published, test_labels)),
        classes=len(published),
    )


def _read_images(dataset: Dataset, path: Path) -> Tensor:
    array = read_idx(path)
    if array.dtype != np.uint8 or array.shape[1:] != IMAGE_SHAPE:
        raise DataError(f"{path} holds {array.shape} of {array.dtype}, expected images, N×28×28.")
    images = torch.from_numpy(array)
    return images.mT.contiguous() if dataset.transposed else images


def _read_labels(dataset: Dataset, folder: Path, file: DataFile, count: int) -> np.ndarray:
    array = read_idx(folder / file.name)
    if array.ndim != (2 if dataset.wide_labels else 1) or len(array) != count:
        raise DataError(
            f"{folder / file.name} holds {array.shape} of {array.dtype}, "
            f"expected labels for the {count} images beside it."
        )
    return array[:, 0] if dataset.wide_labels else array
