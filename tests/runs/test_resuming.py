"""A training that was stopped or killed goes on as if nothing had happened."""

import signal
import subprocess

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_bench.runs.checkpoint import epochs_begun, read_checkpoint
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.records import previous_of, set_result_aside
from tests.support.train_command import (
    COMMAND,
    QUICK,
    environment,
    read_summary,
    run_train,
    same_training,
    start_and_stop,
)


def test_killed_in_epoch_3_and_resumed_is_the_same_run(tmp_path, mnist_root, uninterrupted):
    """Epoch 2 may have been on its way to the disk yet; then it is trained once more."""
    status, _, _ = start_and_stop(signal.SIGKILL, tmp_path, mnist_root)
    assert status == -signal.SIGKILL
    run = tmp_path / "run"
    assert not (run / "summary.json").exists()
    assert len((run / "metrics.csv").read_text().splitlines()) == 3
    begun = epochs_begun(read_checkpoint(RunFolder(run).last))
    assert begun in (1, 2)
    process = run_train("resume=run", cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 0, process.stderr
    assert f"from epoch {begun + 1}" in process.stdout
    assert read_summary(run)["status"] == "completed"
    assert same_training(run, uninterrupted)
    steps = EventAccumulator(str(run / "tensorboard")).Reload().Scalars("loss/train")
    assert [event.step for event in steps] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "signal_number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
def test_stopped_in_epoch_3_and_resumed_is_the_same_run(
    tmp_path, mnist_root, uninterrupted, signal_number
):
    status, output, errors = start_and_stop(signal_number, tmp_path, mnist_root)
    assert status == 128 + signal_number
    assert errors == ""
    assert "To go on: mnist-bench train resume=run" in output
    summary = read_summary(tmp_path / "run")
    assert (summary["status"], summary["epochs"]) == ("interrupted", 2)
    process = run_train("resume=run", cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 0, process.stderr
    assert same_training(tmp_path / "run", uninterrupted)


def test_a_finished_run_can_be_given_more_epochs(tmp_path, mnist_root):
    arguments = (*QUICK, "scheduler=constant", "hydra.run.dir=run")
    run_train(*arguments, cwd=tmp_path, data_root=mnist_root)
    process = run_train("resume=run", "trainer.epochs=2", cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 0, process.stderr
    long = (*arguments[:-1], "trainer.epochs=2", "hydra.run.dir=long")
    run_train(*long, cwd=tmp_path, data_root=mnist_root)
    first, second = (
        np.load(tmp_path / name / "predictions.npz")["logits"] for name in ("run", "long")
    )
    assert np.array_equal(first, second)
    assert read_summary(tmp_path / "run")["epochs"] == 2
    assert not list((tmp_path / "run").glob("*.previous.*")), "there is a new result"


def test_a_run_killed_right_after_its_checkpoint_loses_no_record(tmp_path, mnist_root):
    """As if killed before the last epoch's row, its best weights and its curves were written."""
    run_train(*QUICK, "hydra.run.dir=run", cwd=tmp_path, data_root=mnist_root)
    run = tmp_path / "run"
    row = (run / "metrics.csv").read_text()
    best = torch.load(run / "checkpoints" / "best.pt", weights_only=True)["network"]
    for name in ("metrics.csv", "summary.json", "predictions.npz", "checkpoints/best.pt"):
        (run / name).unlink()
    for events in (run / "tensorboard").iterdir():
        events.unlink()
    process = run_train("resume=run", cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 0, process.stderr
    assert (run / "metrics.csv").read_text() == row
    again = torch.load(run / "checkpoints" / "best.pt", weights_only=True)["network"]
    assert all(torch.equal(again[key], best[key]) for key in best)
    curve = EventAccumulator(str(run / "tensorboard")).Reload().Scalars("loss/val")
    assert [event.step for event in curve] == [1]


def test_a_resumed_run_has_no_summary_until_it_ends(tmp_path, mnist_root):
    """Killed again, it must not look like the completed run that it was, nor lose its result."""
    run_train(*QUICK, "hydra.run.dir=run", cwd=tmp_path, data_root=mnist_root)
    run = tmp_path / "run"
    result = [(run / name).read_bytes() for name in ("summary.json", "predictions.npz")]
    process = subprocess.Popen(
        [*COMMAND, "resume=run", "trainer.epochs=50"],
        cwd=tmp_path,
        env=environment(mnist_root, PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert any(line.startswith("epoch  2/50") for line in process.stdout)
    process.kill()
    process.wait()
    assert not (run / "summary.json").exists()
    assert not (run / "predictions.npz").exists()
    kept = ("summary.previous.json", "predictions.previous.npz")
    assert [(run / name).read_bytes() for name in kept] == result


def test_a_result_is_kept_until_the_next_wherever_it_is_killed(tmp_path):
    """Also when only one of its two files has been set aside, or a run in between was stopped."""
    folder = RunFolder(tmp_path)
    folder.predictions.write_text("the result's")
    folder.summary.write_text('{"status": "completed"}')
    previous = [previous_of(file) for file in (folder.predictions, folder.summary)]
    folder.predictions.replace(previous[0])  # and killed
    set_result_aside(folder)
    folder.predictions.write_text("of a test that was killed")
    set_result_aside(folder)
    folder.summary.write_text('{"status": "interrupted"}')
    set_result_aside(folder)
    assert [file.read_text() for file in previous] == [*("the result's", '{"status": "completed"}')]
    assert not folder.summary.exists() and not folder.predictions.exists()
