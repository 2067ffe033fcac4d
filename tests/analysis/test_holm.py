"""Holm's correction of p values, by hand and against statsmodels."""

import math

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from mnist_bench.analysis.statistics import holm


def test_holm_by_hand() -> None:
    # 0.01 × 4, then 0.02 × 3, then 0.03 × 2 = 0.06 and 0.04 × 1, not below the one before.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1, 1]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@pytest.mark.parametrize("count", [2, 3, 8, 36])
def test_holm_equals_statsmodels(count: int) -> None:
    p_values = (np.random.default_rng(count).random(count) ** 6).tolist()
    p_values[0] = p_values[-1]  # a tie
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1], rel=1e-12)


@pytest.mark.parametrize("p_value", [-0.01, 1.01, math.nan])
def test_holm_refuses_what_is_no_p_value(p_value: float) -> None:
    with pytest.raises(ValueError, match="not a p value"):
        holm([0.5, p_value])
