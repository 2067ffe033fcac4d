"""What decides a comparison, against SciPy and statsmodels, on evidence that is made up here."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats
from statsmodels.stats.multitest import multipletests

from tests.support.made_up_evidence import Evidence, row_of, rows_of

SMALL, LARGE = "Is 5 × 5 different from 3 × 3?", "Is Model 3 better than Model 1?"


@pytest.fixture
def evidence(tmp_path, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)  # the text is what counts here
    return Evidence(tmp_path)


def add(evidence, experiment, accuracies, **how):
    for seed, accuracy in enumerate(accuracies):
        evidence.add(experiment, seed, {"test_accuracy": accuracy}, **how)


def test_questions_are_decided_by_welch_and_holm_over_all_six(evidence, tmp_path):
    five = [0.9934, 0.9935, 0.9928, 0.9940, 0.9945]
    three = [0.9923, 0.9913, 0.9918, 0.9908]  # as many as there are: seeds are not paired
    model3, model1 = [0.9937, 0.9938, 0.9936], [0.9913, 0.9919, 0.9905]
    for name, accuracies in zip(
        ("cnn5x5", "cnn3x3", "wide5x7_bn", "wide3x3"), (five, three, model3, model1), strict=True
    ):
        add(evidence, name, accuracies)
    _, text = evidence.report(tmp_path)
    tests = [stats.ttest_ind(a, b, equal_var=False) for a, b in ((five, three), (model3, model1))]
    # The other four questions have no runs; the family was of six before there were any.
    _, adjusted, *_ = multipletests([test.pvalue for test in tests] + [1.0] * 4, method="holm")
    for question, sides, test, holm in zip(
        (SMALL, LARGE), ((five, three), (model3, model1)), tests, adjusted, strict=False
    ):
        between = test.confidence_interval(0.95)
        runs, mean, interval, p, p_holm, different = row_of(text, question)[5:]
        assert runs == f"{len(sides[0])} and {len(sides[1])}"
        assert mean == f"{100 * (np.mean(sides[0]) - np.mean(sides[1])):+.2f}"
        assert interval == f"{100 * between.low:+.2f} to {100 * between.high:+.2f}"
        assert (p, p_holm) == (f"{test.pvalue:.4f}", f"{holm:.4f}")
        assert different == ("yes" if holm < 0.05 else "not shown")
    # Both verdicts are seen here, and the second is one that a single test would have made.
    assert adjusted[0] < 0.05 < adjusted[1] and tests[1].pvalue < 0.05


def test_both_sides_are_of_the_precision_and_machine_with_most_runs_on_the_smaller(
    evidence, tmp_path
):
    add(evidence, "cnn5x5", [0.990] * 9 + [0.991], device="machine A")
    add(evidence, "cnn3x3", [0.990, 0.991], device="machine A")
    for name in ("cnn5x5", "cnn3x3"):
        add(evidence, name, [0.992, 0.993, 0.994], device="machine C", precision="bf16")
    _, text = evidence.report(tmp_path)
    assert row_of(text, SMALL)[3:6] == ["bf16", "machine C", "3 and 3"]
    for name in ("cnn5x5", "cnn3x3"):
        add(evidence, name, [0.992, 0.993, 0.994], device="machine B", precision="bf16")
    _, text = evidence.report(tmp_path)
    assert row_of(text, SMALL)[3:6] == ["bf16", "machine B", "3 and 3"]
    for name in ("cnn5x5", "cnn3x3"):
        add(evidence, name, [0.992, 0.993, 0.994], device="machine D")
    _, text = evidence.report(tmp_path)
    assert row_of(text, SMALL)[3:6] == ["fp32", "machine D", "3 and 3"]


def test_precisions_and_machines_are_not_mixed(evidence, tmp_path):
    add(evidence, "cnn5x5", [0.990, 0.991], device="machine A")
    add(evidence, "cnn3x3", [0.980, 0.981], device="machine B")
    add(evidence, "cnn3x3", [0.970, 0.971], device="machine A", precision="bf16")
    _, text = evidence.report(tmp_path)
    flat = " ".join(text.split())
    assert "Not yet run in one precision on one machine: cnn5x5 minus cnn3x3" in flat
    assert rows_of(text, SMALL) == []


def test_one_run_on_a_side_decides_nothing(evidence, tmp_path):
    add(evidence, "cnn5x5", [0.99])
    add(evidence, "cnn3x3", [0.98, 0.981])
    _, text = evidence.report(tmp_path)
    assert row_of(text, SMALL)[5:] == ["1 and 2", "+0.95", "-", "-", "-", "-"]
    assert " ".join(text.split()).count("Not yet run in one precision on one machine:") == 5


def test_runs_from_before_the_rule_are_counted(evidence, tmp_path):
    dates = {"cnn5x5": "2026-11-27T02:30:00+0000", "cnn3x3": "2026-11-27T02:31:00+0000"}
    for name, started in dates.items():
        for seed in range(2):
            evidence.add(name, seed, {"test_accuracy": 0.99 + seed / 1000, "started": started})
    _, text = evidence.report(tmp_path)
    flat = " ".join(text.split())
    assert "of the 4 runs compared here 2 began before it" in flat


def test_images_are_counted_seed_by_seed_and_decide_nothing(evidence, tmp_path):
    for seed in range(3):
        evidence.add("cnn5x5", seed, {"test_accuracy": 0.99}, wrong=range(seed))
        evidence.add("cnn3x3", seed, {"test_accuracy": 0.99}, wrong=range(1, 4))
    evidence.add("cnn5x5", 3, {"test_accuracy": 0.99}, wrong=[9])
    _, text = evidence.report(tmp_path)
    *seeds, together = rows_of(text, "cnn5x5 minus cnn3x3")
    # Wrong images of cnn5x5: none, {0}, {0, 1}; of cnn3x3: {1, 2, 3} each time.
    assert [row[1:4] for row in seeds] == [["0", "3", "0"], ["1", "3", "1"], ["2", "2", "1"]]
    # Sign test by hand: 2 * (1/2)^3, 2 * (1 + 4) / 2^4, 1.
    assert [row[-1] for row in seeds] == ["0.2500", "0.6250", "1.0000"]
    right = np.ones((2, 4, 10))
    for seed, wrong in enumerate(([], [0], [0, 1], [9])):
        right[0, seed, wrong] = 0
    right[1, :, 1:4] = 0
    test = stats.ttest_rel(right[0].mean(0), right[1].mean(0))
    assert together[1] == "all" and together[-1] == f"{test.pvalue:.4f}"
    assert together[4].startswith(f"{100 * (right[0].mean() - right[1].mean()):+.2f} (")
    # Not by the seeds, whose accuracies are said to be equal.
    assert row_of(text, SMALL)[-1] == "-"


# --- The same recipe, computed in two ways ----------------------------------------------------


def test_bf16_is_compared_with_fp32_seed_by_seed(evidence, tmp_path):
    fp32, bf16 = [0.030, 0.031, 0.029], [0.031, 0.034, 0.031]
    for seed, losses in enumerate(zip(fp32, bf16, strict=True)):
        for precision, loss in zip(("fp32", "bf16"), losses, strict=True):
            figures = {"test_loss": loss, "test_accuracy": 0.99 - (precision == "bf16") / 200}
            evidence.add("cnn3x3", seed, figures, precision=precision)
    evidence.add("cnn3x3", 3, {"test_loss": 9})
    evidence.add("cnn3x3", 4, {"test_loss": 9})
    evidence.add("cnn3x3", 4, {"test_loss": 1}, precision="bf16", device="machine B")
    _, text = evidence.report(tmp_path)
    text = text.split("## Precision")[1]
    between = stats.ttest_rel(bf16, fp32).confidence_interval(0.95)
    assert row_of(text, "cnn3x3", "machine A", "test loss")[3:] == [
        *("3", "+0.0020", f"{between.low:+.4f} to {between.high:+.4f}")
    ]
    assert row_of(text, "cnn3x3", "machine A", "test accuracy, %")[3:] == ["3", "-0.50", "-"]


def test_machines_are_compared_over_seeds_in_one_precision(evidence, tmp_path):
    here, there = [0.990, 0.991, 0.992, 0.991], [0.989, 0.991, 0.990]
    add(evidence, "cnn3x3", here, device="machine A")
    add(evidence, "cnn3x3", there, device="machine B")
    add(evidence, "cnn3x3", there, device="machine C", precision="bf16")
    add(evidence, "cnn5x5", [0.97, 0.98, 0.96], device="machine A", precision="bf16")
    add(evidence, "cnn5x5", [0.1], device="machine B", precision="bf16")
    _, text = evidence.report(tmp_path)
    text = text.split("## Machines")[1].split("##")[0]
    test = stats.ttest_ind(here, there, equal_var=False)
    between = test.confidence_interval(0.95)
    assert rows_of(text, "cnn3x3") == [
        [
            *("cnn3x3", "fp32", "machine A minus machine B", "4 and 3", "+0.10"),
            f"{100 * between.low:+.2f} to {100 * between.high:+.2f}",
            f"{test.pvalue:.4f}",
        ]
    ]
    assert rows_of(text, "cnn5x5") == []  # one run makes no test
