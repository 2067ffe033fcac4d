"""What more seeds would show: how large a difference has to be to be seen four times in five."""

import math
from collections.abc import Callable

from scipy import optimize, stats

from mnist_bench.analysis.best import dunnett_critical

POWER = 0.8
MOST_SEEDS = 1000

# From the number of seeds of each setting to the critical value of t and its degrees of freedom.
Test = Callable[[int], tuple[float, float]]


def of_a_pair(comparisons: int = 1, confidence: float = 0.95) -> Test:
    """The two-sided t-test of two settings, at Bonferroni's level where several are reported."""
    level = (1 - confidence) / comparisons

    def test(seeds: int) -> tuple[float, float]:
        freedom = 2 * seeds - 2
        return float(stats.t.isf(level / 2, freedom)), freedom

    return test


def of_the_best(settings: int, confidence: float = 0.95) -> Test:
    """Hsu's comparison of one of `settings` with another that is the best."""

    def test(seeds: int) -> tuple[float, float]:
        freedom = settings * (seeds - 1)
        return dunnett_critical(seeds, ((seeds, settings - 1),), freedom, confidence), freedom

    return test


def power(test: Test, seeds: int, difference: float, std: float) -> float:
    """Return the probability that two means which truly differ are told apart, the better above.

    t is then noncentral: its centre is difference / (std sqrt(2 / seeds)).
    """
    critical, freedom = test(seeds)
    return float(stats.nct.sf(critical, freedom, difference / (std * math.sqrt(2 / seeds))))


def visible_difference(test: Test, seeds: int, std: float) -> float:
    """Return the difference, in the units of `std`, that is seen with a power of 80 %."""
    reach = std * math.sqrt(2 / seeds)
    critical, _ = test(seeds)

    def excess(difference: float) -> float:
        return power(test, seeds, difference, std) - POWER

    return float(optimize.brentq(excess, 0, (2 * critical + 6) * reach, rtol=1e-6))


def seeds_needed(test: Test, difference: float, std: float) -> int | None:
    """Return the fewest seeds of each setting that show a difference with a power of 80 %.

    None if it takes more than a thousand.
    """
    if difference <= 0 or power(test, MOST_SEEDS, difference, std) < POWER:
        return None
    few, many = 1, MOST_SEEDS
    while many - few > 1:
        middle = (few + many) // 2
        if power(test, middle, difference, std) < POWER:
            few = middle
        else:
            many = middle
    return many
