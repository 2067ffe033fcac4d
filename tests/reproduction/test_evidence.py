"""How evidence of several machines comes together, and which runs count.

Run folders are written by hand here; tests/reproduction/test_campaign.py has real ones.
"""

import json
import time
from threading import Thread

import pytest

from mnist_bench.errors import ConfigError, DataError
from mnist_bench.reproduction.evidence import (
    Evidence,
    RunKey,
    choose,
    merge,
    read_evidence,
    with_unfinished,
    write_evidence,
)
from mnist_bench.reproduction.reproduce import reproduce
from tests.support.made_up_reproduction import find, read_csv, stop, write_run


def test_evidence_reads_back_as_it_was_written(tmp_path):
    write_run(tmp_path / "runs", "cnn3x3/seed=0")
    write_run(tmp_path / "runs", "mnist_cnn/seed=2", epochs=12, device='a "machine", here')
    evidence, refusals = find(tmp_path / "runs")
    write_evidence(tmp_path / "results", evidence)
    again = read_evidence(tmp_path / "results")
    assert refusals == []
    assert again.runs == evidence.runs and again.errors == evidence.errors
    write_evidence(tmp_path / "again", again)
    for name in ("runs.csv", "curves.csv", "errors.csv"):
        written = (tmp_path / "again" / name).read_bytes()
        assert written == (tmp_path / "results" / name).read_bytes()


def test_a_run_that_was_stopped_gives_its_curve_and_no_figures(tmp_path):
    stopped = write_run(tmp_path, "cnn3x3/seed=0", epochs=7)
    summary = json.loads((stopped / "summary.json").read_text())
    null = {key: None for key in summary if key.startswith(("train_", "val_", "test_"))}
    (stopped / "summary.json").write_text(json.dumps({**summary, **null, "status": "interrupted"}))
    (stopped / "predictions.npz").unlink()
    whole = write_run(tmp_path, "cnn3x3/seed=1")
    evidence, refusals = find(tmp_path)
    assert refusals == []
    first, second = sorted(evidence.runs)
    assert evidence.runs[first]["test_accuracy"] == ""
    assert (len(evidence.curves[first]), len(evidence.errors[first])) == (7, 0)
    assert choose(evidence)["cnn3x3"] == {1: second}
    assert with_unfinished(evidence, choose(evidence))["cnn3x3"] == {1: second}

    (whole / "summary.json").unlink()
    evidence, _ = find(tmp_path)
    assert choose(evidence)["cnn3x3"] == {}
    assert with_unfinished(evidence, choose(evidence))["cnn3x3"] == {0: first}


def test_found_runs_join_the_committed_ones_and_replace_their_own_rows(tmp_path):
    write_run(tmp_path / "there", "cnn3x3/seed=0", device="machine B", loss=0.02)
    write_run(tmp_path / "there", "cnn3x3/seed=1", loss=0.04)
    write_run(tmp_path / "here", "cnn3x3/seed=0", loss=0.03)
    write_run(tmp_path / "here", "cnn3x3/seed=1", loss=0.05, hour=12)
    merged = merge(find(tmp_path / "there")[0], find(tmp_path / "here")[0])
    write_evidence(tmp_path, merged)
    rows = read_csv(tmp_path / "runs.csv")
    assert [(row["seed"], row["device"], row["val_loss"]) for row in rows] == [
        *(("0", "machine A", "0.03"), ("0", "machine B", "0.02"), ("1", "machine A", "0.05")),
    ]
    curves = read_csv(tmp_path / "curves.csv")
    assert len(curves) == 3 * 20
    assert {row["val_loss"] for row in curves if row["seed"] == "1"} == {"0.05"}
    assert len(read_csv(tmp_path / "errors.csv")) == 3 * 5


def test_a_completed_run_does_not_give_way_to_one_that_was_stopped(tmp_path):
    write_run(tmp_path / "there", "cnn3x3/seed=0")
    stop(write_run(tmp_path / "here", "cnn3x3/seed=0"), epochs=3)
    there, here = find(tmp_path / "there")[0], find(tmp_path / "here")[0]
    assert merge(there, here) == there
    assert merge(here, there) == there
    later = write_run(tmp_path / "later", "cnn3x3/seed=0", device="machine B")
    assert merge(here, find(tmp_path / "later")[0]) == find(tmp_path / "later")[0]
    stop(later, epochs=5)
    assert merge(here, find(tmp_path / "later")[0]) == find(tmp_path / "later")[0]


@pytest.mark.parametrize("name", ["errors.csv", "curves.csv"])
def test_evidence_that_lost_rows_is_refused(tmp_path, name):
    write_run(tmp_path / "runs", "cnn3x3/seed=0")
    write_evidence(tmp_path / "results", find(tmp_path / "runs")[0])
    path = tmp_path / "results" / name
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match=r"rows of cnn3x3 0 fp32 machine A, and runs\.csv says"):
        read_evidence(tmp_path / "results")


@pytest.mark.parametrize("name", ["runs.csv", "errors.csv", "curves.csv"])
@pytest.mark.parametrize("line", ["<<<<<<< HEAD", "cnn3x3,zero,fp32,machine A"])
def test_evidence_that_was_merged_badly_is_refused(tmp_path, name, line):
    write_run(tmp_path / "runs", "cnn3x3/seed=0")
    write_evidence(tmp_path / "results", find(tmp_path / "runs")[0])
    with (tmp_path / "results" / name).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=f"{name} has a damaged row"):
        read_evidence(tmp_path / "results")


def test_statistics_take_runs_alike_fp32_first():
    evidence = Evidence()

    def add(device, experiment, seeds, precision="fp32"):
        for seed in seeds:
            key = RunKey(experiment, seed, precision, device)
            evidence.runs[key] = {"test_accuracy": "0.99"}

    def chosen():
        found = choose(evidence)["cnn3x3"]
        return [(seed, key.precision, key.device) for seed, key in found.items()]

    add("A", "cnn3x3", [0])
    add("B", "cnn3x3", [1])
    assert chosen() == [(0, "fp32", "A")]  # the first by name
    add("B", "cnn5x5", [0])
    assert chosen() == [(1, "fp32", "B")]  # the machine that has more of all
    add("A", "cnn3x3", [1, 2], "bf16")
    assert chosen() == [(1, "bf16", "A"), (2, "bf16", "A")]  # most seeds
    add("B", "cnn3x3", [0])
    assert chosen() == [(0, "fp32", "B"), (1, "fp32", "B")]  # fp32
    add("A", "cnn3x3", [3, 4], "bf16")
    assert len(chosen()) == 4  # two in fp32 are not enough
    add("B", "cnn3x3", [2])
    assert chosen() == [(seed, "fp32", "B") for seed in range(3)]  # however many there are else


def test_evidence_with_other_columns_is_refused(tmp_path):
    (tmp_path / "runs.csv").write_text("experiment,seed\n")
    with pytest.raises(DataError, match="has the columns experiment,seed, not experiment,seed,pre"):
        read_evidence(tmp_path)


def test_evidence_without_its_run_is_refused(tmp_path):
    write_run(tmp_path / "runs", "cnn3x3/seed=0")
    write_evidence(tmp_path, find(tmp_path / "runs")[0])
    lines = (tmp_path / "runs.csv").read_text().splitlines()
    (tmp_path / "runs.csv").write_text(lines[0] + "\n")
    with pytest.raises(DataError, match=r"runs\.csv has no such run"):
        read_evidence(tmp_path)


def test_a_refused_run_is_told_and_the_report_is_written_of_the_others(tmp_path, capsys):
    write_run(tmp_path / "runs", "cnn3x3/seed=0")
    write_run(tmp_path / "runs", "cnn3x3/seed=1", "data.limit=1000")
    code = reproduce(runs=tmp_path / "runs", results=tmp_path / "results", train=False)
    assert code == 1
    assert "data.limit=1000" in capsys.readouterr().err
    assert len(read_csv(tmp_path / "results" / "reproduction" / "runs.csv")) == 1
    assert (tmp_path / "results" / "reproduction.md").is_file()


def test_without_any_run_there_is_nothing_to_report(tmp_path, capsys):
    (tmp_path / "runs").mkdir()
    assert reproduce(runs=tmp_path / "runs", results=tmp_path / "results", train=False) == 1
    assert "There is nothing to report" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_the_farther_of_two_unfinished_runs_stays(tmp_path):
    stop(write_run(tmp_path / "far", "cnn3x3/seed=0"), epochs=15)
    stop(write_run(tmp_path / "near", "cnn3x3/seed=0", device="machine B"), epochs=1)
    far, near = find(tmp_path / "far")[0], find(tmp_path / "near")[0]
    assert merge(far, near) == far
    assert merge(near, far) == far


def test_times_that_were_left_out_stay_out_when_the_runs_are_found_again(tmp_path):
    write_run(tmp_path / "runs", "cnn3x3/seed=0")
    arguments = {"runs": tmp_path / "runs", "results": tmp_path / "results", "train": False}
    assert reproduce(**arguments, times=False) == 0
    rows = tmp_path / "results" / "reproduction" / "runs.csv"
    before = rows.read_bytes()
    assert reproduce(**arguments) == 0
    assert rows.read_bytes() == before and read_csv(rows)[0]["seconds_per_epoch"] == ""


def test_two_commands_at_once_both_add_their_rows(tmp_path, monkeypatch):
    """The second begins to read while the first is between reading and writing."""
    for number, runs in enumerate(("one", "other")):
        write_run(tmp_path / runs, f"cnn3x3/seed={number}")
    arguments = {"results": tmp_path / "results", "train": False}
    beside = Thread(target=reproduce, kwargs={"runs": tmp_path / "other", **arguments})

    def merge_beside(committed, found):
        if beside.ident is None:
            beside.start()
            time.sleep(1)  # in which it would read, if nothing held it
        return merge(committed, found)

    monkeypatch.setattr("mnist_bench.reproduction.reproduce.merge", merge_beside)
    assert reproduce(runs=tmp_path / "one", **arguments) == 0
    beside.join()
    rows = read_csv(tmp_path / "results" / "reproduction" / "runs.csv")
    assert [row["seed"] for row in rows] == ["0", "1"]


def test_a_folder_of_runs_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="gone is not there: name the folder of the runs"):
        reproduce(runs=tmp_path / "gone", results=tmp_path / "results", train=False)
    assert not (tmp_path / "results").exists()
