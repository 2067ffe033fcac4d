"""When checkpoints are written, what is in them, and that training need not wait for it."""

import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from mnist_bench.runs import checkpoint
from mnist_bench.runs.checkpoint import (
    CheckpointWriter,
    read_checkpoint,
    write_checkpoint,
)
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.run import Run
from mnist_bench.training.interrupt import Interrupted
from tests.support.train_command import (
    FIVE_EPOCHS,
    read_summary,
    run_train,
    same_training,
    start_and_stop,
)

CPU = torch.device("cpu")


def test_a_checkpoint_holds_what_was_there_when_it_was_asked_for(tmp_path):
    weights = {"weight": torch.arange(4.0), "nested": [{"step": torch.tensor(1.0)}], "epoch": 3}
    with CheckpointWriter(CPU) as writer:
        writer.write({RunFolder(tmp_path).last: weights})
        weights["weight"].zero_()
        weights["nested"][0]["step"].zero_()
    found = read_checkpoint(RunFolder(tmp_path).last)
    assert torch.equal(found["weight"], torch.arange(4.0))
    assert found["nested"][0]["step"] == 1
    assert found["epoch"] == 3


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, monkeypatch):
    """A disk that takes for ever holds up the next checkpoint, and not what is done before it."""
    disk_is_back, write = threading.Event(), write_checkpoint

    def write_when_the_disk_is_back(path, content):
        assert disk_is_back.wait(60)
        write(path, content)

    monkeypatch.setattr(checkpoint, "write_checkpoint", write_when_the_disk_is_back)
    with CheckpointWriter(CPU) as writer:
        writer.write({RunFolder(tmp_path).last: {"epoch": 1}})
        assert not (RunFolder(tmp_path).last).exists()
        disk_is_back.set()
        writer.write({RunFolder(tmp_path).last: {"epoch": 2}})
    assert read_checkpoint(RunFolder(tmp_path).last)["epoch"] == 2


@pytest.mark.parametrize("sets", [1, 2])
def test_what_cannot_be_written_is_told(tmp_path, sets):
    """At the end, or when the next set cannot be written either."""
    (tmp_path / "checkpoints").write_text("a file, where a folder should be")
    begun = []
    with pytest.raises(OSError, match="checkpoints"), CheckpointWriter(CPU) as writer:  # noqa: PT012
        for epoch in range(sets):
            begun.append(epoch)
            writer.write({RunFolder(tmp_path).last: {"epoch": epoch}})
        begun.append("the end")
    assert begun == ([0, "the end"] if sets == 1 else [0, 1])


def test_what_could_not_be_written_once_is_written_with_the_next(tmp_path):
    (tmp_path / "checkpoints").write_text("a file, where a folder should be")
    with CheckpointWriter(CPU) as writer:
        writer.write(
            {RunFolder(tmp_path).last: {"epoch": 1}, RunFolder(tmp_path).best: {"epoch": 1}}
        )
        while not writer.has_failed:
            time.sleep(0.01)
        (tmp_path / "checkpoints").unlink()
        writer.write({RunFolder(tmp_path).last: {"epoch": 2}})
        assert not writer.has_failed
    assert read_checkpoint(RunFolder(tmp_path).last)["epoch"] == 2
    assert read_checkpoint(RunFolder(tmp_path).best)["epoch"] == 1


def test_best_weights_that_were_missed_are_written_before_the_next_checkpoint(
    tmp_path, monkeypatch
):
    """A run that is killed between the two may go on from the first, which relies on them."""
    folder, written, fail = RunFolder(tmp_path), [], [True]

    def write_but_once(path, content):
        if path == folder.best and fail and fail.pop():
            raise OSError(28, "No space left on device")
        written.append((path.name, content["epoch"]))

    monkeypatch.setattr(checkpoint, "write_checkpoint", write_but_once)
    with CheckpointWriter(CPU) as writer:
        writer.write({folder.last: {"epoch": 1}, folder.best: {"epoch": 1}})
        writer.write({folder.last: {"epoch": 2}})
    assert written == [("last.pt", 1), ("best.pt", 1), ("last.pt", 2)]


def test_what_ends_a_training_is_told_before_a_checkpoint_that_failed(tmp_path):
    (tmp_path / "checkpoints").write_text("a file, where a folder should be")
    with pytest.raises(Interrupted), CheckpointWriter(CPU) as writer:  # noqa: PT012
        writer.write({RunFolder(tmp_path).last: {"epoch": 1}})
        raise Interrupted(signal.SIGTERM)


def test_a_run_that_saves_at_its_end_only_is_the_same_run(tmp_path, mnist_root, uninterrupted):
    settings = ("trainer.save_every=0", "hydra.run.dir=run")
    process = run_train(*FIVE_EPOCHS, *settings, cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 0, process.stderr
    assert same_training(tmp_path / "run", uninterrupted)
    ours, theirs = (
        read_checkpoint(RunFolder(run).best) for run in (tmp_path / "run", uninterrupted)
    )
    assert ours["epoch"] == theirs["epoch"] == read_summary(uninterrupted)["best_epoch"]
    assert all(torch.equal(ours["network"][key], value) for key, value in theirs["network"].items())


@pytest.mark.slow
def test_stopped_before_its_end_it_is_saved_all_the_same(tmp_path, mnist_root, uninterrupted):
    status, output, _ = start_and_stop(signal.SIGTERM, tmp_path, mnist_root, "trainer.save_every=0")
    assert status == 128 + signal.SIGTERM
    assert "To go on: mnist-bench train resume=run" in output
    assert read_checkpoint(RunFolder(tmp_path / "run").best)["epoch"] == 2
    process = run_train("resume=run", cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 0, process.stderr
    assert same_training(tmp_path / "run", uninterrupted)


@pytest.fixture
def run(compose, mnist_root, tmp_path):
    config = compose(
        *(f"data.root={mnist_root}", "data.limit=200", "trainer.gpus=0", "trainer.epochs=3"),
        *("trainer.precision=fp32", "model.channels=[2,2]", "model.dense=[4]"),
    )
    return Run(config, RunFolder(tmp_path), print)


def end_epoch(run, val_loss):
    record = {"epoch": run.position.epoch, "val_loss": val_loss}
    run.position.history.append(record)
    run.position.epoch += 1
    with torch.no_grad():
        for parameter in run.learner.network.parameters():
            parameter.add_(1)


def weights(run):
    return {name: value.clone() for name, value in run.learner.network.state_dict().items()}


def test_a_run_killed_between_its_two_files_still_has_its_best_weights(run, tmp_path):
    """The best epoch was the first, and the second is the first that is saved."""
    end_epoch(run, val_loss=0.1)
    run.keep_best()
    best = weights(run)
    end_epoch(run, val_loss=0.2)
    (path, content), (other, _) = run.checkpoints().items()
    assert (path, other) == (RunFolder(tmp_path).last, RunFolder(tmp_path).best)
    write_checkpoint(path, content)

    Run(replace(run.config, resume=str(tmp_path)), RunFolder(tmp_path), print).open()
    found = read_checkpoint(RunFolder(tmp_path).best)
    assert found["epoch"] == 1
    assert all(np.array_equal(found["network"][name], value) for name, value in best.items())


def test_best_weights_are_written_once(run, tmp_path):
    """And not a second time beside the very weights that they are."""
    end_epoch(run, val_loss=0.1)
    run.keep_best()
    files = run.checkpoints()
    assert set(files) == {RunFolder(tmp_path).last, RunFolder(tmp_path).best}
    assert "best" not in files[RunFolder(tmp_path).last]
    end_epoch(run, val_loss=0.2)
    assert set(run.checkpoints()) == {RunFolder(tmp_path).last}
    whole = run.checkpoints(whole=True)  # as when it is stopped
    assert set(whole) == {RunFolder(tmp_path).last, RunFolder(tmp_path).best}
    assert whole[RunFolder(tmp_path).last]["best"]["epoch"] == 1
