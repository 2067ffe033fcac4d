"""Effects and maps of made-up grids against statsmodels' linear models and closed forms."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from mnist_bench.analysis.collect import FoundRun
from mnist_bench.analysis.effects import Chance, effect_of, heat_maps, largest_variance_p
from mnist_bench.analysis.settings import Setting
from mnist_bench.runs.standing import Standing, State

AXES = {"a": [1, 2, 3], "b": ["x", "y"]}


def grid(
    seed: int, left_out: frozenset[tuple[int, str]] = frozenset()
) -> tuple[list[Setting], list[np.ndarray], pd.DataFrame]:
    """Settings with two to five seeds each, their values, and the same as a table."""
    rng = np.random.default_rng(seed)
    settings, samples, rows = [], [], []
    for a, b in itertools.product(*AXES.values()):
        if (a, b) in left_out:
            continue
        values = rng.standard_normal(int(rng.integers(2, 6))) + a * (b == "x")
        runs = [
            FoundRun(Path(f"{a}{b}{i}"), Standing("", State.completed, {"seed": i}))
            for i in range(len(values))
        ]
        settings.append(Setting({"a": a, "b": b}, tuple(runs)))
        samples.append(values)
        rows += [{"y": value, "a": a, "b": b, "cell": f"{a}{b}"} for value in values]
    return settings, samples, pd.DataFrame(rows)


@pytest.mark.parametrize("seed", range(5))
def test_effects_are_statsmodels_marginal_means(seed: int) -> None:
    settings, samples, table = grid(seed)
    chance = Chance(samples)
    assert chance.is_pooled
    cells = ols("y ~ 0 + cell", table).fit()
    names = [name.removeprefix("cell[").removesuffix("]") for name in cells.params.index]
    anova = anova_lm(ols("y ~ C(a, Sum) * C(b, Sum)", table).fit(), typ=3)
    for key in AXES:
        effect = effect_of(key, AXES, settings, chance)
        assert effect is not None and effect.left_out == 0
        assert effect.p_value == pytest.approx(anova.loc[f"C({key}, Sum)", "PR(>F)"])
        at = [[str(value) in name for name in names] for value in AXES[key]]
        weights = np.array(at) / np.sum(at, 1, keepdims=True)
        for place, level in enumerate(effect.levels):
            expected = cells.t_test(weights[place])
            low, high = expected.conf_int()[0]
            assert level.mean.mean == pytest.approx(float(expected.effect[0]))
            assert level.mean.reach == pytest.approx((high - low) / 2)
            if level.less_first is not None:
                low, high = cells.t_test(weights[place] - weights[0]).conf_int()[0]
                assert level.less_first.mean == pytest.approx((high + low) / 2)
                assert level.less_first.reach == pytest.approx((high - low) / 2)


def test_a_gap_in_the_grid_moves_no_effect() -> None:
    """Without 3x, the mean over b at each a is over settings that are there at all values of a."""
    settings, samples, _ = grid(3, frozenset({(3, "x")}))
    effect = effect_of("a", AXES, settings, Chance(samples))
    assert effect is not None and effect.left_out == 2
    means = {
        (s.values["a"], s.values["b"]): v.mean() for s, v in zip(settings, samples, strict=True)
    }
    assert [level.mean.mean for level in effect.levels] == [means[a, "y"] for a in AXES["a"]]


def test_settings_that_share_no_value_have_no_effects() -> None:
    settings, samples, _ = grid(0)
    apart = [settings[0], settings[3]]  # 1x and 2y
    assert effect_of("a", AXES, apart, Chance([samples[0], samples[3]])) is None


def test_one_setting_alone_has_students_interval() -> None:
    values = np.array([0.99, 0.991, 0.9925])
    found = Chance([values]).estimate({0: 1.0})
    low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
    assert (found.mean, found.reach) == pytest.approx((values.mean(), (high - low) / 2))
    assert Chance([values[:1]]).estimate({0: 1.0}).reach is None


def test_a_deviation_that_stands_out_is_not_pooled() -> None:
    rng = np.random.default_rng(1)
    samples = [rng.normal(0, std, 5) for std in (1, 1, 1, 30)]
    chance = Chance(samples)
    assert not chance.is_pooled
    calm = chance.estimate({0: 1.0})
    low, high = stats.t.interval(0.95, 4, samples[0].mean(), stats.sem(samples[0]))
    assert calm.reach == pytest.approx((high - low) / 2)
    # Of a difference of two it is Welch's.
    both = chance.estimate({0: 1.0, 3: -1.0})
    welch = stats.ttest_ind(samples[0], samples[3], equal_var=False).confidence_interval()
    assert both.reach == pytest.approx((welch.high - welch.low) / 2)


# Cochran 1941: critical values of C at 5 %, for k variances of n values.
@pytest.mark.parametrize(("k", "n", "c"), [(2, 5, 0.9057), (3, 5, 0.7457), (5, 3, 0.6838)])
def test_the_largest_variance_is_judged_by_cochrans_table(k: int, n: int, c: float) -> None:
    variances = np.array([c, *[(1 - c) / (k - 1)] * (k - 1)])
    assert largest_variance_p(variances, np.array([n] * k)) == pytest.approx(0.05, abs=2e-4)


def test_a_map_averages_over_the_other_keys_and_shows_each_of_their_values() -> None:
    axes = {**AXES, "c": [0, 1]}
    settings, samples = [], []
    for c in axes["c"]:
        for setting, values in zip(*grid(c)[:2], strict=True):
            settings.append(Setting({**setting.values, "c": c}, setting.runs))
            samples.append(values)
    whole, first, second = heat_maps("a", "b", axes, settings, Chance(samples))
    assert (whole.averaged, first.fixed, second.fixed) == (2, {"c": 0}, {"c": 1})
    for row, column in itertools.product(range(3), range(2)):
        place = 2 * row + column
        cells = [found.cells[row][column] for found in (whole, first, second)]
        assert all(cells)
        means = [samples[place].mean(), samples[place + 6].mean()]
        assert [c.estimate.mean for c in cells] == pytest.approx([np.mean(means), *means])
        assert cells[0].runs == len(samples[place]) + len(samples[place + 6])


def test_a_map_says_where_there_is_no_run() -> None:
    settings, samples, _ = grid(2, frozenset({(2, "y")}))
    (found,) = heat_maps("a", "b", AXES, settings, Chance(samples))
    assert [[cell is not None for cell in line] for line in found.cells] == [
        [True, True],
        [True, False],
        [True, True],
    ]
