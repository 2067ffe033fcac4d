"""What a run answers to its test images, as predictions.npz has it; without PyTorch.

N images, K classes.
"""

import zipfile
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mnist_bench.errors import DataError, naming
from mnist_bench.runs.folder import RunFolder, atomic_write

if TYPE_CHECKING:
    from torch import Tensor

# What reading may raise, whatever is in the file's place.
DAMAGED = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, EOFError),
    zipfile.BadZipFile,
)


def write_predictions(folder: RunFolder, logits_NK: "Tensor", labels_N: "Tensor") -> None:
    """Write the test set's logits (float32, N x K) and labels (int64, N)."""
    with atomic_write(folder.predictions, "wb") as file:
        np.savez(file, logits=logits_NK.numpy(), labels=labels_N.cpu().numpy())


def read_predictions(folder: RunFolder) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the test set's logits (float32, N x K) and labels (int64, N).

    Raises:
        FileNotFoundError: the run has not been tested.
        OSError: the file cannot be read.
        DataError: it is damaged.
    """
    path = folder.predictions
    try:
        with naming(path), np.load(path, allow_pickle=False) as saved:
            logits_NK, labels_N = saved["logits"], saved["labels"]
        if labels_N.ndim != 1 or logits_NK.ndim != 2 or len(logits_NK) != len(labels_N):
            raise ValueError(f"logits of shape {logits_NK.shape}, labels of {labels_N.shape}")
        if not logits_NK.size:
            raise ValueError("it is of no images, or of no classes")
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(
            f"{path} is damaged ({error}): train that run again, or leave it out."
        ) from error
    return logits_NK, labels_N
