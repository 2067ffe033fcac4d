"""Hsu's comparisons against SciPy's Dunnett, tables and loops; power against statsmodels."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower

from mnist_bench.analysis.best import (
    compare_with_best,
    critical_values,
    dunnett_critical,
    dunnett_probability,
    pooled_deviation,
)
from mnist_bench.analysis.power import (
    of_a_pair,
    of_the_best,
    power,
    seeds_needed,
    visible_difference,
)


# Dunnett 1955, table 1a: one-sided 95 % values for k settings beside the control.
@pytest.mark.parametrize(
    ("k", "freedom", "published"),
    [(1, 10, 1.81), (2, 10, 2.15), (2, 20, 2.03), (5, 10, 2.56), (9, 20, 2.60), (9, 60, 2.48)],
)
def test_critical_values_are_those_of_dunnetts_table(
    k: int, freedom: int, published: float
) -> None:
    assert dunnett_critical(5, ((5, k),), freedom, 0.95) == pytest.approx(published, abs=0.006)


@pytest.mark.parametrize("draw", range(6))
def test_dunnetts_probability_is_scipys(draw: int) -> None:
    """SciPy integrates over the whole covariance by quasi Monte Carlo; sizes differ."""
    rng = np.random.default_rng(draw)
    sizes = rng.integers(2, 7, 2 + draw % 4)
    control = rng.standard_normal(int(rng.integers(2, 6)))
    samples = [rng.standard_normal(size) for size in sizes]
    found = stats.dunnett(*samples, control=control, alternative="greater", rng=rng)
    pooled = pooled_deviation([*samples, control])
    others = {int(size): int((sizes == size).sum()) for size in sizes}
    for sample, statistic, p_value in zip(samples, found.statistic, found.pvalue, strict=True):
        error = pooled.std * math.sqrt(1 / len(sample) + 1 / len(control))
        assert (sample.mean() - control.mean()) / error == pytest.approx(statistic)
        mine = 1 - dunnett_probability(float(statistic), len(control), others, pooled.freedom)
        assert mine == pytest.approx(p_value, abs=2e-3)


def test_with_one_other_setting_it_is_students_distribution() -> None:
    for freedom, t in itertools.product((1, 2, 4, 30), (-0.5, 0.7, 2.2, 6.0)):
        found = dunnett_probability(t, 3, {5: 1}, freedom)
        assert found == pytest.approx(stats.t.cdf(t, freedom), abs=1e-6)


def intervals_by_loops(samples: list[np.ndarray], sign: int) -> list[tuple[float, float]]:
    """Hsu 1996, section 4.2.2, as it stands there, for figures of which the higher is better."""
    pooled, k = pooled_deviation(samples), len(samples)
    d = critical_values([len(s) for s in samples], pooled.freedom)
    means = [sign * s.mean() for s in samples]

    def reach(i: int, j: int) -> float:
        return d[i] * pooled.std * math.sqrt(1 / len(samples[i]) + 1 / len(samples[j]))

    highs = [
        max(0.0, min(means[i] - means[j] + reach(i, j) for j in range(k) if j != i))
        for i in range(k)
    ]
    may_be_best = [i for i in range(k) if highs[i] > 0]
    lows = []
    for i in range(k):
        others = [means[i] - means[j] - reach(j, i) for j in may_be_best if j != i]
        lows.append(min(0.0, *others) if others else 0.0)
    return list(zip(lows, highs, strict=True))


@pytest.mark.parametrize("draw", range(12))
def test_the_intervals_are_hsus(draw: int) -> None:
    rng = np.random.default_rng(draw)
    samples = [
        rng.standard_normal(int(rng.integers(1, 6))) + 1.5 * rng.standard_normal()
        for _ in range(2 + draw % 5)
    ] + [rng.standard_normal(3)]
    for sign in (1, -1):
        best = compare_with_best(samples, higher_is_better=sign == 1)
        assert best is not None
        expected = intervals_by_loops(samples, sign)
        assert np.allclose([(i.low, i.high) for i in best.behind], expected, atol=1e-12)
        assert best.is_candidate == [high > 0 for _, high in expected]
        leader = int(np.argmax([sign * s.mean() for s in samples]))
        assert best.is_candidate[leader]


def test_of_two_settings_it_is_the_one_sided_t_test() -> None:
    rng = np.random.default_rng(5)
    verdicts = set()
    for _ in range(60):
        a, b = rng.standard_normal(4), rng.standard_normal(6) + 1
        best = compare_with_best([a, b])
        p_value = stats.ttest_ind(a, b, alternative="less").pvalue
        assert best is not None and best.is_candidate[0] == (p_value > 0.05)
        verdicts.add(best.is_candidate[0])
    assert verdicts == {True, False}


def test_without_pooling_each_pair_is_welchs() -> None:
    rng = np.random.default_rng(6)
    verdicts = set()
    for _ in range(40):
        samples = [rng.normal(mean, std, 5) for mean, std in ((0.3, 0.3), (1, 0.5), (0.5, 3))]
        best = compare_with_best(samples, equal_deviations=False)
        assert best is not None
        for i, own in enumerate(samples):
            others = [s for j, s in enumerate(samples) if j != i]
            p_values = [
                stats.ttest_ind(own, other, equal_var=False, alternative="less").pvalue
                for other in others
            ]
            assert best.is_candidate[i] == (min(p_values) * 2 > 0.05)
            verdicts.add((i, best.is_candidate[i]))
    assert {(0, True), (0, False), (2, True)} <= verdicts


def test_where_nothing_varies_nothing_is_said() -> None:
    assert compare_with_best([[0.5, 0.5], [0.6, 0.6]]) is None
    assert compare_with_best([[0.5], [0.6]]) is None
    with pytest.raises(ValueError, match="two settings"):
        compare_with_best([[0.5, 0.6]])
    with pytest.raises(ValueError, match="NaN"):
        compare_with_best([[0.5, float("nan")], [0.5, 0.6]])


def test_power_of_a_pair_is_statsmodels() -> None:
    for seeds, difference in itertools.product((2, 5, 20), (0.3, 1.0)):
        mine = power(of_a_pair(3), seeds, difference, 1.0)
        theirs = TTestIndPower().power(difference, seeds, 0.05 / 3, alternative="two-sided")
        # Ours leaves out the other tail, where the worse one would be called better.
        assert mine == pytest.approx(theirs, abs=0.01)
        assert mine <= theirs
    needed = TTestIndPower().solve_power(0.5, power=0.8, alpha=0.05)
    assert seeds_needed(of_a_pair(), 0.05, 0.1) == math.ceil(needed) == 64
    visible = TTestIndPower().solve_power(nobs1=5, power=0.8, alpha=0.05)
    assert visible_difference(of_a_pair(), 5, 0.1) == pytest.approx(0.1 * visible, rel=1e-4)
    assert seeds_needed(of_a_pair(), 1e-4, 1.0) is None


def test_power_of_the_best_is_what_simulation_finds() -> None:
    """Two equally good settings but for one that is behind: compared with one of them alone."""
    rng, seeds, behind = np.random.default_rng(8), 5, 1.8
    test = of_the_best(4)
    critical, freedom = test(seeds)
    assert freedom == 16
    values = rng.standard_normal((20_000, 4, seeds))
    std = np.sqrt(values.var(2, ddof=1).mean(1))
    ahead = values[:, 0].mean(1) - values[:, 1].mean(1) + behind
    share = (ahead > critical * std * math.sqrt(2 / seeds)).mean()
    assert power(test, seeds, behind, 1.0) == pytest.approx(share, abs=0.01)
    assert power(test, seeds, visible_difference(test, seeds, 1.0), 1.0) == pytest.approx(0.8)
