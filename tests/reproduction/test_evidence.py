"""What counts as a run of a published recipe, and how evidence of several machines comes together.

Run folders are written by hand here; tests/reproduction/test_campaign.py has real ones.
"""

import csv
import json
import shutil

import numpy as np
import pytest

from mnist_bench.config.compose import compose
from mnist_bench.errors import DataError
from mnist_bench.reproduction.evidence import (
    choose,
    collect,
    merge,
    read_evidence,
    with_unfinished,
    write_evidence,
)
from mnist_bench.reproduction.plan import recipe
from mnist_bench.reproduction.reproduce import reproduce
from tests.support.config_files import write_hydra_folder

METRICS = (
    "epoch,train_loss,train_accuracy,val_loss,val_accuracy,learning_rate,seconds,images_per_second"
)


def write_run(runs, name, *overrides, loss=0.03, device="machine A", precision="fp32", epochs=20):
    """The folder of a completed run of `name`, such as cnn3x3/seed=0."""
    folder = runs / name
    experiment, seed = folder.parent.name, folder.name.split("--")[0]
    write_hydra_folder(folder, *compose([f"experiment={experiment}", seed, *overrides]))
    wrong = np.random.default_rng(0).choice(50, 5, replace=False)
    logits, labels = np.zeros((50, 10), np.float32), np.arange(50) % 10
    logits[np.arange(50), labels] = 1
    logits[wrong] = np.roll(logits[wrong], 1, axis=1)
    np.savez(folder / "predictions.npz", logits=logits, labels=labels)
    rows = [f"{e},0.1,0.9,{loss},0.9{e:02},0.001,{10 + e * e},100" for e in range(1, epochs + 1)]
    (folder / "metrics.csv").write_text("\n".join([METRICS, *rows]) + "\n")
    figures = {"train_loss": 0.1, "train_accuracy": 0.9, "val_loss": loss, "val_accuracy": 0.9}
    summary = {
        **{"status": "completed", "epochs": epochs, "device": device, "precision": precision},
        **figures,
        **{"test_loss": loss, "test_accuracy": 0.9, "test_errors": 5, "test_images": 50},
        "versions": {"torch": "2.15.0", "python": "3.11.7"},
        **{"git_commit": "abc", "started": "2026-11-21T23:03:24+0000"},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def find(runs):
    return collect(runs, lambda name: recipe(name, ()))


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_is_written_for_every_wrong_test_image(tmp_path):
    folder = write_run(tmp_path / "runs", "cnn3x3/seed=0")
    evidence, _ = find(tmp_path / "runs")
    write_evidence(tmp_path / "results", evidence)
    predictions = np.load(folder / "predictions.npz")
    expected = [
        (str(image), str(label), str(logits.argmax()))
        for image, (logits, label) in enumerate(
            zip(predictions["logits"], predictions["labels"], strict=True)
        )
        if logits.argmax() != label
    ]
    rows = read_csv(tmp_path / "results" / "errors.csv")
    assert len(expected) == 5
    assert [(row["image"], row["label"], row["predicted"]) for row in rows] == expected


def test_the_time_is_the_median_epoch_and_the_best_accuracy_the_highest(tmp_path):
    write_run(tmp_path, "cnn3x3/seed=0")
    ((_, row),) = find(tmp_path)[0].runs.items()
    assert float(row["seconds_per_epoch"]) == 120.5  # of 11, 14, 19, ... 410
    assert float(row["best_val_accuracy"]) == 0.920


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


@pytest.mark.parametrize(
    ("name", "overrides", "changes", "fault"),
    [
        ("cnn3x3/seed=0", ["data.limit=1000"], {}, "data.limit=1000, and the recipe data.limit="),
        ("cnn3x3/seed=0", ["model.dropout=0"], {}, "model.dropout=0, and the recipe"),
        ("cnn3x3/seed=0", ["trainer.epochs=3"], {"epochs": 3}, "trainer.epochs=3"),
        ("cnn3x3/seed=0", [], {"epochs": 3}, "completed with epochs 3 instead of 20"),
        ("cnn3x3/seed=0", ["trainer.precision=bf16"], {"precision": "bf16"}, "precision=bf16"),
        ("cnn3x3/seed=0", ["seed=1"], {}, "has seed=1, and the recipe seed=0"),
    ],
)
def test_a_run_of_another_recipe_is_refused(tmp_path, name, overrides, changes, fault):
    write_run(tmp_path, name, *overrides, **changes)
    evidence, (refusal,) = find(tmp_path)
    assert evidence.runs == {}
    assert fault in refusal


def test_where_and_how_a_run_was_made_is_not_part_of_its_recipe(tmp_path):
    write_run(
        *(tmp_path, "cnn3x3/seed=0--precision=bf16", "trainer.precision=bf16"),
        *("trainer.gpus=1", "trainer.save_every=5", "trainer.compile=true", "data.root=/elsewhere"),
        precision="bf16",
    )
    evidence, refusals = find(tmp_path)
    assert refusals == []
    assert [key.precision for key in evidence.runs] == ["bf16"]


def bring(run, *overrides, **changes):
    """What comes from another machine: three files, and the overrides in one of them."""
    shutil.rmtree(run / ".hydra")
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(
        json.dumps({**summary, "overrides": list(overrides), **changes})
    )


def test_a_run_that_came_without_its_configuration_is_judged_by_its_overrides(tmp_path):
    bf16, overrides = {"precision": "bf16"}, ["trainer.gpus=1", "trainer.save_every=1000"]
    auto = write_run(tmp_path, "cnn3x3/seed=0--precision=bf16", **bf16)
    bring(auto, "experiment=cnn3x3", "trainer.precision=auto", *overrides)
    named = write_run(tmp_path, "cnn3x3/seed=1--precision=bf16", **bf16)
    bring(named, "experiment=cnn3x3", "trainer.precision=bf16", *overrides, "seed=1")
    evidence, refusals = find(tmp_path)
    assert refusals == []
    assert [key[:3] for key in evidence.runs] == [("cnn3x3", 0, "bf16"), ("cnn3x3", 1, "bf16")]
    assert [len(errors) for errors in evidence.errors.values()] == [5, 5]


@pytest.mark.parametrize(
    ("overrides", "changes", "fault"),
    [
        (["experiment=cnn5x5"], {}, "has model.name=cnn5x5, and the recipe model.name=cnn3x3"),
        (["experiment=cnn3x3", "optimizer.lr=1"], {}, "has optimizer.lr=1"),
        (["experiment=cnn3x3", "seed=1"], {}, "has seed=1, and the recipe seed=0"),
        (["experiment=cnn3x3", "optimizer.cleverness=1"], {}, "cannot be composed"),
        (
            ["experiment=cnn3x3", "trainer.precision=auto"],
            {"precision": "bf16"},
            "has trainer.precision=auto, and the recipe trainer.precision=fp32",
        ),
    ],
)
def test_overrides_of_another_recipe_are_refused(tmp_path, overrides, changes, fault):
    bring(write_run(tmp_path, "cnn3x3/seed=0"), *overrides, **changes)
    evidence, (refusal,) = find(tmp_path)
    assert evidence.runs == {}
    assert fault in refusal


def test_a_run_without_configuration_and_overrides_is_refused(tmp_path):
    shutil.rmtree(write_run(tmp_path, "cnn3x3/seed=0") / ".hydra")
    assert find(tmp_path)[1] == [
        f"{tmp_path}/cnn3x3/seed=0 has no .hydra/config.yaml: it is left out."
    ]


def test_times_that_mean_nothing_are_left_out_and_nothing_else(tmp_path):
    write_run(tmp_path / "runs", "cnn3x3/seed=0")
    with_times, _ = find(tmp_path / "runs")
    without, _ = collect(tmp_path / "runs", lambda name: recipe(name, ()), times=False)
    write_evidence(tmp_path / "results", without)
    assert read_evidence(tmp_path / "results").runs == without.runs
    (key,) = without.runs
    assert {c for c, v in with_times.runs[key].items() if without.runs[key][c] != v} == {
        "seconds_per_epoch"
    }
    assert without.runs[key]["seconds_per_epoch"] == ""
    for row, timed in zip(without.curves[key], with_times.curves[key], strict=True):
        assert row == {**timed, "seconds": "", "images_per_second": ""}
        assert timed["seconds"]
    assert without.errors == with_times.errors


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive"], ids=["empty", "cut", "text"])
def test_predictions_that_cannot_be_read_are_named(tmp_path, content):
    run = write_run(tmp_path, "cnn3x3/seed=0")
    (run / "predictions.npz").write_bytes(content)
    with pytest.raises(DataError, match=rf"{run}/predictions\.npz is damaged"):
        find(tmp_path)


def test_runs_that_did_not_complete_and_other_folders_are_passed_over(tmp_path):
    going_on = write_run(tmp_path, "cnn3x3/seed=0")
    (going_on / "summary.json").unlink()
    write_run(tmp_path, "cnn3x3/seed=1").rename(tmp_path / "cnn3x3" / "seed=1--unfinished-1")
    evidence, refusals = find(tmp_path)
    assert evidence.runs == {} and refusals == []


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
    write_run(tmp_path / "here", "cnn3x3/seed=1", loss=0.05)
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


def stop(run, epochs):
    """Make a completed run one that was stopped."""
    summary = json.loads((run / "summary.json").read_text())
    null = {key: None for key in summary if key.startswith(("train_", "val_", "test_"))}
    stopped = {**summary, **null, "status": "interrupted", "epochs": epochs}
    (run / "summary.json").write_text(json.dumps(stopped))
    lines = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text("".join(lines[: epochs + 1]))


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


def test_statistics_take_the_runs_alike_that_have_most_seeds(tmp_path):
    def add(runs, experiment, seeds, precision="fp32"):
        for seed in seeds:
            bf16 = precision == "bf16"
            name = f"{experiment}/seed={seed}{'--precision=bf16' * bf16}"
            overrides = ["trainer.precision=bf16"] * bf16
            device = f"machine {runs}"
            write_run(tmp_path / runs, name, *overrides, device=device, precision=precision)

    def chosen(experiment):
        found = choose(merge(find(tmp_path / "A")[0], find(tmp_path / "B")[0]))[experiment]
        return [(seed, key.precision, key.device) for seed, key in found.items()]

    add("A", "cnn3x3", [0])
    add("B", "cnn3x3", [1])
    assert chosen("cnn3x3") == [(0, "fp32", "machine A")]  # the first by name
    add("B", "cnn5x5", [0])
    assert chosen("cnn3x3") == [(1, "fp32", "machine B")]  # the machine that has more of all
    add("A", "cnn3x3", [1, 2], "bf16")
    assert chosen("cnn3x3") == [(1, "bf16", "machine A"), (2, "bf16", "machine A")]
    add("B", "cnn3x3", [0])
    assert chosen("cnn3x3") == [(0, "fp32", "machine B"), (1, "fp32", "machine B")]  # fp32


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
    assert reproduce(runs=tmp_path / "runs", results=tmp_path / "results", train=False) == 1
    assert "There is nothing to report" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
