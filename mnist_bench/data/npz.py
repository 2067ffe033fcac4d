"""Images in one NumPy file, named as Keras's mnist.npz or MedMNIST's files name theirs."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mnist_bench.data.images import Announce, Dataset, Images, describe_shape
from mnist_bench.data.labels import refuse_unknown
from mnist_bench.errors import DataError

# Images and labels of each part; MedMNIST's has one to validate on.
KERAS = {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}
MEDMNIST = {part: (f"{part}_images", f"{part}_labels") for part in ("train", "val", "test")}


class Npz(Dataset):
    """An .npz file of images, (N, H, W) or (N, H, W, 3), and labels, (N,) or (N, 1).

    Labels may be any whole numbers; sorted, those of the training images become 0..K-1, and are
    what the classes are called. Nothing is ever unpickled.
    """

    def __init__(self, path: str):
        self.path = Path(path).expanduser()

    @property
    def source(self) -> str:
        return str(self.path)

    def load(self, announce: Announce) -> Images:
        """Read the file.

        Raises DataError, with the name of the array, for one that is missing or not as it has to
        be: images of another type than whole numbers from 0 to 255, several labels for one image,
        a label that no training image has.
        """
        arrays = self._read()
        pixels = {part: self._pixels(images, arrays) for part, (images, _) in self._names(arrays)}
        labels = {part: self._labels(labels, arrays) for part, (_, labels) in self._names(arrays)}
        known = np.unique(labels["train"])
        for part, (_, name) in self._names(arrays):
            hint = "which none of the training images has."
            refuse_unknown(labels[part], known, f"{self.path}'s {name} has", hint)
        numbers = {k: torch.from_numpy(np.searchsorted(known, v)) for k, v in labels.items()}
        counts = " + ".join(f"{len(part):,} to {name}" for name, part in numbers.items())
        size = describe_shape(tuple(pixels["train"].shape[1:]))
        announce(f"{self.path}: {counts}, of {size}, in {len(known)} classes")
        return Images(
            *(pixels["train"], numbers["train"], pixels["test"], numbers["test"]),
            class_names=tuple(str(label) for label in known),
            validation_images=pixels.get("val"),
            validation_labels=numbers.get("val"),
        )

    def _read(self) -> dict[str, np.ndarray]:
        """All arrays of the file by name."""
        try:
            if not self.path.is_file():
                raise DataError(f"data.path={self.path} is not a file: give an .npz file.")
            archive = np.load(self.path, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise DataError(f"{self.path} holds a single array: give an .npz file.")
            with archive:
                return {name: archive[name] for name in archive}
        except (
            OSError,
            MemoryError,
            ValueError,
            EOFError,
            zlib.error,
            zipfile.BadZipFile,
        ) as error:
            raise DataError(f"{self.path} cannot be read as an .npz file: {error}.") from error

    def _names(self, arrays: Mapping[str, np.ndarray]) -> list[tuple[str, tuple[str, str]]]:
        """The parts that the file has, each with the names of its images and its labels."""
        wanted = (
            KERAS if any(name in arrays for pair in KERAS.values() for name in pair) else MEDMNIST
        )
        parts = {k: v for k, v in wanted.items() if k != "val" or any(name in arrays for name in v)}
        missing = [name for pair in parts.values() for name in pair if name not in arrays]
        if missing:
            raise DataError(
                f"{self.path} has no {missing[0]}, only {', '.join(arrays) or 'nothing'}: name the "
                f"arrays {', '.join(name for pair in parts.values() for name in pair)}."
            )
        return list(parts.items())

    def _pixels(self, name: str, arrays: Mapping[str, np.ndarray]) -> Tensor:
        array = arrays[name]
        found = f"{self.path}'s {name} is {array.shape} of {array.dtype}"
        if not (array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (1, 3))):
            raise DataError(f"{found}, expected images, (N, H, W) or (N, H, W, 3).")
        whole = array.dtype.kind in "iu"
        if not whole or (array.size and not 0 <= array.min() <= array.max() <= 255):
            raise DataError(
                f"{found}, and pixels are whole numbers from 0 to 255: save images of 0 to 1, say, "
                "as (255 * images).round().astype('uint8')."
            )
        return torch.from_numpy(array.astype(np.uint8, copy=False))

    def _labels(self, name: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        array = arrays[name]
        found = f"{self.path}'s {name} is {array.shape} of {array.dtype}"
        if array.ndim == 2 and array.shape[1] > 1:
            raise DataError(
                f"{found}, {array.shape[1]} labels for an image: each must be of one class; save "
                "labels that are one-hot as labels.argmax(1)."
            )
        if array.dtype.kind not in "iu" or array.ndim not in (1, 2):
            raise DataError(f"{found}, expected whole numbers, (N,) or (N, 1).")
        return array.reshape(-1)
