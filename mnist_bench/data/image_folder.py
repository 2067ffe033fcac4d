"""Images of one's own: a file for each, in the folder of its class."""

import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mnist_bench.data.images import Announce, Dataset, Images, describe_shape
from mnist_bench.data.loading import resize
from mnist_bench.errors import ConfigError, DataError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
VALIDATION_FOLDERS = ("validation", "val", "valid")
# What Pillow calls them: grey, and in colour.
GREY_MODES = {"1", "L", "LA"}
COLOUR_MODES = {"P", "PA", "RGB", "RGBA"}
# Files that a thread reads one after the other: few enough to spread, enough to be worth the call.
FILES_AT_ONCE = 100
# How often the reading of many files says how far it is.
PROGRESS_SECONDS = 10.0

Size = tuple[int, int]  # rows, columns


@dataclass(frozen=True)
class ImageFile:
    path: Path
    class_name: str

    def place(self, seed: int) -> bytes:
        """Where it stands in the order that a seed draws, on any machine."""
        name = f"{seed}/{self.class_name}/{self.path.name}"
        return hashlib.sha256(os.fsencode(name)).digest()


class ImageFolder(Dataset):
    """Files in `root/train/CLASS` and `root/test/CLASS`, or in `root/CLASS` alone.

    Without a folder `test`, `test_fraction` of each class is set aside to test on. Images in a
    folder `validation`, `val` or `valid` are those to validate on. Classes are the folders' names,
    sorted; hidden files are passed over. Which images are set aside, and the order of all, follow
    from `seed` and the names of the files, so that a part of the images has some of every class.

    Raises ConfigError if `test_fraction` is no fraction.
    """

    def __init__(self, root: str, test_fraction: float | None = None, seed: int = 0):
        if test_fraction is not None and not 0 < test_fraction < 1:
            raise ConfigError(
                f"data.test_fraction={test_fraction} is not allowed: it must be a number between 0 "
                "and 1, or null."
            )
        self.root, self.test_fraction, self.seed = Path(root).expanduser(), test_fraction, seed
        self.size: Size | None = None

    def expect_size(self, rows: int, columns: int) -> None:
        """Bring every image to this size as it is read."""
        self.size = rows, columns

    @property
    def source(self) -> str:
        return str(self.root)

    def load(self, announce: Announce) -> Images:
        """Read every file.

        Raises DataError, with the name of the file or folder, if there are no images, a class is
        empty or unknown in training, a file is no image of eight bits a channel, has transparent
        pixels or several frames, or sizes differ and none has been asked for.
        """
        parts = self._find_parts()
        names = sorted({file.class_name for file in parts["train"]})
        for part, files in parts.items():
            files.sort(key=lambda file: file.place(self.seed))
            for file in files:
                if file.class_name not in names:
                    raise DataError(
                        f"{file.path.parent} is a class to {part} on, and there are no images of "
                        "it to train on."
                    )
        paths = [file.path for files in parts.values() for file in files]
        counts = [len(files) for files in parts.values()]
        pixels = read_images(paths, self.size, announce)
        announce(
            f"{self.root}: {' + '.join(f'{len(v):,} to {k}' for k, v in parts.items())} on, of "
            f"{describe_shape(tuple(pixels.shape[1:]))}, in {len(names)} classes"
        )
        numbers = {name: number for number, name in enumerate(names)}
        loaded: dict[str, Any] = {}
        for (part, files), images in zip(parts.items(), pixels.split(counts), strict=True):
            loaded[f"{part}_images"] = images
            loaded[f"{part}_labels"] = torch.tensor([numbers[file.class_name] for file in files])
        tested = tuple(str(file.path) for file in parts["test"])
        return Images(**loaded, class_names=tuple(names), test_names=tested)

    def _find_parts(self) -> dict[str, list[ImageFile]]:
        """The files to train on, to validate on, if there are any, and to test on."""
        if not self.root.is_dir():
            raise DataError(f"data.root={self.root} is not a folder: give one with images in it.")
        inside = {entry.name for entry in _visible(self.root) if entry.is_dir()}
        if "train" not in inside:
            if "test" in inside:
                raise DataError(f"{self.root} has a folder test and no train: make one.")
            train, validation, test = self.root, None, None
        else:
            train, test = self.root / "train", self.root / "test" if "test" in inside else None
            named = [self.root / name for name in VALIDATION_FOLDERS if name in inside]
            if len(named) > 1:
                raise DataError(f"{named[0]} and {named[1]} are both there: leave one of them.")
            validation = named[0] if named else None
        parts = {"train": find_files(train)}
        if validation is not None:
            parts["validation"] = find_files(validation)
        if test is not None:
            if self.test_fraction is not None:
                raise ConfigError(
                    f"data.test_fraction={self.test_fraction} is not possible: {self.root} has a "
                    "folder test; leave it null."
                )
            parts["test"] = find_files(test)
        elif self.test_fraction is None:
            raise ConfigError(
                f"{self.root} has no folder test: set data.test_fraction, such as "
                "data.test_fraction=0.2, to test on a part of each class."
            )
        else:
            parts["train"], parts["test"] = self._divide(parts["train"], self.test_fraction)
        return parts

    def _divide(
        self, files: Sequence[ImageFile], fraction: float
    ) -> tuple[list[ImageFile], list[ImageFile]]:
        """Some of each class to train on, and some to test on."""
        train: list[ImageFile] = []
        test: list[ImageFile] = []
        for _, group in groupby(files, key=lambda file: file.class_name):
            of_class = sorted(group, key=lambda file: file.place(self.seed))
            if len(of_class) < 2:
                raise DataError(
                    f"{of_class[0].path} is the only image of its class: two are needed, to train "
                    "and to test on."
                )
            count = min(max(round(fraction * len(of_class)), 1), len(of_class) - 1)
            test += of_class[:count]
            train += of_class[count:]
        return train, test


# --- Finding files ----------------------------------------------------------------------------


def find_files(folder: Path) -> list[ImageFile]:
    """The files of all classes in a folder of such folders.

    Raises DataError if there is no class, an empty one, or anything but a file in one.
    """
    classes = []
    for entry in _visible(folder):
        if entry.is_dir():
            classes.append(entry)
        elif Path(entry.name).suffix.lower() in SUFFIXES:
            raise DataError(f"{entry.path} lies in no class: move it to a folder of its class.")
    if not classes:
        raise DataError(f"{folder} has no folders in it: put images into one for each class.")
    files = []
    for entry in classes:
        of_class = _visible(Path(entry.path))
        if not of_class:
            raise DataError(f"{entry.path} has no images: put some in, or remove the folder.")
        for file in of_class:
            if not file.is_file():
                raise DataError(f"{file.path} is not a file: only images may lie there.")
            files.append(ImageFile(Path(file.path), entry.name))
    return files


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted, but for hidden files."""
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror or error}.") from error
    return sorted(shown, key=lambda entry: entry.name)


# --- Reading them -----------------------------------------------------------------------------


def read_images(paths: Sequence[Path], size: Size | None, announce: Announce) -> Tensor:
    """Read files as uint8 (N, H, W), or (N, H, W, 3) if one of them is in colour.

    Each is brought to a size, or all must have the first one's. Raises DataError otherwise, and as
    `read_image` does.
    """
    pixels: np.ndarray | None = None
    said = time.monotonic()
    chunks = [paths[n : n + FILES_AT_ONCE] for n in range(0, len(paths), FILES_AT_ONCE)]
    with ThreadPoolExecutor() as pool:
        read = pool.map(lambda chunk: [read_image(path, size) for path in chunk], chunks)
        for n, image in enumerate(chain.from_iterable(read)):
            if pixels is None:
                pixels = np.empty((len(paths), *image.shape), np.uint8)
            if image.shape[:2] != pixels.shape[1:3]:
                raise DataError(
                    f"{paths[n]} is {describe_shape(image.shape[:2])}, unlike {paths[0]} of "
                    f"{describe_shape(pixels.shape[1:3])}: set data.image_size to bring all to one "
                    "size."
                )
            if image.ndim > pixels.ndim - 1:  # the first one in colour
                pixels = np.repeat(pixels[..., None], 3, axis=3)
            pixels[n] = image if image.ndim == pixels.ndim - 1 else image[..., None]
            if time.monotonic() - said > PROGRESS_SECONDS:
                said = time.monotonic()
                announce(f"{n + 1:,} of {len(paths):,} images read")
    assert pixels is not None
    return torch.from_numpy(pixels)


def read_image(path: Path, size: Size | None = None) -> np.ndarray:
    """Read one file as uint8 (H, W) or (H, W, 3), of a size if one is given.

    Raises DataError, with its name, if it cannot be read, or not without loss.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            return _to_pixels(image, path, size)
    except DataError:
        raise
    except Exception as error:  # a damaged file may raise anything that its decoder meets
        raise DataError(
            f"{path} cannot be read as an image ({str(error) or type(error).__name__}): remove it, "
            f"or give it as one of {', '.join(FORMATS)}."
        ) from error


def _to_pixels(image: Image.Image, path: Path, size: Size | None) -> np.ndarray:
    if getattr(image, "is_animated", False):
        raise DataError(f"{path} holds several images: leave one in it.")
    if image.mode not in GREY_MODES | COLOUR_MODES:
        raise DataError(
            f"{path} is of Pillow's mode {image.mode}: save it with eight bits a pixel, grey or "
            "RGB."
        )
    if image.has_transparency_data:
        opaque, _ = image.convert("RGBA").getchannel("A").getextrema()
        if opaque != 255:
            raise DataError(f"{path} has transparent pixels: save it on the ground it should have.")
    array = np.array(image.convert("L" if image.mode in GREY_MODES else "RGB"))
    if size is not None and array.shape[:2] != size:
        array = resize(torch.from_numpy(array)[None], size)[0].numpy()
    return array
