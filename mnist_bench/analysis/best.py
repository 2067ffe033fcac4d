"""Which of several settings cannot be ruled out as the best: Hsu's multiple comparisons.

To test each setting against "the best of what I see" is to choose a comparison by looking, and
finds differences that are not there. Hsu's procedure compares each with the best of the others,
whichever that is, and is wrong about the true best with a probability of 5 % at most (Hsu, Annals
of Statistics 9, 1981; Multiple Comparisons, 1996, chapter 4).

It takes single values for independent, normally distributed, and of the same deviation in every
setting, which is pooled. Where deviations differ clearly there is a way without pooling.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from mnist_bench.analysis.statistics import ROUNDING, Interval


@dataclass(frozen=True)
class Pooled:
    """The deviation s of single values around the mean of their setting, over all settings.

    `freedom` is the number of values less that of settings; without any, or where nothing varies,
    `std` is None.
    """

    std: float | None
    freedom: int


def pooled_deviation(samples: Sequence[ArrayLike]) -> Pooled:
    """Return s = sqrt(sum of squares within / freedom) of samples of any sizes.

    Samples of one value again and again, as networks give that learnt nothing, are left out if
    others vary: they tell nothing of how much those do.
    """
    arrays = [np.asarray(sample, np.float64) for sample in samples]
    arrays = [a for a in arrays if np.ptp(a) > 0] or arrays
    freedom = sum(len(a) - 1 for a in arrays)
    if freedom < 1:
        return Pooled(None, freedom)
    squares = sum(float(((a - a.mean()) ** 2).sum()) for a in arrays)
    largest = max(float(np.abs(a).max()) for a in arrays)
    std = math.sqrt(squares / freedom)
    return Pooled(std if std > ROUNDING * largest else None, freedom)


@dataclass(frozen=True)
class Best:
    """What the comparisons say of each setting, in their order; see `compare_with_best`."""

    # Of a setting's mean less the best of the others' means; up to 0 for one that is ruled out.
    behind: list[Interval]
    is_candidate: list[bool]


def compare_with_best(
    samples: Sequence[ArrayLike],
    *,
    confidence: float = 0.95,
    higher_is_better: bool = True,
    equal_deviations: bool = True,
) -> Best | None:
    """Compare each of k >= 2 settings with the best of the others; None where nothing varies.

    With control i, the critical value d_i of Dunnett's one-sided test, and w_ij = d_i s sqrt(1/n_i
    + 1/n_j), setting i is ruled out if any mean is more than w_ij better than its own. The
    intervals are Hsu's constrained ones, of all settings at once with the given confidence (Hsu
    1996, section 4.2); for figures of which the lower is better they are of their negatives.

    Without `equal_deviations` nothing is pooled: w_ij = t sqrt(s_i^2/n_i + s_j^2/n_j), with Welch's
    degrees of freedom and Bonferroni's level for the k - 1 comparisons of a setting. That holds
    whatever the deviations, and rules out less. Who has one value is then compared with none.

    Raises ValueError for fewer than two samples, an empty one, or values that are not finite.
    """
    arrays = [np.asarray(sample, np.float64) for sample in samples]
    if len(arrays) < 2 or any(a.ndim != 1 or a.size == 0 for a in arrays):
        raise ValueError("expected two settings or more, each with at least one value.")
    if not all(np.isfinite(a).all() for a in arrays):
        raise ValueError("a value is NaN or infinite: leave out runs that diverged, and say so.")
    pooled = pooled_deviation(arrays)
    if pooled.std is None:
        return None
    if equal_deviations:
        reach = _pooled_reach(arrays, pooled, confidence)
    else:
        reach = _separate_reach(arrays, confidence)
    means = np.array([a.mean() for a in arrays]) * (1 if higher_is_better else -1)
    behind = _intervals(means, reach)
    return Best(behind, [interval.high > 0 for interval in behind])


def _pooled_reach(
    arrays: Sequence[NDArray[np.float64]], pooled: Pooled, confidence: float
) -> NDArray[np.float64]:
    """Return w_ij, k x k."""
    assert pooled.std is not None
    sizes = np.array([len(a) for a in arrays])
    scale = critical_values(sizes, pooled.freedom, confidence) * pooled.std
    reach: NDArray[np.float64] = scale[:, None] * np.sqrt(1 / sizes[:, None] + 1 / sizes)
    return reach


def _separate_reach(
    arrays: Sequence[NDArray[np.float64]], confidence: float
) -> NDArray[np.float64]:
    """Return w_ij, k x k; infinite for settings with one value."""
    sizes = np.array([len(a) for a in arrays], np.float64)
    v = np.array([a.var(ddof=1) / len(a) if len(a) > 1 else np.inf for a in arrays])
    total = v[:, None] + v
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = v**2 / (sizes - 1)
        freedom = total**2 / (parts[:, None] + parts)
        t = stats.t.isf((1 - confidence) / (len(arrays) - 1), freedom)
        reach = t * np.sqrt(total)
    reach[total == 0] = 0.0
    reach[np.isinf(total)] = np.inf
    return np.asarray(reach, np.float64)


def _intervals(means: NDArray[np.float64], reach: NDArray[np.float64]) -> list[Interval]:
    ahead = means[:, None] - means  # i less j
    margins = ahead + reach
    np.fill_diagonal(margins, np.inf)
    highs = np.maximum(margins.min(1), 0.0)
    candidates = np.flatnonzero(highs > 0)
    lows = ahead[:, candidates] - reach[candidates].T  # by what the other would be ruled out
    lows[candidates, np.arange(len(candidates))] = np.inf
    least = np.minimum(lows.min(1, initial=np.inf), 0.0)  # 0 of the only one that can be the best
    return [Interval(float(low), float(high)) for low, high in zip(least, highs, strict=True)]


def critical_values(
    sizes: Sequence[int] | NDArray[np.int64], freedom: int, confidence: float = 0.95
) -> NDArray[np.float64]:
    """Return Dunnett's one-sided critical value with each setting as the control."""
    counts = Counter(int(size) for size in sizes)
    found: dict[int, float] = {}
    for own in counts:
        others = counts - Counter([own])
        found[own] = dunnett_critical(own, tuple(sorted(others.items())), freedom, confidence)
    return np.array([found[int(size)] for size in sizes])


@cache
def dunnett_critical(
    own: int, others: tuple[tuple[int, int], ...], freedom: int, confidence: float
) -> float:
    """Return d with P(all T_j <= d) = confidence; arguments as for `dunnett_probability`."""
    counts = dict(others)
    highest = float(stats.t.ppf(1 - (1 - confidence) / sum(counts.values()), freedom))  # Bonferroni
    lowest = float(stats.t.ppf(confidence, freedom))
    if sum(counts.values()) == 1:
        return lowest

    def excess(d: float) -> float:
        return dunnett_probability(d, own, counts, freedom) - confidence

    return float(optimize.brentq(excess, lowest - 1e-3, highest + 1e-3, xtol=1e-7))


def dunnett_probability(d: float, own: int, others: Mapping[int, int], freedom: int) -> float:
    """Return P(T_j <= d for all j) of Dunnett's one-sided statistics under no difference.

    T_j = (mean_j - mean_i) / (s sqrt(1/n_j + 1/n_i)), with n_i = `own` values of the control i, and
    for each size n_j in `others` as many settings as it says; s has `freedom` degrees of freedom
    (Dunnett, Journal of the American Statistical Association 50, 1955). Given the control's mean
    and s the T_j are independent, which leaves two integrals; they are right to about 1e-6 from two
    degrees of freedom on.
    """
    z, weights_z = _normal_nodes()
    s, weights_s = _deviation_nodes(freedom)
    log_probability = np.zeros((len(s), len(z)))
    for size, count in others.items():
        shared = size / (size + own)  # of the variance of T_j: the part that is the control's
        scores = (d * s[:, None] - math.sqrt(shared) * z) / math.sqrt(1 - shared)
        log_probability += count * special.log_ndtr(scores)
    return float(weights_s @ np.exp(log_probability) @ weights_z)


@cache
def _normal_nodes() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    z, weights = np.polynomial.hermite_e.hermegauss(96)
    return z, weights / weights.sum()


@cache
def _deviation_nodes(freedom: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return values of s / sigma and their weights: Gauss and Legendre's rule on its logarithm."""
    low, high = (0.5 * math.log(stats.chi2.ppf(p, freedom) / freedom) for p in (1e-10, 1 - 1e-10))
    nodes, weights = np.polynomial.legendre.leggauss(160)
    logs = low + (high - low) * (nodes + 1) / 2
    s = np.exp(logs)
    density = stats.chi2.pdf(freedom * s**2, freedom) * 2 * freedom * s**2
    weighted = weights * density
    return s, weighted / weighted.sum()
