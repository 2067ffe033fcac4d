"""Two settings compared on the same test images, by what predictions.npz has of each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnist_bench.analysis.collect import FoundRun
from mnist_bench.analysis.settings import Setting
from mnist_bench.analysis.statistics import (
    McNemar,
    PairedDifference,
    mcnemar,
    paired_difference,
)
from mnist_bench.errors import DataError
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.predictions import read_predictions


@dataclass(frozen=True)
class OnImages:
    """The first setting's networks less the second's, on the images; see `compare_on_images`."""

    images: int
    # Of the share of the seeds that get each image right; a fraction.
    difference: PairedDifference
    # Of the two networks, where each setting has one seed.
    mcnemar: McNemar | None

    @property
    def p_value(self) -> float | None:
        return self.mcnemar.p_value if self.mcnemar else self.difference.p_value


class RightImages:
    """Which test images runs get right; each setting's predictions are read once."""

    def __init__(self) -> None:
        self.known: dict[Setting, tuple[NDArray[np.int64], NDArray[np.float64]] | None] = {}

    def of(self, setting: Setting) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
        """Return the labels and the share of the seeds that get each image right: N each.

        None if predictions of a run are gone, damaged or of other images.
        """
        if setting not in self.known:
            self.known[setting] = _shares(setting.runs)
        return self.known[setting]


def _shares(
    runs: Sequence[FoundRun],
) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    labels_N, right = None, []
    for run in runs:
        try:
            logits_NK, own_N = read_predictions(RunFolder(run.path))
        except (OSError, DataError):
            return None
        if labels_N is None:
            labels_N = own_N
        if not np.array_equal(own_N, labels_N):
            return None
        right.append(logits_NK.argmax(1) == own_N)
    return None if labels_N is None else (labels_N, np.mean(right, 0))


def compare_on_images(first: Setting, second: Setting, right: RightImages) -> OnImages | None:
    """Compare the networks of two settings on the test images; None if they cannot be paired.

    It tells whether these very networks, all seeds at hand taken together, would differ on ever
    more images. Of other seeds it tells nothing; see `mnist_bench.analysis.statistics.mcnemar`.
    """
    one_found, other_found = right.of(first), right.of(second)
    if one_found is None or other_found is None:
        return None
    (labels_N, one), (other_labels_N, other) = one_found, other_found
    if not np.array_equal(labels_N, other_labels_N):
        return None
    single = first.n == second.n == 1
    return OnImages(
        len(labels_N),
        paired_difference(one, other),
        mcnemar(one.astype(bool), other.astype(bool)) if single else None,
    )
