"""What each swept key does on average over the others, and how sure that is.

All estimates are weighted sums of the settings' means, whose chance comes from the seeds.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mnist_bench.analysis.best import Pooled, pooled_deviation
from mnist_bench.analysis.settings import Setting, as_typed

# Deviations of settings count as unequal below this p value. benchmarks/results/decisions.md has
# what that is good for.
UNEQUAL = 0.01


@dataclass(frozen=True)
class Estimate:
    """A mean or a difference; `reach` is half its interval, None where nothing tells."""

    mean: float
    reach: float | None


class Chance:
    """How far means of settings may be off: by the deviation of seeds, pooled over settings.

    Where one setting's deviation is clearly larger than the others' (`largest_variance_p`), each
    has its own, and sums of them Satterthwaite's degrees of freedom. `samples` are the values of
    each setting, in the order of weights.
    """

    def __init__(self, samples: Sequence[NDArray[np.float64]], confidence: float = 0.95):
        self.confidence = confidence
        self.sizes = np.array([len(s) for s in samples])
        self.means = np.array([s.mean() for s in samples])
        self.pooled: Pooled = pooled_deviation(samples)
        self.stds = [float(s.std(ddof=1)) if len(s) > 1 else None for s in samples]
        self.unequal_p = _unequal_p(samples)
        self.is_pooled = self.unequal_p is None or self.unequal_p >= UNEQUAL

    def estimate(self, weights: Mapping[int, float]) -> Estimate:
        """Return the sum of the means of settings, each times its weight, with its interval."""
        places, factors = list(weights), np.array(list(weights.values()))
        mean = float(factors @ self.means[places])
        variance, freedom = self._variance(places, factors)
        if not variance or freedom is None:
            return Estimate(mean, None)
        t = float(stats.t.ppf((1 + self.confidence) / 2, freedom))
        return Estimate(mean, t * math.sqrt(variance))

    def _variance(
        self, places: Sequence[int], factors: NDArray[np.float64]
    ) -> tuple[float, float | None]:
        if self.is_pooled:
            if self.pooled.std is None:
                return 0.0, None
            spread = float((factors**2 / self.sizes[places]).sum())
            return self.pooled.std**2 * spread, self.pooled.freedom
        stds = [self.stds[place] for place in places]
        if any(std is None for std in stds):
            return 0.0, None
        parts = (factors * np.array(stds, np.float64)) ** 2 / self.sizes[places]
        total = float(parts.sum())
        if total == 0:
            return 0.0, None
        return total, total**2 / float((parts**2 / (self.sizes[places] - 1)).sum())

    def test_equal(self, groups: Sequence[Mapping[int, float]]) -> float | None:
        """Return the p value of the F test that several weighted sums are equal, or None."""
        if self.pooled.std is None or len(groups) < 2:
            return None
        weights = np.zeros((len(groups), len(self.means)))
        for row, group in enumerate(groups):
            weights[row, list(group)] = list(group.values())
        contrasts = weights[1:] - weights[0]
        spread = (contrasts / self.sizes) @ contrasts.T * self.pooled.std**2
        found = contrasts @ self.means
        f = float(found @ np.linalg.solve(spread, found)) / len(contrasts)
        return float(stats.f.sf(f, len(contrasts), self.pooled.freedom))


def largest_variance_p(
    variances: NDArray[np.float64], sizes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the p value that the largest of k variances is no larger than the others: Cochran's C.

    Each variance, ... x k, is held against the others' pooled one by an F test, of which the least
    p value counts k times (Cochran, Annals of Eugenics 11, 1941; 't Lam, International
    Journal of Quality & Reliability Management 27, 2010, for unequal n).
    """
    freedom = sizes - 1
    squares = variances * freedom
    others = (squares.sum(-1, keepdims=True) - squares) / (freedom.sum() - freedom)
    with np.errstate(divide="ignore"):
        p_values = stats.f.sf(variances / others, freedom, freedom.sum() - freedom)
    return np.asarray(np.minimum(1.0, len(sizes) * p_values.min(-1)), np.float64)


def _unequal_p(samples: Sequence[NDArray[np.float64]]) -> float | None:
    """Return the p value of equal deviations; None of fewer than two settings that vary."""
    several = [s for s in samples if np.ptp(s) > 0]  # the others are not in the pool
    if len(several) < 2:
        return None
    variances = np.array([s.var(ddof=1) for s in several])
    return float(largest_variance_p(variances, np.array([len(s) for s in several])))


# --- Effects of single keys -------------------------------------------------------------------


@dataclass(frozen=True)
class Level:
    """One value of a key: the mean over all others, and that less the mean of the first value."""

    value: Any
    mean: Estimate
    less_first: Estimate | None
    runs: int


@dataclass(frozen=True)
class Effect:
    """What a key does; `left_out` settings have no counterpart at some other value of it."""

    key: str
    levels: list[Level]
    p_value: float | None
    left_out: int


Place = tuple[str, ...]


def places_of(settings: Sequence[Setting], keys: Sequence[str]) -> list[Place]:
    """Return the values of some keys of each setting, as text that tells them apart."""
    return [tuple(as_typed(setting.values[key]) for key in keys) for setting in settings]


def effect_of(
    key: str, axes: Mapping[str, Sequence[Any]], settings: Sequence[Setting], chance: Chance
) -> Effect | None:
    """Return the effect of a key, over settings that are there at all of its values; or None.

    Each counts once, however many seeds it has.
    """
    rest = [other for other in axes if other != key]
    names = [as_typed(value) for value in axes[key]]
    by_rest: dict[Place, dict[str, int]] = {}
    for place, (own, others) in enumerate(
        zip(places_of(settings, [key]), places_of(settings, rest), strict=True)
    ):
        by_rest.setdefault(others, {})[own[0]] = place
    whole = [found for found in by_rest.values() if len(found) == len(names)]
    if len(names) < 2 or not whole:
        return None
    groups = [{found[name]: 1 / len(whole) for found in whole} for name in names]
    levels = []
    for value, group in zip(axes[key], groups, strict=True):
        less = {**group, **{place: -weight for place, weight in groups[0].items()}}
        levels.append(
            Level(
                value,
                chance.estimate(group),
                None if group is groups[0] else chance.estimate(less),
                int(chance.sizes[list(group)].sum()),
            )
        )
    left_out = len(settings) - len(whole) * len(names)
    return Effect(key, levels, chance.test_equal(groups), left_out)


# --- Two keys at once -------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A mean over the settings at `places`; of a single one there is one place."""

    estimate: Estimate
    runs: int
    places: tuple[int, ...]


@dataclass(frozen=True)
class HeatMap:
    """Means over two keys; `cells[row][column]` is None where there is no such setting.

    `fixed` are the values of the other keys; without any, cells are means over `averaged` of them.
    """

    row_key: str
    column_key: str
    rows: Sequence[Any]
    columns: Sequence[Any]
    cells: list[list[Cell | None]]
    fixed: Mapping[str, Any]
    averaged: int


# As many maps of the other keys' values are shown one by one.
MOST_MAPS = 6


def heat_maps(
    row_key: str,
    column_key: str,
    axes: Mapping[str, Sequence[Any]],
    settings: Sequence[Setting],
    chance: Chance,
) -> list[HeatMap]:
    """Return the map over two keys, first averaged over all others, then for each of their values.

    The average is over those combinations of the others that are there in every cell.
    """
    rest = [key for key in axes if key not in (row_key, column_key)]
    cells = list(itertools.product(axes[row_key], axes[column_key]))
    found = dict(zip(places_of(settings, [row_key, column_key, *rest]), range(10**9), strict=False))
    combinations = {
        place: {key: setting.values[key] for key in rest}
        for place, setting in zip(places_of(settings, rest), settings, strict=True)
    }

    def group(row: Any, column: Any, others: Sequence[Place]) -> dict[int, float]:
        keys = [(as_typed(row), as_typed(column), *place) for place in others]
        there = [found[key] for key in keys if key in found]
        return {place: 1 / len(there) for place in there}

    def cell(own: Mapping[int, float]) -> Cell:
        return Cell(chance.estimate(own), int(chance.sizes[list(own)].sum()), tuple(own))

    def draw(others: Sequence[Place], fixed: Mapping[str, Any]) -> HeatMap:
        groups = [
            [group(row, column, others) for column in axes[column_key]] for row in axes[row_key]
        ]
        drawn = [[cell(own) if own else None for own in line] for line in groups]
        rows, columns = axes[row_key], axes[column_key]
        return HeatMap(row_key, column_key, rows, columns, drawn, fixed, len(others))

    if len(combinations) == 1:
        (place,) = combinations
        return [draw([place], {})]
    whole = [
        place for place in combinations if all(group(row, column, [place]) for row, column in cells)
    ]
    maps = [draw(whole, {})] if whole else []
    if len(combinations) <= MOST_MAPS:
        maps += [draw([place], fixed) for place, fixed in combinations.items()]
    return maps
