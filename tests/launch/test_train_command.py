"""What `python train.py` leaves behind, seen from outside."""

import csv
import os
import pty
import re
import subprocess

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchvision.datasets import MNIST

from mnist_bench.kernels import describe, resolve
from mnist_bench.models import ConvNet
from tests.support.train_command import (
    COMMAND,
    QUICK,
    REPOSITORY,
    environment,
    read_summary,
    run_train,
)

METRICS = (
    "epoch,train_loss,train_accuracy,val_loss,val_accuracy,learning_rate,seconds,"
    "images_per_second,val_balanced_accuracy"
)
SUMMARY = {
    *("status", "model", "experiment", "dataset", "seed", "parameters", "epochs", "best_epoch"),
    *("train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy"),
    *("test_errors", "train_seconds", "images_per_second", "device", "precision", "versions"),
    *("git_commit", "overrides", "config", "digest", "stopped_early", "test_top2_accuracy"),
}
CONTROL_CHARACTERS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, mnist_root):
    """A run of two epochs: its folder, and what it printed."""
    cwd = tmp_path_factory.mktemp("finished")
    process = run_train(*QUICK, "trainer.epochs=2", "seed=3", cwd=cwd, data_root=mnist_root)
    assert process.returncode == 0, process.stderr
    (folder,) = (cwd / "outputs" / "runs").iterdir()
    return folder, process


def test_a_run_leaves_the_files_that_later_tools_read(finished):
    folder, _ = finished
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_mnist_cnn", folder.name)
    left = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    events = {name for name in left if name.startswith("tensorboard/events.out.tfevents")}
    assert events
    assert left - events == {
        *(f".hydra/{name}.yaml" for name in ("config", "hydra", "overrides")),
        *(f"checkpoints/{name}.pt" for name in ("best", "last", "previous")),
        ".lock",
        *("metrics.csv", "predictions.npz", "summary.json", "train.log"),
    }


def test_metrics_has_a_row_per_epoch(finished):
    folder, _ = finished
    with (folder / "metrics.csv").open() as file:
        assert file.readline().strip() == METRICS
        file.seek(0)
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[1]["train_loss"]) < float(rows[0]["train_loss"])
    # Cosine: the last of 8 steps runs at (1 + cos(7/8 pi)) / 2 of 3e-3.
    expected = 3e-3 * (1 + np.cos(7 / 8 * np.pi)) / 2
    assert float(rows[1]["learning_rate"]) == pytest.approx(expected, rel=1e-5)


def test_summary_tells_the_whole_run(finished):
    folder, _ = finished
    summary = read_summary(folder)
    assert set(summary) >= SUMMARY
    assert (summary["status"], summary["model"], summary["experiment"]) == (
        *("completed", "mnist_cnn"),
        None,
    )
    assert (summary["parameters"], summary["seed"], summary["epochs"]) == (600_810, 3, 2)
    assert summary["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    kernels = describe(resolve("auto", torch.device("cpu")))
    assert summary["kernels"] == kernels
    assert f"; kernels: {kernels}" in (folder / "train.log").read_text()
    assert summary["overrides"] == [*QUICK, "trainer.epochs=2", "seed=3"]
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert summary["git_commit"] == (head.stdout.strip() or None)


def test_predictions_are_of_the_test_set_and_agree_with_the_summary(finished, mnist_root):
    folder, _ = finished
    predictions = np.load(folder / "predictions.npz")
    logits, labels = predictions["logits"], predictions["labels"]
    assert logits.dtype == np.float32 and logits.shape == (500, 10)
    assert np.array_equal(labels, MNIST(mnist_root, train=False).targets[:500].numpy())
    errors = int((logits.argmax(1) != labels).sum())
    summary = read_summary(folder)
    assert summary["test_errors"] == errors
    assert summary["test_accuracy"] == pytest.approx(1 - errors / 500)
    wide = logits.astype(np.float64)
    log_softmax = wide - np.log(np.exp(wide).sum(1, keepdims=True))
    loss = -log_softmax[np.arange(500), labels].mean()
    assert summary["test_loss"] == pytest.approx(loss, rel=1e-5)


OVERFITTING = (
    *("data.limit=300", "trainer.epochs=4", "trainer.precision=fp32", "trainer.gpus=0"),
    *("trainer.batch_size=32", "optimizer.lr=0.005", "scheduler=constant", "model.dropout=0"),
)


@pytest.mark.parametrize(
    ("override", "checkpoint", "weights"),
    [
        ("trainer.test_weights=auto", "best", "network"),
        ("trainer.test_weights=last", "last", "network"),
        ("data.validation=test", "last", "network"),
        ("trainer.ema_decay=0.5", "best", "network"),
        ("trainer.ema_decay=0.5 trainer.test_weights=last", "last", "average"),
    ],
)
def test_the_test_set_sees_the_weights_it_should(
    tmp_path, mnist_root, compose, override, checkpoint, weights
):
    """The epoch of lowest validation loss; the last one if so configured, or chosen by the test."""
    run = tmp_path / "run"
    arguments = (*OVERFITTING, *override.split(), "hydra.run.dir=run")
    process = run_train(*arguments, cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 0, process.stderr
    with (run / "metrics.csv").open() as file:
        losses = [float(row["val_loss"]) for row in csv.DictReader(file)]
    best = 1 + losses.index(min(losses))
    assert best < 4  # else best and last are one and the same, and nothing is shown here
    summary = read_summary(run)
    assert summary["best_epoch"] == best
    assert summary["tested_epoch"] == {"best": best, "last": 4}[checkpoint]
    assert summary["val_loss"] == pytest.approx(losses[summary["tested_epoch"] - 1], rel=1e-6)

    network = ConvNet(compose("model.dropout=0").model)
    content = torch.load(run / "checkpoints" / f"{checkpoint}.pt", weights_only=True)
    network.load_state_dict(content[weights])
    with torch.inference_mode():
        logits = network.eval()(MNIST(mnist_root, train=False).data[:300].unsqueeze(1) / 255)
    saved = np.load(run / "predictions.npz")["logits"]
    np.testing.assert_allclose(logits.numpy(), saved, rtol=1e-4, atol=1e-4)


def test_tensorboard_shows_curves_text_and_hyperparameters(finished):
    folder, _ = finished
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    tags = events.Tags()
    assert set(tags["scalars"]) == {
        *("loss/train", "loss/val", "accuracy/train", "accuracy/val", "learning_rate"),
        *("throughput/images_per_second", "accuracy/test", "loss/test"),
        *("balanced_accuracy/val", "balanced_accuracy/test", "top2_accuracy/test"),
    }
    assert [e.step for e in events.Scalars("loss/val")] == [1, 2]
    assert {"configuration/text_summary", "model/text_summary"} <= set(tags["tensors"])
    hparams = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"model.kernel_size" in hparams and b"data.limit" in hparams
    assert b"data.root" not in hparams


def test_on_a_pipe_the_screen_is_plain_lines(finished):
    folder, process = finished
    assert not CONTROL_CHARACTERS.search(process.stdout)
    assert process.stderr == ""
    for fact in ("600,810", "epoch 2/2", "test accuracy", folder.name, "fp32", "500 images"):
        assert fact in process.stdout
    log = (folder / "train.log").read_text()
    assert "epoch 2/2" in log and "test accuracy" in log and not CONTROL_CHARACTERS.search(log)


def test_on_a_terminal_a_bar_shows_speed_and_time_left(tmp_path, mnist_root):
    terminal, other_end = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *QUICK, "trainer.refresh_seconds=0.01"],
        cwd=tmp_path,
        env=environment(mnist_root, TERM="xterm"),
        stdout=other_end,
        stderr=other_end,
    )
    os.close(other_end)
    printed = b""
    while chunk := read_terminal(terminal):
        printed += chunk
    assert process.wait() == 0
    text = printed.decode()
    assert re.search(r"epoch 1/1.*loss \d\.\d{4}.*images/s.*0:\d\d left", text)


def read_terminal(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's end of file
        return b""


@pytest.mark.slow
def test_two_runs_into_one_folder_get_one_each(tmp_path, mnist_root):
    processes = [
        subprocess.Popen(
            [*COMMAND, *QUICK, "hydra.run.dir=same", f"seed={seed}"],
            cwd=tmp_path,
            env=environment(mnist_root),
            stdout=subprocess.DEVNULL,
        )
        for seed in (0, 1)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    assert {read_summary(tmp_path / name)["seed"] for name in ("same", "same-2")} == {0, 1}


def test_a_failed_run_says_so_in_its_summary(tmp_path, mnist_root):
    process = run_train(
        *QUICK,
        *("optimizer=sgd", "optimizer.lr=1e20", "hydra.run.dir=run"),
        cwd=tmp_path,
        data_root=mnist_root,
    )
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    assert re.search(r"^The loss became \w+ in epoch 1, step", process.stderr, re.M)
    assert "lower optimizer.lr, or set trainer.clip_norm." in process.stderr  # fp32 it is
    summary = read_summary(tmp_path / "run")
    assert summary["status"] == "failed"
    assert summary["test_accuracy"] is None
    assert summary["error"] in process.stderr
    assert summary["error"] in (tmp_path / "run" / "train.log").read_text()


# --- Sweeps -----------------------------------------------------------------------------------


def test_a_sweep_leaves_complete_runs_named_by_what_varies(tmp_path, mnist_root):
    sweep = ("model=cnn3x3,cnn5x5", "model.dropout=0,0.25,0.5", "data.limit=256")
    process = run_train(
        *("-m", *sweep, "trainer.epochs=1", "hydra.sweep.dir=sweep"),
        cwd=tmp_path,
        data_root=mnist_root,
    )
    assert process.returncode == 0, process.stderr
    runs = {path.parent.name: path.parent for path in tmp_path.glob("sweep/*/summary.json")}
    closing_table = process.stdout[process.stdout.rindex("val loss") :]
    assert set(runs) == {
        f"model.dropout={rate}--model={model}"
        for model in ("cnn3x3", "cnn5x5")
        for rate in ("0", "0.25", "0.5")
    }
    for name, folder in runs.items():
        summary = read_summary(folder)
        assert summary["status"] == "completed"
        assert f"model={summary['model']}" in name
        row = name.replace("model.dropout", "dropout").replace("--", " ")
        assert re.search(rf"{row} .* {summary['test_accuracy']:.2%}", closing_table)
        assert list((folder / "tensorboard").iterdir())
        layers = torch.load(folder / "checkpoints" / "best.pt", weights_only=True)["network"]
        assert layers["features.conv1.weight"].shape[-1] == int(summary["model"][-1])


def test_one_failing_run_does_not_stop_a_sweep(tmp_path, mnist_root):
    process = run_train(
        *("-m", *QUICK, "optimizer=sgd", "optimizer.lr=1e20,0.01", "hydra.sweep.dir=sweep"),
        cwd=tmp_path,
        data_root=mnist_root,
    )
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    statuses = {
        p.parent.name: read_summary(p.parent)["status"] for p in tmp_path.rglob("summary.json")
    }
    assert sorted(statuses.values()) == ["completed", "failed"]
    assert statuses["optimizer.lr=0.01"] == "completed"
    (sentence,) = process.stderr.splitlines()
    assert sentence.startswith("optimizer.lr=1e+20 failed: The loss became ")
    assert "See sweep/optimizer.lr=1e+20/train.log." in sentence


def test_a_run_starts_without_what_it_does_not_need():
    """torchvision takes two seconds to load, SciPy is an extra, and another process draws."""
    code = (
        "import sys, mnist_bench.runs.session; "
        "print({'torchvision', 'scipy', 'matplotlib', 'keras'} & sys.modules.keys())"
    )
    loaded = subprocess.run([COMMAND[0], "-c", code], capture_output=True, text=True)
    assert loaded.stdout.strip() == "set()", loaded.stderr
