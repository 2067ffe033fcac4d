"""The report's numbers, against computations by hand on evidence that is made up here."""

import math
import subprocess
import sys

import pytest

from mnist_bench.reproduction.findings import READINGS
from mnist_bench.reproduction.published import (
    CURVES as PUBLISHED_CURVES,
)
from mnist_bench.reproduction.published import (
    EXPERIMENTS,
    FIGURES,
    PUBLISHED,
    SECONDS_PER_EPOCH,
)
from tests.support.made_up_evidence import Evidence, read_csv, row_of, rows_of, vgg16_curve
from tests.support.train_command import REPOSITORY, environment

# The 0.975 quantiles of Student's distribution, as tables have them, by degrees of freedom.
T = {1: 12.7062, 2: 4.30265}


@pytest.fixture
def evidence(tmp_path):
    return Evidence(tmp_path)


# --- The published figures --------------------------------------------------------------------


def test_the_published_figures_are_the_last_rows_of_the_published_curves():
    curves = {}
    for row in read_csv(PUBLISHED_CURVES):
        curves.setdefault(row["experiment"], []).append(row)
    compared = 0
    for figure in FIGURES:
        if figure.source == "README 001" or figure.key == "test_accuracy":
            continue  # of another run, and of the test set: no curve has them
        rows = curves[figure.experiment]
        if figure.key == "best_val_accuracy":
            published = max(float(row["val_accuracy"]) for row in rows)
        elif figure.key == "test_loss":
            published = float(rows[-1]["val_loss"])
        else:
            published = float(rows[-1][figure.key.replace("binary_", "")])
        assert round(figure.value, 4) == published, figure
        compared += 1
    assert compared == 33
    assert {figure.experiment for figure in FIGURES} == set(curves) == set(PUBLISHED) - {"cnn5x5"}
    assert set(SECONDS_PER_EPOCH) == set(curves)


# --- The table of the figures -----------------------------------------------------------------


def test_mean_deviation_and_intervals_are_those_of_student(evidence, tmp_path):
    for seed, accuracy in enumerate((0.9920, 0.9926, 0.9923)):
        evidence.add("cnn3x3", seed, {"val_accuracy": accuracy, "val_loss": 0.03 + seed / 1000})
    _, text = evidence.report(tmp_path)
    # The mean is 99.23 %, the deviation 0.03 %.
    reach, further = T[2] * 0.03 / math.sqrt(3), T[2] * 0.03 * math.sqrt(1 + 1 / 3)
    assert row_of(text, "cnn3x3", "val accuracy, %") == [
        *("cnn3x3", "val accuracy, %", "notebook 003", "99.26", "99.23", "0.03", "3"),
        f"{99.23 - reach:.2f} to {99.23 + reach:.2f}",
        f"{99.23 - further:.2f} to {99.23 + further:.2f}",
        "yes",
    ]
    # 0.030, 0.031, 0.032; published 0.0263.
    further = T[2] * 0.001 * math.sqrt(1 + 1 / 3)
    loss = row_of(text, "cnn3x3", "val loss")
    assert loss[3:7] == ["0.0263", "0.0310", "0.0010", "3"]
    assert loss[8:] == [f"{0.031 - further:.4f} to {0.031 + further:.4f}", "yes"]
    (row,) = (
        r
        for r in read_csv(tmp_path / "reproduction.csv")
        if (r["experiment"], r["figure"]) == ("cnn3x3", "val_accuracy")
    )
    assert float(row["mean"]) == pytest.approx(0.9923)
    assert float(row["prediction_low"]) == pytest.approx(
        0.9923 - T[2] * 3e-4 * math.sqrt(4 / 3), rel=1e-6
    )
    assert (row["n"], row["precision"], row["device"]) == ("3", "fp32", "machine A")


def test_figures_inside_and_outside_are_counted(evidence, tmp_path):
    for seed in range(3):
        evidence.add(
            "cnn3x3",
            seed,
            {
                "val_accuracy": 0.9925 + seed / 1e4,  # published 0.9926: inside
                "val_loss": 0.05 + seed / 1e4,  # published 0.0263: outside
                "train_accuracy": 0.9939,  # no spread: not judged
                "train_loss": 0.0178,
            },
        )
    evidence.add("mnist_cnn", 0, {})  # one run: not judged
    _, text = evidence.report(tmp_path)
    assert [row[-1] for row in rows_of(text, "cnn3x3") if "notebook 003" in row] == [
        *("yes", "no", "no spread", "no spread")
    ]
    assert {row[-1] for row in rows_of(text, "mnist_cnn") if "README 002" in row} == {"one run"}
    flat = " ".join(text.split())
    assert (
        "1 of 2 published figures lie inside the 95 % prediction interval of our runs, 1 outside; "
        "chance alone would put 0.1 of 2 outside"
    ) in flat


def test_figures_that_a_wrong_experiment_holds_too_are_said_to_tell_little(evidence, tmp_path):
    published = {"val_accuracy": 0.9926, "val_loss": 0.0263, "train_accuracy": 0.9939}
    for seed in range(3):
        near = {column: value + (seed - 1) / 1e4 for column, value in published.items()}
        evidence.add("cnn5x5", seed, {**near, "train_loss": 0.0178 + (seed - 1) / 1e4})
    _, text = evidence.report(tmp_path)
    told = "the figures of 1 of 7 experiments (cnn3x3) all lie inside the intervals of a wrong"
    assert told in " ".join(text.split())
    evidence.add("cnn5x5", 3, {**published, "val_loss": 0.9, "train_loss": 0.0178})
    _, text = evidence.report(tmp_path)
    assert "(cnn3x3)" in text  # the interval has become wide
    for seed in range(3):
        evidence.add("cnn5x5", 4 + seed, {**published, "train_loss": 0.5})
    evidence.runs = [run for run in evidence.runs if run["train_loss"] == 0.5]
    evidence.curves = [row for row in evidence.curves if row["seed"] > 3]
    _, text = evidence.report(tmp_path)
    assert "a wrong experiment" not in text


def test_an_experiment_without_runs_says_so(evidence, tmp_path):
    evidence.add("cnn3x3", 0, {})
    _, text = evidence.report(tmp_path)
    assert row_of(text, "wide3x3", "0") == ["wide3x3", "0", "-", "-", "not yet run", "99.14", "-"]
    assert "cnn5x5_no_dropout" not in text.split("## Every published figure")[0]


def test_the_time_is_the_median_over_the_runs_of_each_machine(evidence, tmp_path):
    for seed in range(3):  # 20, 21 and 22 s
        evidence.add("cnn3x3", seed, {})
    evidence.add("cnn3x3", 7, {}, device="machine B", precision="bf16")
    _, text = evidence.report(tmp_path)
    times = text.split("## Time")[1]
    assert rows_of(times, "cnn3x3") == [
        ["cnn3x3", "machine A", "fp32", "3", "21.0", "5"],
        ["cnn3x3", "machine B", "bf16", "1", "27.0", "5"],
    ]


def test_runs_that_are_not_counted_are_named(evidence, tmp_path):
    evidence.add("cnn3x3", 0, {"val_accuracy": 0.9})
    evidence.add("cnn3x3", 1, {"val_accuracy": 0.9}, precision="bf16")
    for seed in (1, 2):
        figures = {"val_accuracy": 0.5, "test_accuracy": 0.98}
        evidence.add("cnn3x3", seed, figures, device="machine B")
    _, text = evidence.report(tmp_path)
    assert row_of(text, "cnn3x3", "2")[2:5] == ["fp32", "machine B", "50.00 ± 0.00"]
    others = text.split("other runs")[1].split("##")[0]
    assert rows_of(others, "cnn3x3") == [
        ["cnn3x3", "bf16", "machine A", "1", "50.00"],
        ["cnn3x3", "fp32", "machine A", "0", "50.00"],
    ]


# --- The files --------------------------------------------------------------------------------


def test_the_same_evidence_gives_the_same_bytes(evidence, tmp_path):
    for experiment in (*READINGS, "vgg16"):
        for seed in range(3):
            curve = vgg16_curve(0.001 * seed, 0.008) if experiment == "vgg16" else [{}] * 20
            evidence.add(experiment, seed, {"test_accuracy": 0.99 + seed / 1000}, curve=curve)
    first, _ = evidence.report(tmp_path / "first")
    evidence.runs.reverse()  # the rows' order is not part of the evidence
    second, _ = evidence.report(tmp_path / "second")
    assert [p.relative_to(tmp_path / "first") for p in first] == [
        *(p.relative_to(tmp_path / "second") for p in second)
    ]
    assert len(first) == 2 + 2 + 4 + 2
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one


@pytest.mark.slow
def test_every_experiment_can_be_drawn(evidence, tmp_path):
    for experiment in EXPERIMENTS:
        curve = vgg16_curve(0.001, 0.008) if experiment == "vgg16" else [{}] * 20
        evidence.add(experiment, 0, {}, curve=curve)
    written, text = evidence.report(tmp_path)
    for experiment in EXPERIMENTS:
        assert tmp_path / "reproduction" / f"{experiment}.png" in written
        assert f"(reproduction/{experiment}.png)" in text


WITHOUT = """
import sys
from pathlib import Path
from mnist_bench.errors import ConfigError
from mnist_bench.reproduction.reproduce import reproduce
for package in ("scipy", "matplotlib"):
    sys.modules[package] = None  # as if it were not installed
    try:
        reproduce(results=Path("."), train=False)
    except ConfigError as error:
        print(error)
    del sys.modules[package]
"""


def test_without_the_packages_of_the_report_it_is_refused_and_the_evidence_kept(evidence, tmp_path):
    evidence.add("cnn3x3", 0, {})
    evidence.report(tmp_path / "elsewhere")
    before = (tmp_path / "reproduction" / "runs.csv").read_text()
    process = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        cwd=tmp_path,
        env=environment(tmp_path, PYTHONPATH=str(REPOSITORY)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.stdout.splitlines() == [
        f"The report takes {package}, which is not installed: pip install "
        f'"mnist-bench[reports]", and --no-train writes it from what is there.'
        for package in ("scipy", "matplotlib")
    ], process.stderr
    assert (tmp_path / "reproduction" / "runs.csv").read_text() == before
    assert not (tmp_path / "reproduction.md").exists()
