"""How often the rules of `mnist-bench report` are wrong, on sweeps whose truth is known.

    python -m benchmarks.decisions                  1,000 sweeps of each kind, on the screen
    python -m benchmarks.decisions --write          and into results/decisions.md

Sweeps are drawn from a normal distribution: the value of a setting with a seed is its true
mean, plus what this seed does to all settings alike (a share of the variance), plus what it does to
this one. Deviations are in units of the whole deviation of one value. What is measured:

- all settings equal: how often one that is truly the best is ruled out as the best;
- one setting the best, all others two deviations behind: how often such a one is ruled out;
- pairs named beforehand, without any difference: how often at least one is called different.

The first two are also counted by what a report does not do, Welch's tests with Holm's correction
against the best that one sees. Last, one setting has a larger deviation than the others, which
pooling does not allow for, and a report minds where it shows.
"""

import argparse
import itertools
import math
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mnist_bench.analysis.best import compare_with_best, critical_values
from mnist_bench.analysis.effects import UNEQUAL, largest_variance_p

RESULTS = Path(__file__).parent / "results" / "decisions.md"
SEEDS = 5
SETTINGS = (2, 4, 9, 18)
SHARED = (0.0, 0.3, 0.6)  # of the variance: what a seed does to all settings alike
BEHIND = 2.0
PAIRS = (1, 4, 9)

Values = NDArray[np.float64]  # S sweeps x K settings x N seeds
Verdicts = NDArray[np.bool_]


def draw(
    rng: np.random.Generator,
    sweeps: int,
    means: NDArray[np.float64],
    shared: float = 0.0,
    stds: NDArray[np.float64] | None = None,
) -> Values:
    """Return sweeps of settings with these true means: S x K x N."""
    own = rng.standard_normal((sweeps, len(means), SEEDS)) * math.sqrt(1 - shared)
    common = rng.standard_normal((sweeps, 1, SEEDS)) * math.sqrt(shared)
    chance = own + common
    if stds is not None:
        chance *= stds[:, None]
    return means[:, None] + chance


# --- The rules, vectorised --------------------------------------------------------------------


def ruled_out(values: Values) -> Verdicts:
    """Return which settings Hsu's comparisons rule out as the best: S x K; see `analysis.best`."""
    _, settings, seeds = values.shape
    means = values.mean(2)
    freedom = settings * (seeds - 1)
    std = np.sqrt(values.var(2, ddof=1).mean(1))
    critical = critical_values([seeds] * settings, freedom)[0]
    margin = critical * std * math.sqrt(2 / seeds)
    return np.asarray(means + margin[:, None] <= means.max(1, keepdims=True))


def worse_than_the_best_seen(values: Values) -> Verdicts:
    """Return which settings Welch and Holm call different from the one of highest mean: S x K."""
    sweeps, settings, _ = values.shape
    leader = values.mean(2).argmax(1)
    best = values[np.arange(sweeps), leader][:, None]
    p_values = welch(values, best)
    p_values[np.arange(sweeps), leader] = np.inf  # with itself it is not compared
    order = p_values.argsort(1)
    ranked = np.take_along_axis(p_values, order, 1)[:, :-1] * np.arange(settings - 1, 0, -1)
    adjusted = np.full((sweeps, settings), np.inf)
    adjusted[:, :-1] = np.maximum.accumulate(ranked, 1)
    verdicts = np.zeros((sweeps, settings), bool)
    np.put_along_axis(verdicts, order, adjusted < 0.05, 1)
    return verdicts


def any_pair_differs(firsts: Values, seconds: Values) -> Verdicts:
    """Return whether Welch with Holm calls any of the pairs different: S. The least p decides."""
    return np.asarray(welch(firsts, seconds).min(1) * firsts.shape[1] < 0.05)


def welch(a: Values, b: Values) -> NDArray[np.float64]:
    """Return Welch's two-sided p values over the last axis, as `analysis.statistics.welch`."""
    v_a, v_b = (x.var(-1, ddof=1) / x.shape[-1] for x in (a, b))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (a.mean(-1) - b.mean(-1)) / np.sqrt(v_a + v_b)
        freedom = (v_a + v_b) ** 2 / (v_a**2 / (a.shape[-1] - 1) + v_b**2 / (b.shape[-1] - 1))
        return np.asarray(2 * stats.t.sf(np.abs(t), freedom))


# --- What is measured -------------------------------------------------------------------------


@dataclass(frozen=True)
class Rates:
    """Shares of the settings of which it holds: a best one, or one that is behind, is ruled out."""

    best: float
    best_as_reported: float
    best_by_looking: float
    behind: float
    behind_as_reported: float
    behind_by_looking: float


def rates(rng: np.random.Generator, sweeps: int, settings: int, shared: float) -> Rates:
    equal = draw(rng, sweeps, np.zeros(settings), shared)  # any of which is truly the best
    behind = draw(rng, sweeps, np.array([0.0, *[-BEHIND] * (settings - 1)]), shared)
    return Rates(
        float(ruled_out(equal).mean()),
        float(as_reported(equal).mean()),
        float(worse_than_the_best_seen(equal).mean()),
        float(ruled_out(behind)[:, 1:].mean()),
        float(as_reported(behind)[:, 1:].mean()),
        float(worse_than_the_best_seen(behind)[:, 1:].mean()),
    )


def unequal_rates(
    rng: np.random.Generator, sweeps: int, settings: int, ratio: float
) -> list[float]:
    """Return how often equal settings are ruled out: the one whose deviation is larger, and others.

    First by pooling always, then as a report does it, which pools unless deviations differ clearly.
    """
    stds = np.array([ratio, *[1.0] * (settings - 1)])
    values = draw(rng, sweeps, np.zeros(settings), 0.0, stds)
    pooled, reported = ruled_out(values), as_reported(values)
    return [float(part.mean()) for v in (pooled, reported) for part in (v[:, 0], v[:, 1:])]


def as_reported(values: Values) -> Verdicts:
    """Return what `mnist-bench report` rules out: S x K. One sweep after the other, as it does."""
    verdicts = ruled_out(values)
    _, settings, seeds = values.shape
    p_values = largest_variance_p(values.var(2, ddof=1), np.array([seeds] * settings))
    for sweep in np.flatnonzero(p_values < UNEQUAL):
        best = compare_with_best(list(values[sweep]), equal_deviations=False)
        assert best is not None
        verdicts[sweep] = ~np.array(best.is_candidate)
    return verdicts


def family_rate(rng: np.random.Generator, sweeps: int, pairs: int, shared: float) -> float:
    """Return how often any of some pairs is called different, of settings that are all equal."""
    values = draw(rng, sweeps, np.zeros(2 * pairs), shared)
    return float(any_pair_differs(values[:, ::2], values[:, 1::2]).mean())


def overlapping_rate(rng: np.random.Generator, sweeps: int, shared: float) -> float:
    """Return the same of all six pairs of four settings."""
    values = draw(rng, sweeps, np.zeros(4), shared)
    first, second = np.array(list(itertools.combinations(range(4), 2))).T
    return float(any_pair_differs(values[:, first], values[:, second]).mean())


def report(sweeps: int, seed: int) -> Iterator[str]:
    """Yield the lines of the results, as Markdown."""
    rng = np.random.default_rng(seed)
    yield "# How often a report is wrong"
    yield ""
    yield f"`python -m benchmarks.decisions --sweeps {sweeps} --seed {seed} --write`"
    yield ""
    chance = 1.96 * math.sqrt(0.05 * 0.95 / sweeps)
    yield f"{sweeps:,} simulated sweeps in each line, {SEEDS} seeds of each setting;"
    yield "`benchmarks/decisions.py` explains how they are drawn. A share of 5 % is known to"
    yield f"{chance:.1%} by so many, and more surely where several settings of a sweep are counted."
    yield ""
    yield "## Which may be the best"
    yield ""
    yield (
        "| settings | seeds' share of the variance | a true best is ruled out: Hsu | as reported "
        "| Welch and Holm against the best seen | one two deviations behind is: Hsu | as reported "
        "| Welch and Holm |"
    )
    yield f"| {' | '.join(['---:'] * 8)} |"
    for settings, shared in itertools.product(SETTINGS, SHARED):
        found = rates(rng, sweeps, settings, shared)
        shares = [f"{share:.1%}" for share in astuple(found)]
        yield f"| {settings} | {shared:.0%} | {' | '.join(shares)} |"
    yield ""
    yield "## Pairs that were named beforehand"
    yield ""
    yield "| pairs | seeds' share of the variance | at least one is called different, and none is |"
    yield "| --- | ---: | ---: |"
    for pairs, shared in itertools.product(PAIRS, SHARED):
        yield f"| {pairs} | {shared:.0%} | {family_rate(rng, sweeps, pairs, shared):.1%} |"
    for shared in SHARED:
        rate = overlapping_rate(rng, sweeps, shared)
        yield f"| all 6 of 4 settings | {shared:.0%} | {rate:.1%} |"
    yield ""
    yield "## Where one setting's deviation is larger than the others', and none is better"
    yield ""
    yield (
        "| settings | deviation | it is ruled out: pooled | as reported | another is: pooled "
        "| as reported |"
    )
    yield "| ---: | ---: | ---: | ---: | ---: | ---: |"
    for settings, ratio in itertools.product(SETTINGS, (2.0, 4.0, 10.0)):
        noisy, other, noisy_reported, other_reported = unequal_rates(rng, sweeps, settings, ratio)
        yield (
            f"| {settings} | {ratio:.0f} times | {noisy:.1%} | {noisy_reported:.1%} | {other:.1%} "
            f"| {other_reported:.1%} |"
        )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="How often a report is wrong.")
    parser.add_argument("--sweeps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args(arguments)
    text = "\n".join(report(options.sweeps, options.seed)) + "\n"
    print(text)
    if options.write:
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()
