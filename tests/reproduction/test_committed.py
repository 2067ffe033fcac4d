"""The committed rows, and the tables of the READMEs recomputed from them.

From the CSV files alone, by NumPy and SciPy: none of the code that wrote the report.
"""

import doctest
import subprocess
from collections import Counter

import numpy as np
import pytest
from matplotlib.figure import Figure

from mnist_bench.reproduction.evidence import read_evidence
from mnist_bench.reproduction.report import write_report
from tests.support.committed import (
    CURVES,
    ERRORS,
    H100,
    H200,
    RESULTS,
    RUNS,
    counted,
    key_of,
    last,
    mean_interval,
    prediction_interval,
    read_csv,
)
from tests.support.train_command import REPOSITORY

# --- The rows themselves ----------------------------------------------------------------------


def test_every_experiment_has_its_seeds_at_one_commit():
    """vgg16's four runs are of two commits; every other experiment has five of one."""
    campaign = [run for run in RUNS if (run["precision"], run["device"]) == ("fp32", H100)]
    others = {run["experiment"] for run in RUNS} - {"vgg16"}
    assert Counter(run["experiment"] for run in campaign) == dict.fromkeys(others, 5)
    (commit,) = {run["git_commit"] for run in RUNS if run["device"] == H100}
    assert commit.startswith("8873442")
    assert {run["torch"] for run in RUNS if run["device"] == H100} == {"2.11.0"}
    older = {run["seed"]: run["git_commit"][:7] for run in RUNS if run["device"] == H200}
    assert older == {"0": "e0c4d08", **dict.fromkeys("123", "2e99cf2")}
    assert all(run["test_accuracy"] for run in RUNS)


def test_the_campaign_began_after_its_plan_was_written():
    asked = ["git", "log", "-1", "--format=%cI", "8873442", "--", "docs/log/2026-11-26-campaign.md"]
    told = subprocess.run(asked, cwd=REPOSITORY, capture_output=True, text=True)
    if told.returncode or not told.stdout:
        pytest.skip("no checkout with that commit")
    first = min(run["started"] for run in RUNS if run["device"] == H100)
    assert told.stdout[:19] < first[:19]  # both in UTC


def test_accuracies_are_those_of_the_images_that_were_got_wrong(mnist_root):
    path = mnist_root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    labels = np.frombuffer(path.read_bytes(), np.uint8)[8:]
    wrong = {key_of(run): set() for run in RUNS}
    for row in ERRORS:
        assert int(row["label"]) == labels[int(row["image"])] != int(row["predicted"]), row
        wrong[key_of(row)].add(row["image"])
    for run in RUNS:
        accuracy = 1 - len(wrong[key_of(run)]) / len(labels)
        assert float(run["test_accuracy"]) == pytest.approx(accuracy, abs=1e-9), key_of(run)


def test_runs_are_the_last_rows_of_their_curves():
    by_run = {}
    for row in CURVES:
        by_run.setdefault(key_of(row), []).append(row)
    for run in RUNS:
        curve = by_run[key_of(run)]
        assert [int(row["epoch"]) for row in curve] == [*range(1, int(run["epochs"]) + 1)]
        for column in ("train_loss", "val_accuracy", "val_binary_accuracy"):
            assert run[column] == curve[-1][column]


def test_runs_that_shared_a_device_have_no_times():
    for row in (*RUNS, *CURVES):
        alone = key_of(row) == ("vgg16", "0", "bf16", H200)
        times = [row[c] for c in ("seconds_per_epoch", "seconds", "images_per_second") if c in row]
        assert [bool(time) for time in times] == [alone] * len(times), key_of(row)


def test_the_committed_report_is_that_of_the_committed_evidence(tmp_path, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)
    write_report(tmp_path, read_evidence(RESULTS / "reproduction"))
    tables = ("reproduction/intervals.csv", "reproduction/agreement.csv")
    for name in ("reproduction.md", "reproduction.csv", *tables):
        assert (tmp_path / name).read_text() == (RESULTS / name).read_text()


# --- README.md --------------------------------------------------------------------------------


def readme_rows():
    lines = (REPOSITORY / "README.md").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if "one more run of it" in line)
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        yield [name.split("`")[1], *cells]


def as_text(values):
    """Return `99.15 (99.08 to 99.23)`, the mean of fractions in per cent with its interval."""
    low, high = mean_interval(values)
    return f"{100 * np.mean(values):.2f} ({100 * low:.2f} to {100 * high:.2f})"


def test_readmes_table_is_that_of_the_rows():
    networks = read_csv(RESULTS / "networks.csv")
    published = {}
    for row in read_csv(RESULTS / "reproduction.csv"):
        if row["published"]:
            published.setdefault(row["experiment"], f"{100 * float(row['published']):.2f}")
    rows = list(readme_rows())
    for name, told, recipe, further, default in rows:
        assert told == published.get(name, "") if name != "cnn5x5" else told == "", name
        values = last(name)
        low, high = prediction_interval(values)
        assert (recipe, further) == (as_text(values), f"{100 * low:.2f} to {100 * high:.2f}"), name
        ours = [float(row["test_accuracy"]) for row in networks if row["model"] == name]
        assert default == (as_text(ours) if ours else "as `mnist_cnn`"), name
        assert len(ours) == (0 if name == "cnn3x3" else 5)
    assert sorted(row[0] for row in rows) == sorted(
        {run["experiment"] for run in RUNS if "no_dropout" not in run["experiment"]}
    )
    assert {row["git_commit"][:7] for row in networks} == {"8873442"}
    assert {(row["precision"], row["device"]) for row in networks} == {("bf16", H100)}
    assert {counted(name)[:2] for name in published if name != "vgg16"} == {("fp32", H100)}


def test_the_lines_of_python_in_results_print_what_stands_beneath_them(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    page = str(RESULTS / "README.md")
    found = doctest.testfile(page, module_relative=False, encoding="utf-8")
    assert found.failed == 0 and found.attempted > 3
