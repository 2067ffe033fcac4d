"""The simulation uses the rules of a report, and what is committed keeps their promises."""

import numpy as np
import pytest

from benchmarks import decisions
from mnist_bench.analysis.best import compare_with_best
from mnist_bench.analysis.effects import Chance
from mnist_bench.analysis.statistics import holm
from mnist_bench.analysis.statistics import welch as welch_of_two

MEANS = np.array([0.0, 0.5, -1.0, 2.0])


def test_the_vectorised_rules_are_the_reports() -> None:
    rng = np.random.default_rng(0)
    values = decisions.draw(rng, 60, MEANS, 0.3, np.array([1.0, 1.0, 1.0, 6.0]))
    out = decisions.as_reported(values)
    pooled = set()
    for sweep, verdict in zip(values, out, strict=True):
        is_pooled = Chance(list(sweep)).is_pooled
        best = compare_with_best(list(sweep), equal_deviations=is_pooled)
        assert best is not None and verdict.tolist() == [not c for c in best.is_candidate]
        pooled.add(is_pooled)
    assert pooled == {True, False}
    differs = decisions.any_pair_differs(values[:, :2], values[:, 2:])
    for sweep, verdict in zip(values, differs, strict=True):
        p_values = [welch_of_two(sweep[i], sweep[i + 2]).p_value for i in range(2)]
        assert verdict == (min(holm(p_values)) < 0.05)
    assert {*differs} == {True, False}


def test_seeds_share_what_they_are_said_to() -> None:
    values = decisions.draw(np.random.default_rng(1), 4000, np.zeros(3), 0.6)
    assert values.std() == pytest.approx(1, abs=0.02)
    assert np.corrcoef(values[:, 0].ravel(), values[:, 1].ravel())[0, 1] == pytest.approx(
        0.6, abs=0.02
    )


def test_the_committed_rates_are_those_that_the_command_gives_and_keep_the_promises() -> None:
    committed = decisions.RESULTS.read_text()
    assert "--sweeps 1000 --seed 2026 --write" in committed
    rows = [
        [cell.strip(" %") for cell in line.strip("|").split("|")]
        for line in committed.splitlines()
        if line.startswith("| ") and line.count("|") == 9
    ][2:]
    found = [[float(cell) for cell in row] for row in rows]
    assert [row[0] for row in found] == [n for n in decisions.SETTINGS for _ in decisions.SHARED]
    least = dict(zip(decisions.SETTINGS, (85, 80, 72, 64), strict=True))
    for settings, _, _, best, _, _, behind, _ in found:
        assert best <= 6 and behind >= least[int(settings)]
    rng = np.random.default_rng(2026)
    first = decisions.rates(rng, 1000, 2, 0.0)
    assert [f"{100 * share:.1f}" for share in (first.best, first.behind)] == [
        rows[0][2],
        rows[0][5],
    ]
    families = [line for line in committed.splitlines() if line.count("|") == 4 and "%" in line]
    assert len(families) == 4 * len(decisions.SHARED)
    assert all(float(line.split("|")[3].strip(" %")) <= 6 for line in families)
