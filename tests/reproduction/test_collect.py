"""What counts as a run of a published recipe, and what is read of it.

Run folders are written by hand here; tests/reproduction/test_campaign.py has real ones.
"""

import json
import shutil

import numpy as np
import pytest

from mnist_bench.reproduction.collect import collect
from mnist_bench.reproduction.evidence import read_evidence, write_evidence
from tests.support.made_up_reproduction import find, read_csv, recipe_of, write_run


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
    without, _ = collect(tmp_path / "runs", recipe_of, times=False)
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
    evidence, (refusal,) = find(tmp_path)
    assert evidence.runs == {}
    assert refusal.startswith(f"{run}/predictions.npz is damaged (")
    assert refusal.endswith("It is left out.")


def test_runs_that_did_not_complete_and_other_folders_are_passed_over(tmp_path):
    going_on = write_run(tmp_path, "cnn3x3/seed=0")
    (going_on / "summary.json").unlink()
    write_run(tmp_path, "cnn3x3/seed=1").rename(tmp_path / "cnn3x3" / "seed=1--unfinished-1")
    evidence, refusals = find(tmp_path)
    assert evidence.runs == {} and refusals == []


def change(run, **changes):
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**summary, **changes}))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"device": None}, "does not say its device in summary.json"),
        ({"versions": {"torch": "2.15.0"}}, "does not say its python in summary.json"),
        ({"started": "yesterday"}, "does not say in summary.json when it was started"),
        ({"started": "2026-11-21T23:03:24"}, "with the offset from UTC"),
        ({"test_errors": 4}, "has 5 errors in predictions.npz, and 4 by summary.json"),
        ({"test_loss": float("nan")}, "has a test_loss of nan"),
        ({"val_loss": None}, "has a val_loss of None"),
    ],
)
def test_a_damaged_summary_leaves_its_run_out_and_no_other(tmp_path, changes, fault):
    change(write_run(tmp_path, "cnn3x3/seed=0"), **changes)
    write_run(tmp_path, "cnn3x3/seed=1")
    evidence, (refusal,) = find(tmp_path)
    assert refusal.startswith(f"{tmp_path}/cnn3x3/seed=0 ") and fault in refusal
    assert refusal.endswith(": it is left out.")
    assert [key.seed for key in evidence.runs] == [1]


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda lines: [], "has 0 epochs in metrics.csv, and 20 by summary.json"),
        (lambda lines: lines[:13], "has 12 epochs in metrics.csv, and 20 by summary.json"),
        (lambda lines: [*lines[:20], "20,0.1,0."], "has a val_loss of None after epoch 20"),
        (lambda lines: [*lines[:20], "20,0.1,0.9,nan,0.9,,,"], "a val_loss of nan after epoch 20"),
    ],
)
def test_damaged_metrics_leave_their_run_out(tmp_path, damage, fault):
    metrics = write_run(tmp_path, "cnn3x3/seed=0") / "metrics.csv"
    metrics.write_text("\n".join(damage(metrics.read_text().splitlines())))
    evidence, (refusal,) = find(tmp_path)
    assert evidence.runs == {} and fault in refusal
    metrics.write_bytes(b"\xff\xfe\x00")
    assert f"{metrics} is damaged (" in find(tmp_path)[1][0]
    metrics.unlink()
    assert "has 0 epochs in metrics.csv" in find(tmp_path)[1][0]


def test_predictions_that_are_gone_leave_their_run_out(tmp_path):
    (write_run(tmp_path, "cnn3x3/seed=0") / "predictions.npz").unlink()
    evidence, (refusal,) = find(tmp_path)
    assert evidence.runs == {}
    assert refusal == f"{tmp_path}/cnn3x3/seed=0 has no predictions.npz. It is left out."
