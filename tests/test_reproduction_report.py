"""The report's numbers, against computations by hand on evidence that is made up here."""

import csv
import math
import subprocess
import sys

import numpy as np
import pytest
from train_command import REPOSITORY, environment

from mnist_bench.reproduction.evidence import CURVES, ERRORS, RUNS, read_evidence
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
from mnist_bench.reproduction.report import write_report

# The 0.975 quantiles of Student's distribution, as tables have them, by degrees of freedom.
T = {1: 12.7062, 2: 4.30265}


class Evidence:
    """Made-up evidence, written as the three CSV files."""

    def __init__(self, folder):
        self.folder = folder / "reproduction"
        self.runs, self.curves, self.errors = [], [], []

    def add(
        self, experiment, seed, figures, wrong=(), curve=(), precision="fp32", device="machine A"
    ):
        key = {"experiment": experiment, "seed": seed, "precision": precision, "device": device}
        rows = [dict(row) for row in curve] or [{"val_accuracy": 0.9, "train_accuracy": 0.9}] * 2
        filled = dict.fromkeys((f for f in CURVES if f.endswith(("loss", "accuracy"))), 0.5)
        self.curves += [{**filled, **key, "epoch": e, **row} for e, row in enumerate(rows, 1)]
        self.errors += [{**key, "image": i, "label": 3, "predicted": 5} for i in wrong]
        filled = dict.fromkeys((f for f in RUNS if f.endswith(("loss", "accuracy"))), 0.5)
        end = {"epochs": len(rows), "test_images": 10, "seconds_per_epoch": 20 + seed}
        end["test_errors"] = len(wrong)
        self.runs.append({**filled, **key, **end, **figures})

    def report(self, results):
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, columns, rows in (
            ("runs.csv", RUNS, self.runs),
            ("curves.csv", CURVES, self.curves),
            ("errors.csv", ERRORS, self.errors),
        ):
            with (self.folder / name).open("w", newline="") as file:
                writer = csv.DictWriter(file, columns, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
        written = write_report(results, read_evidence(self.folder))
        return written, (results / "reproduction.md").read_text()


@pytest.fixture
def evidence(tmp_path):
    return Evidence(tmp_path)


def rows_of(text, *starts):
    """The cells of each table row that begins so."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    return [row for row in rows if tuple(row[: len(starts)]) == starts]


def row_of(text, *starts):
    (row,) = rows_of(text, *starts)
    return row


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def published_column(experiment, column):
    rows = read_csv(PUBLISHED_CURVES)
    return [float(row[column]) for row in rows if row["experiment"] == experiment]


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
    assert (row["n"], row["precisions"], row["devices"]) == ("3", "fp32", "machine A")


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


def test_an_experiment_without_runs_says_so(evidence, tmp_path):
    evidence.add("cnn3x3", 0, {})
    _, text = evidence.report(tmp_path)
    assert row_of(text, "wide3x3", "0") == ["wide3x3", "0", "-", "not yet run", "99.14", "-"]
    assert "cnn5x5_no_dropout" not in text.split("## Every published figure")[0]


def test_the_time_is_the_median_over_the_runs_of_each_machine(evidence, tmp_path):
    for seed in range(3):  # 20, 21 and 22 s
        evidence.add("cnn3x3", seed, {})
    evidence.add("cnn3x3", 7, {}, device="machine B", precision="bf16")
    _, text = evidence.report(tmp_path)
    times = text.split("## Time")[1].split("## Curves")[0]
    assert rows_of(times, "cnn3x3") == [
        ["cnn3x3", "machine A", "fp32", "3", "21.0", "5"],
        ["cnn3x3", "machine B", "bf16", "1", "27.0", "5"],
    ]


def test_runs_that_are_not_counted_are_named(evidence, tmp_path):
    evidence.add("cnn3x3", 0, {"val_accuracy": 0.99})
    evidence.add("cnn3x3", 0, {"val_accuracy": 0.5}, device="machine B")
    evidence.add("cnn3x3", 1, {"val_accuracy": 0.99}, precision="bf16")
    _, text = evidence.report(tmp_path)
    flat = " ".join(text.split())
    assert "Other runs, by their seeds: cnn3x3 in fp32 on machine B: 0." in flat
    assert row_of(text, "cnn3x3", "2")[2:4] == ["1 fp32, 1 bf16", "99.00 ± 0.00"]


# --- Comparisons ------------------------------------------------------------------------------


def test_comparisons_are_paired_by_seed_and_adjusted_together(evidence, tmp_path):
    # cnn5x5 minus cnn3x3: 0.3, 0.1 and 0.2 points; seeds 3 and 4 have no partner.
    for seed, (ours, other) in enumerate(((0.993, 0.990), (0.992, 0.991), (0.994, 0.992))):
        evidence.add("cnn5x5", seed, {"test_accuracy": ours}, wrong=range(seed))
        evidence.add("cnn3x3", seed, {"test_accuracy": other}, wrong=range(1, 4))
    evidence.add("cnn5x5", 3, {"test_accuracy": 0.1})
    evidence.add("cnn3x3", 4, {"test_accuracy": 0.1})
    # wide5x7_bn minus wide3x3: 0.1 and 0.3 points, far from certain.
    for seed in range(2):
        evidence.add("wide5x7_bn", seed, {"test_accuracy": 0.991 + 0.002 * seed})
        evidence.add("wide3x3", seed, {"test_accuracy": 0.990})
    _, text = evidence.report(tmp_path)

    row = row_of(text, "Is 5 × 5 different from 3 × 3?")
    reach = T[2] * 0.1 / math.sqrt(3)
    assert row[2:6] == ["cnn5x5 minus cnn3x3", "fp32", "3", "+0.20"]
    assert row[6] == f"{0.2 - reach:+.2f} to {0.2 + reach:+.2f}"
    # Closed forms of Student's distribution: with 2 degrees of freedom p = 1 - t / sqrt(2 + t²),
    # with 1 degree p = 1 - 2 arctan(t) / pi. The means are 0.2 each, the standard errors 0.1 /
    # sqrt(3) and 0.1.
    t = 2 * math.sqrt(3)
    p, q = 1 - t / math.sqrt(2 + t * t), 1 - 2 * math.atan(2) / math.pi
    assert row[7:] == [f"{p:.4f}", f"{2 * p:.4f}"]
    assert row_of(text, "Is Model 3 better than Model 1?")[7:] == [f"{q:.4f}", f"{q:.4f}"]
    flat = " ".join(text.split())
    assert "Not yet run with a common seed: wide3x5_bn minus wide3x3" in flat

    images = [row[1:4] for row in rows_of(text, "cnn5x5 minus cnn3x3")]
    # Wrong images of cnn5x5: none, {0}, {0, 1}; of cnn3x3: {1, 2, 3} each time.
    assert images == [["0", "3", "0"], ["1", "3", "1"], ["2", "2", "1"], ["all", "-", "-"]]
    # Sign test by hand: 2 * (1/2)^3, 2 * (1 + 4) / 2^4, 1.
    assert [row[-1] for row in rows_of(text, "cnn5x5 minus cnn3x3")][:3] == [
        *("0.2500", "0.6250", "1.0000")
    ]


def test_a_pair_is_of_one_precision(evidence, tmp_path):
    evidence.add("cnn5x5", 0, {"test_accuracy": 0.99})
    evidence.add("cnn3x3", 0, {"test_accuracy": 0.98}, precision="bf16")
    _, text = evidence.report(tmp_path)
    assert "Not yet run with a common seed: cnn5x5 minus cnn3x3" in text
    evidence.add("cnn5x5", 0, {"test_accuracy": 0.97}, precision="bf16")
    _, text = evidence.report(tmp_path)
    assert row_of(text, "Is 5 × 5 different from 3 × 3?")[3:6] == ["bf16", "1", "-1.00"]


def test_bf16_is_compared_with_fp32_seed_by_seed(evidence, tmp_path):
    for seed, difference in enumerate((0.0010, 0.0030)):
        evidence.add("cnn3x3", seed, {"test_loss": 0.03, "test_accuracy": 0.99})
        evidence.add(
            "cnn3x3",
            seed,
            {"test_loss": 0.03 + difference, "test_accuracy": 0.985},
            precision="bf16",
        )
    evidence.add("cnn3x3", 2, {"test_loss": 9})
    _, text = evidence.report(tmp_path)
    reach = T[1] * 0.001
    text = text.split("## Precision")[1]
    assert row_of(text, "cnn3x3", "machine A", "test loss")[3:6] == [
        *("2", "+0.0020", f"{0.002 - reach:+.4f} to {0.002 + reach:+.4f}")
    ]
    assert row_of(text, "cnn3x3", "machine A", "test accuracy, %")[3:5] == ["2", "-0.50"]


# --- Findings ---------------------------------------------------------------------------------


def vgg16_curve(offset_binary, offset_classes):
    return [
        {
            "val_binary_accuracy": value - offset_binary,
            "val_accuracy": value - offset_classes,
            "train_binary_accuracy": 0.99,
        }
        for value in published_column("vgg16", "val_accuracy")
    ]


@pytest.mark.parametrize("swapped", [False, True])
def test_the_nearer_accuracy_is_found_in_the_runs_and_not_taken_for_granted(
    evidence, tmp_path, swapped
):
    offsets = (0.008, 0.0005) if swapped else (0.0005, 0.008)
    evidence.add("vgg16", 0, {}, curve=vgg16_curve(*offsets))
    _, text = evidence.report(tmp_path)
    names = ["`val_binary_accuracy`", "`val_accuracy`"][:: -1 if swapped else 1]
    assert (
        f"is on average 0.05 percentage points away from our {names[0]} and 0.80 from our "
        f"{names[1]}"
    ) in " ".join(text.split())
    assert (tmp_path / "reproduction" / "finding_vgg16.png").is_file()


def test_a_finding_is_shown_as_far_as_a_stopped_run_goes(evidence, tmp_path):
    nothing = dict.fromkeys((f for f in RUNS if f.endswith(("loss", "accuracy"))), "")
    nothing |= {"test_images": "", "test_errors": ""}
    evidence.add("vgg16", 0, nothing, curve=vgg16_curve(0.0005, 0.008)[:3])
    evidence.add("vgg16", 1, nothing, curve=vgg16_curve(0.5, 0.5)[:2])
    _, text = evidence.report(tmp_path)
    plain = " ".join(text.split())
    assert "Over the first 3 of its 50 epochs" in plain
    assert "0.05 percentage points away from our `val_binary_accuracy` and 0.80" in plain
    assert rows_of(text, "vgg16")[0][1:4] == ["0", "-", "not yet run"]


def test_a_reading_is_compared_as_far_as_it_goes(evidence, tmp_path):
    nothing = dict.fromkeys((f for f in RUNS if f.endswith(("loss", "accuracy"))), "")
    nothing |= {"test_images": "", "test_errors": ""}
    log = published_column("cnn5x5_single", "train_loss")
    for name, epochs in zip(READINGS, (20, 20, 3), strict=True):
        curve = [{"train_loss": loss + 0.01, "val_loss": 0.1} for loss in log[:epochs]]
        evidence.add(name, 0, nothing if epochs == 3 else {}, curve=curve)
    _, text = evidence.report(tmp_path)
    for reading in READINGS.values():
        assert row_of(text, reading)[-2] == "0.0100"


def test_epochs_with_training_loss_above_validation_loss_are_counted(evidence, tmp_path):
    for epochs_above, experiment in zip((20, 3, 7), READINGS, strict=True):
        curve = [
            {"train_loss": 0.2 if epoch < epochs_above else 0.05, "val_loss": 0.1}
            for epoch in range(20)
        ]
        evidence.add(experiment, 0, {}, curve=curve)
    _, text = evidence.report(tmp_path)
    assert row_of(text, "the published log")[1:7] == [
        "1",
        "0.5249",
        "0.1470",
        "0.0307",
        "0.0269",
        "20",
    ]
    counts = [row_of(text, reading)[6] for reading in READINGS.values()]
    assert counts == ["20", "3", "7"]
    log = [
        float(r["val_loss"])
        for r in read_csv(PUBLISHED_CURVES)
        if r["experiment"] == "cnn5x5_single"
    ]
    assert row_of(text, "two convolutions, without dropout")[8] == (
        f"{np.mean([abs(0.1 - loss) for loss in log]):.4f}"
    )


def test_findings_without_their_runs_are_skipped(evidence, tmp_path):
    evidence.add("cnn5x5_single", 0, {}, curve=[{}] * 20)
    _, text = evidence.report(tmp_path)
    assert "Not yet run: vgg16." in text
    assert "Not yet run: cnn5x5_single_no_dropout, cnn5x5_no_dropout." in text
    assert not list((tmp_path / "reproduction").glob("finding_*"))


# --- The files --------------------------------------------------------------------------------


def test_the_same_evidence_gives_the_same_bytes(evidence, tmp_path):
    for experiment in (*READINGS, "vgg16"):
        for seed in range(2):
            curve = vgg16_curve(0.001 * seed, 0.008) if experiment == "vgg16" else [{}] * 20
            evidence.add(experiment, seed, {"test_accuracy": 0.99 + seed / 1000}, curve=curve)
    first, _ = evidence.report(tmp_path / "first")
    evidence.runs.reverse()  # the rows' order is not part of the evidence
    second, _ = evidence.report(tmp_path / "second")
    assert [p.relative_to(tmp_path / "first") for p in first] == [
        *(p.relative_to(tmp_path / "second") for p in second)
    ]
    assert len(first) == 2 + 4 + 2
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one


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
        reproduce(runs=Path("runs"), results=Path("."), train=False)
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
