"""The committed rows, and the figures of the READMEs recomputed from them.

From the CSV files alone, by the standard library and NumPy: none of the code that wrote the report.
"""

import statistics

import numpy as np
import pytest
from matplotlib.figure import Figure

from mnist_bench.reproduction.evidence import read_evidence
from mnist_bench.reproduction.report import write_report
from tests.support.committed import (
    CURVES,
    ERRORS,
    GPU,
    RESULTS,
    RUNS,
    VGG16_SEEDS,
    gpu_curve,
    gpu_run,
    key_of,
    listed,
    read_csv,
)
from tests.support.train_command import REPOSITORY

# --- The rows themselves ----------------------------------------------------------------------


def test_accuracies_are_those_of_the_images_that_were_got_wrong(mnist_root):
    path = mnist_root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    labels = np.frombuffer(path.read_bytes(), np.uint8)[8:]
    wrong = {key_of(run): set() for run in RUNS}
    for row in ERRORS:
        assert int(row["label"]) == labels[int(row["image"])] != int(row["predicted"]), row
        wrong[key_of(row)].add(row["image"])
    whole = [run for run in RUNS if run["test_accuracy"]]
    assert sum(run["device"] == GPU for run in whole) == 27
    for run in whole:
        accuracy = 1 - len(wrong[key_of(run)]) / len(labels)
        assert float(run["test_accuracy"]) == pytest.approx(accuracy, abs=1e-9), key_of(run)


def test_runs_are_the_last_rows_of_their_curves():
    for run in RUNS:
        if run["test_accuracy"]:
            curve = [row for row in CURVES if key_of(row) == key_of(run)]
            assert [int(row["epoch"]) for row in curve] == [*range(1, int(run["epochs"]) + 1)]
            for column in ("train_loss", "val_accuracy", "val_binary_accuracy"):
                assert run[column] == curve[-1][column]


def test_runs_that_shared_a_gpu_have_no_times():
    for row in (*RUNS, *CURVES):
        if row["device"] == GPU:
            alone = row["experiment"] != "vgg16" or row["seed"] == "0"
            times = [
                row[c] for c in ("seconds_per_epoch", "seconds", "images_per_second") if c in row
            ]
            assert [bool(time) for time in times] == [alone] * len(times), key_of(row)


def test_the_committed_report_is_that_of_the_committed_evidence(tmp_path, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)
    write_report(tmp_path, read_evidence(RESULTS / "reproduction"))
    tables = ("reproduction/intervals.csv", "reproduction/agreement.csv")
    for name in ("reproduction.md", "reproduction.csv", *tables):
        assert (tmp_path / name).read_text() == (RESULTS / name).read_text()


# --- README.md --------------------------------------------------------------------------------


def readme_rows(path="results/README.md"):
    lines = (REPOSITORY / path).read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| `experiment=`"))
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


def test_readme_has_five_of_these_rows():
    """All but the epochs, the number of runs, and the first epoch."""
    full = {row[0]: [row[0], row[2], row[3], row[5], row[6]] for row in readme_rows()}
    rows = list(readme_rows("README.md"))
    assert len(rows) == 5 and len(full) == 9
    assert all(row == full[row[0]] for row in rows)


def test_readmes_gpu_columns_are_those_of_the_rows():
    names = []
    for name, epochs, *_, accuracy, training, first in readme_rows():
        names.append(name.strip("`"))
        run, seconds = gpu_run(names[-1]), gpu_curve(names[-1], "seconds")
        assert run["git_commit"].startswith("e0c4d08") and run["torch"] == "2.11.0"
        assert (epochs, len(seconds)) == (run["epochs"], int(run["epochs"]))
        runs = [row for row in RUNS if (row["experiment"], row["device"]) == (names[-1], GPU)]
        assert len(runs) == {"vgg16": 4, "conv3_dense7744": 2}.get(names[-1], 3)
        values = [100 * float(row["test_accuracy"]) for row in runs]
        assert accuracy == f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f} %"
        assert (training, first) == (f"{sum(seconds):.1f} s", f"{seconds[0]:.2f} s")
    assert sorted(names) == sorted({run["experiment"] for run in RUNS if run["device"] == GPU})


def test_readmes_cpu_columns_are_those_of_the_rows():
    for name, _, published, accuracy, runs, *_ in readme_rows():
        by_seed = {}
        for run in sorted(RUNS, key=lambda run: run["precision"]):  # fp32 comes last, and stays
            if (
                run["experiment"] == name.strip("`")
                and run["device"] != GPU
                and run["test_accuracy"]
            ):
                by_seed[run["seed"]] = run
        precisions = [run["precision"] for run in by_seed.values()]
        counts = {p: precisions.count(p) for p in ("fp32", "bf16") if p in precisions}
        assert runs == ", ".join(f"{count} {precision}" for precision, count in counts.items())
        values = [100 * float(run["test_accuracy"]) for run in by_seed.values()]
        if not values:
            expected = ""
        elif len(values) == 1:
            expected = f"{values[0]:.2f} %"
        else:
            expected = f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f} %"
        assert accuracy == expected, name
        table = read_csv(RESULTS / "reproduction.csv")
        told = [row["published"] for row in table if row["experiment"] == name.strip("`")]
        assert published == (f"{100 * float(told[0]):.2f} %" if told[0] else ""), name


def test_readme_says_how_long_an_epoch_took_on_the_cpu_and_how_other_seeds_ended():
    fp32 = {}
    for run in RUNS:
        if run["precision"] == "fp32" and run["device"] != GPU:
            fp32.setdefault(run["experiment"], []).append(float(run["seconds_per_epoch"]))
    medians = sorted(statistics.median(seconds) for seconds in fp32.values())
    text = " ".join((REPOSITORY / "results" / "README.md").read_text().split())
    assert f"{medians[0]:.0f} s to {medians[-1] / 60:.0f} min in fp32" in text
    seeds = [float(gpu_run("vgg16", seed)["test_accuracy"]) for seed in VGG16_SEEDS]
    assert f"`vgg16`'s next three seeds ended at {listed(seeds[1:])}" in text
