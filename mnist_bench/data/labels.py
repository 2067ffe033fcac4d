"""Classes that a dataset names by numbers or by folders, and how many images each has."""

import statistics

import numpy as np
import torch
from torch import Tensor

from mnist_bench.errors import DataError

# A class with less than this share of the images that the middle one has may be a slip of the pen.
FEW = 1 / 20


def refuse_unknown(labels: np.ndarray, known: np.ndarray, found: str, hint: str) -> None:
    """Raise DataError, with what was `found` where and a hint, for a label that is not known."""
    unknown = np.setdiff1d(labels, known)
    if unknown.size:
        raise DataError(f"{found} the label {unknown[0]}, {hint}")


def describe_rare_classes(labels: Tensor, class_names: tuple[str, ...]) -> str | None:
    """Name the classes that have very few training images beside the others; None if none has.

    As in `class 10 has 1 image of 60,001`.
    """
    counts = torch.bincount(labels, minlength=len(class_names)).tolist()
    enough = FEW * statistics.median(counts)
    rare = [
        f"class {name} has {count:,} image{'s' * (count != 1)}"
        for name, count in zip(class_names, counts, strict=True)
        if count < enough
    ]
    if not rare:
        return None
    more = f" and {len(rare) - 3} other classes hardly more" * (len(rare) > 3)
    return f"{', '.join(rare[:3])} of {len(labels):,}{more}"
