"""The statistics, against statsmodels, closed forms, loops and simulations; on MNIST where it fits.

Simulated rates are held to within four binomial standard errors; seeds are fixed.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from mnist_bench.analysis.statistics import (
    Interval,
    describe,
    mcnemar,
    paired_difference,
    welch,
)
from mnist_bench.data.datasets import find_dataset
from mnist_bench.data.images import Images
from mnist_bench.data.published import load_images

DRAWS = 4000
# The 97.5 % quantile of Student's t with one and two degrees of freedom, from its closed forms:
# tan(pi (p - 1/2)) and (2p - 1) sqrt(2 / (4 p (1 - p))).
T1 = math.tan(math.pi * 0.475)
T2 = 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025))


def close(low: float, high: float) -> object:
    return pytest.approx((low, high), rel=1e-9, abs=1e-12)


def ends(interval: Interval | None) -> tuple[float, float]:
    assert interval is not None
    return interval.low, interval.high


def assert_rate(hits: int, expected: float, draws: int = DRAWS) -> None:
    error = math.sqrt(expected * (1 - expected) / draws)
    assert hits / draws == pytest.approx(expected, abs=4 * error)


def accuracies(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.9951, 0.0004, n)


# Two recipes without a network, cheap enough to train at each seed on real digits: the nearest of
# ten class means, of the pixels or of the pixels blurred.


@pytest.fixture(scope="module")
def digits(mnist_root: Path) -> Images:
    return load_images(find_dataset("mnist", None), mnist_root)


def nearest_mean_correct(images: Images, seed: int, blurred: bool) -> np.ndarray:
    """Which test images lie nearest to their own class's mean of 1,000 random training images."""

    def pixels(raw: np.ndarray) -> np.ndarray:
        scaled = raw.astype(np.float32) / 255
        if blurred:
            padded = np.pad(scaled, ((0, 0), (1, 1), (1, 1)))
            scaled = sum(padded[:, i : i + 28, j : j + 28] for i in range(3) for j in range(3)) / 9
        return scaled.reshape(len(scaled), -1)

    rows = np.random.default_rng(seed).choice(len(images.train_images), 1000, replace=False)
    train, labels = pixels(images.train_images.numpy()[rows]), images.train_labels.numpy()[rows]
    test = pixels(images.test_images.numpy())
    means = np.stack([train[labels == digit].mean(0) for digit in range(10)])
    distances = (means**2).sum(1) - 2 * test @ means.T
    return distances.argmin(1) == images.test_labels.numpy()


@pytest.fixture(scope="module")
def raw_correct(digits: Images) -> np.ndarray:
    """Seeds × test images."""
    return np.stack([nearest_mean_correct(digits, seed, blurred=False) for seed in range(6)])


@pytest.fixture(scope="module")
def blurred_correct(digits: Images) -> np.ndarray:
    """Seeds × test images."""
    return np.stack([nearest_mean_correct(digits, seed, blurred=True) for seed in range(6)])


def test_interval_holds_its_ends_and_nothing_beyond() -> None:
    interval = Interval(0.5, 0.75)
    assert 0.5 in interval and 0.6 in interval and 0.75 in interval
    assert 0.4999 not in interval and 0.7501 not in interval and math.nan not in interval


def test_describe_two_values_by_hand() -> None:
    sample = describe([1, 3])
    assert (sample.n, sample.mean) == (2, 2)
    assert sample.std == pytest.approx(math.sqrt(2))
    assert ends(sample.mean_interval) == close(2 - T1, 2 + T1)
    assert ends(sample.prediction_interval) == close(2 - T1 * 3**0.5, 2 + T1 * 3**0.5)


def test_describe_three_values_by_hand() -> None:
    sample = describe([1, 2, 6])
    assert (sample.n, sample.mean) == (3, 3)
    assert sample.std == pytest.approx(math.sqrt(7))
    assert ends(sample.mean_interval) == close(3 - T2 * (7 / 3) ** 0.5, 3 + T2 * (7 / 3) ** 0.5)
    reach = T2 * (7 + 7 / 3) ** 0.5
    assert ends(sample.prediction_interval) == close(3 - reach, 3 + reach)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 40])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_describe_equals_statsmodels(n: int, confidence: float) -> None:
    values = accuracies(n)
    sample = describe(values, confidence=confidence)
    reference = DescrStatsW(values)
    alpha = 1 - confidence
    prediction = sm.OLS(values, np.ones(n)).fit().get_prediction([1.0])
    assert sample.n == n
    assert sample.mean == pytest.approx(reference.mean, rel=1e-12)
    assert sample.std == pytest.approx(reference.std_ddof(1), rel=1e-9)
    assert ends(sample.mean_interval) == close(*reference.tconfint_mean(alpha))
    assert ends(sample.prediction_interval) == close(*prediction.conf_int(obs=True, alpha=alpha)[0])


def test_describe_takes_95_percent_unless_told() -> None:
    assert describe(accuracies(5)) == describe(accuracies(5), confidence=0.95)


def test_real_accuracies_over_seeds_equal_statsmodels(raw_correct: np.ndarray) -> None:
    sample = describe(raw_correct.mean(1))
    assert ends(sample.mean_interval) == close(*DescrStatsW(raw_correct.mean(1)).tconfint_mean())


@pytest.mark.parametrize("n", [2, 3, 10])
def test_intervals_cover_as_often_as_they_say(n: int) -> None:
    rng = np.random.default_rng(n)
    mean_hits = next_hits = 0
    for _ in range(DRAWS):
        sample = describe(rng.normal(0.99, 0.001, n))
        assert sample.mean_interval is not None and sample.prediction_interval is not None
        mean_hits += 0.99 in sample.mean_interval
        next_hits += rng.normal(0.99, 0.001) in sample.prediction_interval
    assert_rate(mean_hits, 0.95)
    assert_rate(next_hits, 0.95)


def test_one_value_has_a_mean_only() -> None:
    sample = describe([0.9951])
    assert (sample.n, sample.mean) == (1, 0.9951)
    assert sample.std is sample.mean_interval is sample.prediction_interval is None


@pytest.mark.parametrize("values", [[0.1] * 3, [0.0, 0.0], [0.9951] * 7, [0.1 + 0.2, 0.3]])
def test_equal_values_have_no_spread_and_no_intervals(values: list[float]) -> None:
    sample = describe(values)
    assert sample.mean == pytest.approx(values[0])
    assert sample.std == 0
    assert sample.mean_interval is sample.prediction_interval is None


@pytest.mark.parametrize("values", [[], [[0.5, 0.6]], 0.5, [0.5, math.nan], [0.5, math.inf]])
def test_describe_refuses_what_is_not_a_list_of_numbers(values: object) -> None:
    with pytest.raises(ValueError, match=r"at least one number|NaN or infinite"):
        describe(values)  # type: ignore[arg-type]


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, math.nan])
def test_confidence_is_a_part_of_one(confidence: float) -> None:
    for given in (
        lambda: describe([1, 2], confidence=confidence),
        lambda: paired_difference([1, 2], [3, 5], confidence=confidence),
    ):
        with pytest.raises(ValueError, match="between 0 and 1"):
            given()


def test_paired_difference_by_hand() -> None:
    # d = 1, 3: t = 2 / (sqrt(2) / sqrt(2)) = 2, and the tail of t1 is 1/2 - atan(t) / pi.
    result = paired_difference([5, 3], [4, 0])
    assert (result.n, result.mean) == (2, 2)
    assert ends(result.interval) == close(2 - T1, 2 + T1)
    assert result.p_value == pytest.approx(1 - 2 * math.atan(2) / math.pi)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 40])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
@pytest.mark.parametrize("shift", [0.0, 0.0006])
def test_paired_difference_equals_statsmodels(n: int, confidence: float, shift: float) -> None:
    seeds = accuracies(n, 1)
    a, b = accuracies(n, 2) + seeds, accuracies(n, 3) + seeds + shift
    result = paired_difference(a, b, confidence=confidence)
    reference = DescrStatsW(a - b)
    assert result.n == n
    assert result.mean == pytest.approx(reference.mean, rel=1e-9)
    assert ends(result.interval) == close(*reference.tconfint_mean(1 - confidence))
    assert result.p_value == pytest.approx(reference.ttest_mean(0)[1], rel=1e-9)


def test_paired_difference_swaps_sign_with_its_arguments() -> None:
    a, b = accuracies(5, 1), accuracies(5, 2)
    forth, back = paired_difference(a, b), paired_difference(b, a)
    low, high = ends(back.interval)
    assert forth.mean == -back.mean
    assert ends(forth.interval) == (-high, -low)
    assert forth.p_value == back.p_value


def test_p_value_is_below_5_percent_as_often_as_it_says_and_when_the_interval_leaves_out_0() -> (
    None
):
    rng = np.random.default_rng(0)
    rejections = 0
    for _ in range(DRAWS):
        seeds = rng.normal(0.99, 0.003, 5)
        a, b = seeds + rng.normal(0, 0.001, 5), seeds + rng.normal(0, 0.001, 5)
        result = paired_difference(a, b)
        assert result.p_value is not None and result.interval is not None
        assert (result.p_value < 0.05) == (0 not in result.interval)
        rejections += result.p_value < 0.05
    assert_rate(rejections, 0.05)


def test_one_pair_has_a_difference_only() -> None:
    result = paired_difference([0.75], [0.5])
    assert (result.n, result.mean) == (1, 0.25)
    assert result.interval is result.p_value is None


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([0.99, 0.98, 0.97], [0.99, 0.98, 0.97]),
        # One image of 10,000 at every seed: float64 makes the differences unequal at 1e-16.
        ([0.9951, 0.9905, 0.9702], [0.9950, 0.9904, 0.9701]),
        ([1.0, 1.0 + 1.5e-12], [-1.0, -1.0]),
        ([0.5, 0.75], [0.25, 0.5]),
    ],
)
def test_equal_differences_have_neither_interval_nor_p_value(
    a: list[float], b: list[float]
) -> None:
    result = paired_difference(a, b)
    assert result.mean == pytest.approx(a[0] - b[0])
    assert result.interval is result.p_value is None


def test_a_spread_of_one_image_in_a_million_is_no_rounding() -> None:
    result = paired_difference([0.995001, 0.995, 0.995], [0.994, 0.994, 0.994])
    assert result.interval is not None and result.p_value is not None


def test_pairs_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="3 and 2 values"):
        paired_difference([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="1 and 3 values"):
        paired_difference([1], [1, 2, 3])
    with pytest.raises(ValueError, match="3 and 1 values"):
        mcnemar(np.ones(3, bool), np.ones(1, bool))


def test_mcnemar_by_hand() -> None:
    a = np.array([1, 1, 1, 1, 1, 0, 1, 0], bool)
    b = np.array([0, 0, 0, 0, 0, 1, 1, 0], bool)
    result = mcnemar(a, b)
    assert (result.only_a, result.only_b) == (5, 1)
    assert result.p_value == pytest.approx(2 * (1 + 6) / 2**6)
    assert mcnemar(b, a).p_value == result.p_value
    assert (mcnemar(b, a).only_a, mcnemar(b, a).only_b) == (1, 5)


@pytest.mark.parametrize(("only_a", "only_b"), [(1, 0), (1, 1), (7, 7), (0, 6), (20, 41), (300, 1)])
def test_mcnemar_equals_statsmodels(only_a: int, only_b: int) -> None:
    a = np.repeat([True, False, True, False], [only_a, only_b, 50, 3])
    b = np.repeat([False, True, True, False], [only_a, only_b, 50, 3])
    result = mcnemar(a, b)
    assert (result.only_a, result.only_b) == (only_a, only_b)
    reference = reference_mcnemar([[50, only_a], [only_b, 3]], exact=True)
    assert result.p_value == pytest.approx(reference.pvalue, rel=1e-9)


def test_mcnemar_of_real_classifiers_equals_a_loop_and_statsmodels(
    raw_correct: np.ndarray, blurred_correct: np.ndarray
) -> None:
    for a, b in zip(raw_correct[:3], blurred_correct[:3], strict=True):
        table = [[0, 0], [0, 0]]
        for right_a, right_b in zip(a, b, strict=True):
            table[int(not right_a)][int(not right_b)] += 1
        assert min(table[0] + table[1]) > 0
        result = mcnemar(a, b)
        assert (result.only_a, result.only_b) == (table[0][1], table[1][0])
        discordant = table[0][1] + table[1][0]
        tail = sum(math.comb(discordant, k) for k in range(min(table[0][1], table[1][0]) + 1))
        assert result.p_value == pytest.approx(min(1, 2 * tail / 2**discordant), rel=1e-9)
        assert result.p_value == pytest.approx(reference_mcnemar(table, exact=True).pvalue)


def test_mcnemar_rejects_at_most_5_percent_of_equally_accurate_networks() -> None:
    rng = np.random.default_rng(0)
    rejections = 0
    for _ in range(2000):
        kind = rng.choice(4, 400, p=[0.9, 0.04, 0.04, 0.02])  # both right, a, b, neither
        rejections += mcnemar(kind <= 1, kind % 2 == 0).p_value < 0.05
    # The exact test keeps below its level; here, with some 32 discordant images, at 3.2 %.
    assert 0.02 < rejections / 2000 <= 0.05


def test_mcnemar_without_discordant_images_finds_nothing() -> None:
    a = np.array([True, True, False])
    assert (mcnemar(a, a).only_a, mcnemar(a, a).only_b, mcnemar(a, a).p_value) == (0, 0, 1)


@pytest.mark.parametrize(
    "labels", [np.array([3, 1, 4]), np.ones(3), np.ones((1, 3), bool), np.array([], bool)]
)
def test_mcnemar_refuses_what_does_not_say_right_or_wrong(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a boolean for each"):
        mcnemar(labels, np.ones(3, bool))
    with pytest.raises(ValueError, match="a boolean for each"):
        mcnemar(np.ones(3, bool), labels)


def test_paired_difference_over_images_equals_a_regression_clustered_by_image(
    raw_correct: np.ndarray, blurred_correct: np.ndarray
) -> None:
    result = paired_difference(raw_correct.mean(0), blurred_correct.mean(0))
    differences = raw_correct.astype(float) - blurred_correct.astype(float)
    image = np.broadcast_to(np.arange(10_000), differences.shape).ravel()
    fit = sm.OLS(differences.ravel(), np.ones(differences.size)).fit(
        cov_type="cluster", cov_kwds={"groups": image}, use_t=True
    )
    assert result.n == 10_000
    assert result.mean == pytest.approx(fit.params[0])
    assert ends(result.interval) == close(*fit.conf_int()[0])
    assert result.p_value == pytest.approx(fit.pvalues[0], rel=1e-6)


def test_seeds_that_share_the_test_images_are_no_further_images() -> None:
    """Why McNemar's docstring forbids pooling: it finds differences where there are none."""
    rng = np.random.default_rng(0)
    pooled = by_image = 0
    for _ in range(1000):
        # Whether a or b gets an image right is up to the image, in the same way at all five seeds.
        kind = rng.choice(4, 400, p=[0.8, 0.08, 0.08, 0.04])
        kind = np.where(rng.random((5, 400)) < 0.9, kind, 0)
        a, b = kind <= 1, kind % 2 == 0
        pooled += mcnemar(a.ravel(), b.ravel()).p_value < 0.05
        p_value = paired_difference(a.mean(0), b.mean(0)).p_value
        assert p_value is not None
        by_image += p_value < 0.05
    assert pooled / 1000 > 0.3
    assert_rate(by_image, 0.05, 1000)


# --- Welch ------------------------------------------------------------------------------------


def test_welch_agrees_with_statsmodels_whatever_the_sizes_and_spreads() -> None:
    for n, m, spread in ((2, 2, 1), (5, 5, 3), (5, 12, 0.1), (30, 3, 7)):
        a, b = accuracies(n), 0.999 + spread * (accuracies(m, seed=1) - 1)
        reference = CompareMeans(DescrStatsW(a), DescrStatsW(b))
        found = welch(a, b, confidence=0.9)
        _, p_value, _ = reference.ttest_ind(usevar="unequal")
        interval = reference.tconfint_diff(alpha=0.1, usevar="unequal")
        assert found.p_value == pytest.approx(p_value, rel=1e-9)
        assert ends(found.interval) == close(*interval)
        assert found.mean == pytest.approx(a.mean() - b.mean())


def test_welch_errs_as_often_as_it_says_where_spreads_differ() -> None:
    random = np.random.default_rng(0)
    hits = sum(
        (welch(random.normal(0, 1, 5), random.normal(0, 3, 15)).p_value or 1) < 0.05
        for _ in range(DRAWS)
    )
    assert_rate(hits, 0.05)


def test_welch_says_nothing_without_a_spread() -> None:
    for a, b in (([1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0]), ([1.0, 1.0], [2.0, 2.0])):
        found = welch(a, b)
        assert found.interval is None and found.p_value is None
    assert welch([1.0, 1.0], [1.0, 2.0]).p_value is not None
