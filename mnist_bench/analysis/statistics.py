"""What a few training runs allow one to say: intervals, paired tests and their correction.

Two kinds of chance are at work, and each function answers for one of them. Repeating a run with
another seed gives another accuracy (`describe`, `paired_difference` over seeds); another test set
of as many images would too (`mcnemar`, `paired_difference` over images).

A figure that the data cannot give is None, never NaN. NaN or infinity in the input is a ValueError:
a run that diverged is to be counted and named, it has no place in a mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

# Accuracies that differ by the same number of images do not give exactly the same differences in
# float64. A spread below this part of the largest value is rounding and counts as none; one image
# in a million is a million times more.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`, both included, in the units of the values."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Sample:
    """A handful of independent values, all in the values' units; see `describe`."""

    n: int
    mean: float
    # The standard deviation of single values, divided by n - 1; None if n is 1.
    std: float | None
    # Where the mean over all seeds lies, and where one more value will; None without a spread.
    mean_interval: Interval | None
    prediction_interval: Interval | None


@dataclass(frozen=True)
class PairedDifference:
    """The mean of first minus second over n pairs; see `paired_difference`."""

    n: int
    mean: float
    # None without a spread.
    interval: Interval | None
    p_value: float | None


@dataclass(frozen=True)
class Difference:
    """The mean of a first sample minus that of a second; see `welch`."""

    mean: float
    # None without a spread.
    interval: Interval | None
    p_value: float | None


@dataclass(frozen=True)
class McNemar:
    """How many images only one of two networks gets right; see `mcnemar`."""

    only_a: int
    only_b: int
    p_value: float


def describe(values: ArrayLike, *, confidence: float = 0.95) -> Sample:
    """Mean and standard deviation s of n values, and what they say of further ones.

    With t the quantile of Student's distribution with n - 1 degrees of freedom:

        mean_interval        mean ± t s sqrt(1/n)      the mean of ever more runs
        prediction_interval  mean ± t s sqrt(1 + 1/n)  the value of one more run

    A single figure, such as a published accuracy, is to be held against the second. Both take the
    values for independent and normally distributed (Student, Biometrika 6, 1908; Hahn and Meeker,
    Statistical Intervals, 1991, chapter 4).

    With one value there is no s. Values that are all equal have s = 0 and no intervals either: on a
    test set of 10,000 accuracies fall on a grid, and a few equal ones do not make the next certain.

    Raises ValueError unless `values` is one-dimensional, finite and not empty, and `confidence`
    lies between 0 and 1.
    """
    numbers = _finite_numbers(values)
    _check_confidence(confidence)
    n, mean = len(numbers), float(numbers.mean())
    if n == 1:
        return Sample(n, mean, None, None, None)
    if np.ptp(numbers) <= ROUNDING * np.abs(numbers).max():
        return Sample(n, mean, 0.0, None, None)
    std = float(numbers.std(ddof=1))
    t = float(stats.t.ppf((1 + confidence) / 2, n - 1))
    mean_reach = t * std * math.sqrt(1 / n)
    prediction_reach = t * std * math.sqrt(1 + 1 / n)
    return Sample(
        n,
        mean,
        std,
        Interval(mean - mean_reach, mean + mean_reach),
        Interval(mean - prediction_reach, mean + prediction_reach),
    )


def paired_difference(a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95) -> PairedDifference:
    """The mean of d = a - b over n pairs, its interval, and the p value of the paired t-test.

    t = mean(d) / (s / sqrt(n)), two-sided, n - 1 degrees of freedom (Student, 1908). The p value is
    below 1 - `confidence` exactly if the interval leaves out 0.

    Pairs are two recipes' accuracies with the same seed: the answer is then for ever more seeds on
    this very test set. Or pairs are test images, as `mcnemar` explains.

    One pair has a difference but neither interval nor p value. Nor have differences that are all
    equal (to within rounding), zero or not: where nothing varies, a t-test would give 0/0 or p = 0.

    Raises ValueError unless `a` and `b` are one-dimensional, finite, of the same length and not
    empty, and `confidence` lies between 0 and 1.
    """
    numbers_a, numbers_b = _finite_numbers(a), _finite_numbers(b)
    _check_same_length(len(numbers_a), len(numbers_b))
    differences = numbers_a - numbers_b
    sample = describe(differences, confidence=confidence)
    largest = max(np.abs(numbers_a).max(), np.abs(numbers_b).max())
    if not sample.std or np.ptp(differences) <= ROUNDING * largest:
        return PairedDifference(sample.n, sample.mean, None, None)
    t = sample.mean / (sample.std / math.sqrt(sample.n))
    p_value = float(2 * stats.t.sf(abs(t), sample.n - 1))
    return PairedDifference(sample.n, sample.mean, sample.mean_interval, p_value)


def welch(a: ArrayLike, b: ArrayLike, *, confidence: float = 0.95) -> Difference:
    """The mean of a minus that of b, its interval, and the p value of Welch's t-test, two-sided.

    With v = s^2 / n of each, t = difference / sqrt(v_a + v_b) has about
    (v_a + v_b)^2 / (v_a^2 / (n_a - 1) + v_b^2 / (n_b - 1)) degrees of freedom (Welch, Biometrika
    34, 1947). Both are values of independent runs, as many or not; their spreads may differ. This
    compares two recipes that nothing pairs: the same seed draws other weights for another network.

    There is neither interval nor p value where a sample has one value, or neither has a spread.

    Raises ValueError unless `a` and `b` are one-dimensional, finite and not empty, and `confidence`
    lies between 0 and 1.
    """
    one, other = describe(a, confidence=confidence), describe(b, confidence=confidence)
    mean = one.mean - other.mean
    if one.std is None or other.std is None or not (one.std or other.std):
        return Difference(mean, None, None)
    v_a, v_b = one.std**2 / one.n, other.std**2 / other.n
    freedom = (v_a + v_b) ** 2 / (v_a**2 / (one.n - 1) + v_b**2 / (other.n - 1))
    error = math.sqrt(v_a + v_b)
    reach = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    p_value = float(2 * stats.t.sf(abs(mean) / error, freedom))
    return Difference(mean, Interval(mean - reach, mean + reach), p_value)


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> McNemar:
    """McNemar's exact test of two networks on the same test images; True is a right answer.

    Of the images that only one network gets right, each is as likely to be a's as b's if the two
    are equally accurate: the p value is the two-sided binomial one with probability 1/2, and 1
    where there are no such images (McNemar, Psychometrika 12, 1947, who approximated it).

    It compares two networks as they were trained, allowing for the choice of test images. It does
    not compare the recipes: another seed gives other networks (Dietterich, Neural Computation 10,
    1998). Over several seeds, counts are not to be pooled nor p values combined, as all seeds share
    the test images. Sound is to give `paired_difference` the part of the seeds that get each image
    right, under either recipe: its n are the images, each counted once (Obuchowski, Statistics in
    Medicine 17, 1998). That compares the recipes' networks, all seeds at hand taken together, and
    needs some tens of images on which they differ.

    Raises ValueError unless both are one-dimensional boolean arrays of the same length, not empty.
    """
    right_a, right_b = _booleans(correct_a), _booleans(correct_b)
    _check_same_length(len(right_a), len(right_b))
    only_a = int((right_a & ~right_b).sum())
    only_b = int((right_b & ~right_a).sum())
    if only_a + only_b == 0:
        return McNemar(0, 0, 1.0)
    p_value = float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue)
    return McNemar(only_a, only_b, p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p values of m comparisons that are reported together; order is kept.

    The k-th smallest becomes the largest of (m - j + 1) p_(j) over j <= k, at most 1. Calling those
    below 0.05 different is wrong about any of the m with a probability of 5 % at most, whatever
    their dependence (Holm, Scandinavian Journal of Statistics 6, 1979).

    Raises ValueError for a p value that is not between 0 and 1. A comparison without a p value is
    for the caller to leave out.
    """
    for p_value in p_values:
        if not 0 <= p_value <= 1:
            raise ValueError(f"{p_value} is not a p value: expected 0 to 1.")
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, (len(p_values) - rank) * p_values[place])
        adjusted[place] = min(largest, 1.0)
    return adjusted


def _finite_numbers(values: ArrayLike) -> NDArray[np.float64]:
    numbers = np.asarray(values, np.float64)
    if numbers.ndim != 1 or numbers.size == 0:
        raise ValueError(f"expected a list of at least one number, got shape {numbers.shape}.")
    if not np.isfinite(numbers).all():
        raise ValueError("a value is NaN or infinite: leave out runs that diverged, and say so.")
    return numbers


def _booleans(correct: ArrayLike) -> NDArray[np.bool_]:
    booleans = np.asarray(correct)
    if booleans.dtype != np.bool_ or booleans.ndim != 1 or booleans.size == 0:
        raise ValueError(
            "expected a boolean for each of at least one image, "
            f"got {booleans.shape} of {booleans.dtype}."
        )
    return booleans


def _check_same_length(length_a: int, length_b: int) -> None:
    if length_a != length_b:
        raise ValueError(f"{length_a} and {length_b} values do not make pairs.")


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: expected a number between 0 and 1.")
