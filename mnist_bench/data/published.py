"""The published datasets of IDX files, from the file to tensors."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mnist_bench.data.datasets import DataFile, IdxDataset, find_dataset
from mnist_bench.data.fetch import ensure_files
from mnist_bench.data.idx import locate, read_idx
from mnist_bench.data.images import Announce, Dataset, Images
from mnist_bench.data.labels import refuse_unknown
from mnist_bench.errors import DataError


class Published(Dataset):
    """One of the table, by `data.name` and `data.split`, with its files under `root`.

    Raises ConfigError for a name or split that is not in the table.
    """

    def __init__(self, name: str, split: str | None, root: Path):
        self.dataset, self.root = find_dataset(name, split), root

    def load(self, announce: Announce) -> Images:
        """Fetch the files if they are not there, verify and read them."""
        ensure_files(self.dataset, self.root, announce)
        return load_images(self.dataset, self.root)


def load_images(dataset: IdxDataset, root: Path) -> Images:
    """Read the four files of a dataset that `ensure_files` has put under `root`.

    Labels become 0..K-1: EMNIST's letters are published as 1..26. Raises DataError if a file is not
    what it should be, if images and labels do not match in number, or if there is a label that the
    dataset does not have, or one to test on that the training data lacks.
    """
    folder = dataset.raw_folder(root)
    train_images = _read_images(dataset, folder, dataset.train_images)
    train_labels = _read_labels(dataset, folder, dataset.train_labels, len(train_images))
    test_images = _read_images(dataset, folder, dataset.test_images)
    test_labels = _read_labels(dataset, folder, dataset.test_labels, len(test_images))

    first, end = dataset.test_rows
    test_images, test_labels = test_images[first:end], test_labels[first:end]
    if len(train_images) == 0 or len(test_images) == 0:
        raise DataError(
            f"{folder} has {len(train_images)} images to train on and {len(test_images)} to test "
            f"on for data.split={dataset.split}: there must be some of both."
        )

    numbers = np.arange(len(dataset.class_names)) + dataset.first_label
    train_file, test_file = (folder / file.name for _, file in dataset.pairs)
    known = f"and {dataset.name} has only {numbers[0]} to {numbers[-1]}."
    refuse_unknown(train_labels, numbers, f"{train_file} has", known)
    hint = f"which {train_file.name} does not have."
    refuse_unknown(test_labels, train_labels, f"{test_file} has", hint)
    return Images(
        train_images,
        torch.from_numpy(train_labels.astype(np.int64) - dataset.first_label),
        test_images,
        torch.from_numpy(test_labels.astype(np.int64) - dataset.first_label),
        class_names=dataset.class_names,
    )


def _read_images(dataset: IdxDataset, folder: Path, file: DataFile) -> Tensor:
    path = locate(folder / file.name)
    array = read_idx(path)
    if array.dtype != np.uint8 or array.shape[1:] != dataset.image_shape:
        expected = "×".join(map(str, dataset.image_shape))
        raise DataError(
            f"{path} holds {array.shape} of {array.dtype}, expected images, N×{expected}."
        )
    images = torch.from_numpy(array)
    return images.mT.contiguous() if dataset.transposed else images


def _read_labels(dataset: IdxDataset, folder: Path, file: DataFile, count: int) -> np.ndarray:
    path = locate(folder / file.name)
    array = read_idx(path)
    if array.ndim != (2 if dataset.wide_labels else 1) or len(array) != count:
        raise DataError(
            f"{path} holds {array.shape} of {array.dtype}, "
            f"expected labels for the {count} images beside it."
        )
    return array[:, 0] if dataset.wide_labels else array
