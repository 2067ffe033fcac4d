"""Figures of a network's answers to labelled images. N images, K classes, B bins.

What the data cannot give, such as the precision of a class that was never predicted, is None.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]

# As Guo and others have it: On Calibration of Modern Neural Networks, ICML 2017.
BINS = 15


def confusion_matrix(labels_N: Integers, predicted_N: Integers, classes: int) -> Integers:
    """Return how many images of each class (rows) were taken for which (columns): int64 (K, K)."""
    pairs = labels_N * classes + predicted_N
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


@dataclass(frozen=True)
class ClassFigures:
    """How one class fares: shares of what was predicted as it, and of its images, that are right.

    `precision` is None where it was never predicted, `recall` where it has no images, and `f1`,
    their harmonic mean, where neither is there.
    """

    name: str
    images: int
    precision: float | None
    recall: float | None
    f1: float | None


def figures_of_classes(confusion_KK: Integers, names: tuple[str, ...]) -> list[ClassFigures]:
    """Return precision, recall and F1 of each class from a confusion matrix, truth in rows."""
    right_K = confusion_KK.diagonal()
    images_K, predicted_K = confusion_KK.sum(1), confusion_KK.sum(0)

    def share(part: int, whole: int) -> float | None:
        return float(part / whole) if whole else None

    return [
        ClassFigures(
            *(names[k], int(images_K[k])),
            precision=share(right_K[k], predicted_K[k]),
            recall=share(right_K[k], images_K[k]),
            f1=share(2 * right_K[k], images_K[k] + predicted_K[k]),
        )
        for k in range(len(names))
    ]


@dataclass(frozen=True)
class Bin:
    """The images whose confidence lies above `low` and not above `high`; None of no images."""

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """Whether a network is right as often as its probabilities say.

    `ece` is the expected calibration error: the mean over the images of the distance between a
    bin's mean confidence and its accuracy. `gap` is the mean confidence less the accuracy of all
    images: above 0 the network promises too much.
    """

    ece: float
    gap: float
    bins: list[Bin]


def calibrate(confidences_N: Floats, right_N: NDArray[np.bool_], bins: int = BINS) -> Calibration:
    """Return how well confidences, the probabilities of what was predicted, tell what is right.

    The bins are equally wide from 0 to 1.
    """
    confidences = np.asarray(confidences_N, np.float64)
    edges = np.linspace(0, 1, bins + 1)
    place_N = np.clip(np.searchsorted(edges, confidences, "left") - 1, 0, bins - 1)
    images_B = np.bincount(place_N, minlength=bins)
    confidence_B = np.bincount(place_N, confidences, bins)
    right_B = np.bincount(place_N, right_N, bins)
    found = [
        Bin(
            *(float(edges[b]), float(edges[b + 1]), int(images_B[b])),
            confidence=float(confidence_B[b] / images_B[b]) if images_B[b] else None,
            accuracy=float(right_B[b] / images_B[b]) if images_B[b] else None,
        )
        for b in range(bins)
    ]
    ece = float(np.abs(confidence_B - right_B).sum() / len(confidences))
    return Calibration(ece, float(confidences.mean() - np.mean(right_N)), found)
