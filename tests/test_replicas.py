"""Networks that train side by side against each one trained alone."""

import csv
import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from train_command import COMMAND, environment, run_train

from mnist_bench import replicas as replicas_module
from mnist_bench import run as run_module
from mnist_bench.checkpoint import read_checkpoint
from mnist_bench.errors import TrainingError
from mnist_bench.placement import find_placement
from mnist_bench.replicas import OwnRandomness
from mnist_bench.run import run

SETTINGS = (
    *("model=cnn5x5_single", "scheduler=constant", "data.limit=500", "trainer.gpus=0"),
    *("trainer.batch_size=64", "trainer.epochs=3", "trainer.precision=fp32"),
    *("augmentation=affine_elastic", "trainer.ema_decay=0.9"),
)


def train(folder, data_root, *overrides):
    run = run_train(
        *SETTINGS, f"hydra.run.dir='{folder}'", *overrides, cwd=folder.parent, data_root=data_root
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def curves(folder):
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"], row["images_per_second"]
    return rows


def assert_same_run(one, other):
    """The same weights, predictions and curves, bit for bit."""
    assert curves(one) == curves(other)
    ours, theirs = np.load(one / "predictions.npz"), np.load(other / "predictions.npz")
    assert np.array_equal(ours["logits"], theirs["logits"])
    assert np.array_equal(ours["labels"], theirs["labels"])
    for checkpoint in ("last.pt", "best.pt"):
        a, b = (read_checkpoint(f / "checkpoints" / checkpoint) for f in (one, other))
        assert a.keys() == b.keys()
        for part in {"network", "average"} & a.keys():
            assert all(torch.equal(a[part][name], b[part][name]) for name in a[part])
        assert "rng" not in a or torch.equal(a["rng"]["cpu"], b["rng"]["cpu"])
    assert torch.equal(
        *(read_checkpoint(f / "checkpoints/last.pt")["rng"]["cpu"] for f in (one, other))
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory, mnist_root):
    """Seeds 7 and 8, each trained by a command of its own."""
    folder = tmp_path_factory.mktemp("alone")
    for seed in (7, 8):
        train(folder / f"seed={seed}", mnist_root, f"seed={seed}")
    return folder


def test_each_replica_is_the_run_that_it_would_have_been_alone(alone, tmp_path, mnist_root):
    folder = tmp_path / "together"
    screen = train(folder, mnist_root, "seed=7", "trainer.replicas=2")
    files = {str(p.relative_to(alone)) for p in alone.rglob("*") if "events" not in p.name}
    logs = {f"seed={seed}/train.log" for seed in (7, 8)}
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if "events" not in p.name}
    assert {name for name in found if name.startswith("seed=")} == files | logs
    accuracies = []
    for name in ("seed=7", "seed=8"):
        assert_same_run(folder / name, alone / name)
        ours, theirs = (
            OmegaConf.load(f / name / ".hydra" / "config.yaml") for f in (folder, alone)
        )
        assert ours == theirs
        ours, theirs = (
            json.loads((f / name / "summary.json").read_text()) for f in (folder, alone)
        )
        differ = {key for key in ours if ours[key] != theirs[key]}
        assert differ <= {"replicas", "train_seconds", "images_per_second", "started", "overrides"}
        assert ours["replicas"] == 2
        accuracies.append(ours["test_accuracy"])
        assert f"{name} " in screen
    assert f"mean {np.mean(accuracies):.2%}" in screen
    assert f"standard deviation {np.std(accuracies, ddof=1):.2%}" in screen


def test_interrupted_replicas_are_resumed_together(alone, tmp_path, mnist_root):
    folder = tmp_path / "together"
    command = [*COMMAND, *SETTINGS, "seed=7", "trainer.replicas=2", f"hydra.run.dir={folder}"]
    process = subprocess.Popen(
        command, env=environment(mnist_root), stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    begun = folder / "seed=8" / "checkpoints" / "last.pt"
    while not begun.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    screen, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT, screen
    assert "To go on: python train.py resume=together" in screen
    statuses = [
        json.loads((folder / f"seed={s}/summary.json").read_text())["status"] for s in (7, 8)
    ]
    assert statuses == ["interrupted", "interrupted"]
    run = run_train(f"resume={folder}", cwd=tmp_path, data_root=mnist_root)
    assert run.returncode == 0, run.stderr
    for name in ("seed=7", "seed=8"):
        assert_same_run(folder / name, alone / name)


def test_replicas_that_stand_at_different_epochs_all_come_to_the_end(alone, tmp_path, mnist_root):
    """As after a kill between the checkpoints of an epoch; here one of them has gone on alone."""
    folder = tmp_path / "together"
    train(folder, mnist_root, "seed=7", "trainer.replicas=2", "trainer.epochs=1")
    for resumed, epochs in ((folder / "seed=8", 2), (folder, 3)):
        run = run_train(
            f"resume='{resumed}'", f"trainer.epochs={epochs}", cwd=tmp_path, data_root=mnist_root
        )
        assert run.returncode == 0, run.stderr
    for name in ("seed=7", "seed=8"):
        assert_same_run(folder / name, alone / name)
        config = OmegaConf.load(folder / name / ".hydra" / "config.yaml")
        assert config.trainer.epochs == 3


@pytest.fixture
def run_from_6(alone, tmp_path, mnist_root, compose, monkeypatch):
    """Runs replicas from seed 6 on, which is given a rate that no training survives."""
    build = replicas_module.build_learner

    def build_with_one_that_diverges(config, placement, splits):
        learner = build(config, placement, splits)
        if config.seed == 6:
            learner.schedule = lambda step: 1e20
        return learner

    monkeypatch.setattr(replicas_module, "build_learner", build_with_one_that_diverges)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "together"
    shutil.copytree(alone / "seed=7" / ".hydra", folder / ".hydra")

    def run_replicas(*overrides):
        run(compose(*SETTINGS, f"data.root={mnist_root}", "seed=6", *overrides), folder)

    run_replicas.folder = folder
    return run_replicas


def test_a_replica_that_diverges_leaves_the_others_to_go_on(alone, run_from_6):
    """And once more: it begins again, and the others go on from their last epoch."""
    folder = run_from_6.folder
    for epochs, resume in (("2", ()), ("3", (f'resume="{folder}"',))):
        with pytest.raises(
            TrainingError, match=r"^1 of 3 replicas failed \(seed=6\), and .*The loss became"
        ):
            run_from_6("trainer.replicas=3", f"trainer.epochs={epochs}", *resume)
        failed = summary(folder / "seed=6")
        assert failed["status"] == "failed"
        assert failed["error"].startswith("The loss became")
        assert "Traceback" in (folder / "seed=6" / "train.log").read_text()
    for name in ("seed=7", "seed=8"):
        assert_same_run(folder / name, alone / name)


def test_a_stop_that_comes_with_a_divergence_is_not_lost(run_from_6, monkeypatch):
    record = run_module.record_failure

    def record_and_press_ctrl_c(this, error):
        record(this, error)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(run_module, "record_failure", record_and_press_ctrl_c)
    with pytest.raises(SystemExit) as stopped:
        run_from_6("trainer.replicas=2")
    assert stopped.value.code == 128 + signal.SIGTERM
    assert summary(run_from_6.folder / "seed=7")["status"] == "interrupted"
    assert (run_from_6.folder / "seed=7" / "checkpoints" / "last.pt").is_file()


def test_own_randomness_is_that_of_the_seed_and_leaves_others_alone(compose):
    device = find_placement(compose("trainer.gpus=0").trainer).device
    torch.manual_seed(1)
    expected = torch.rand(4), torch.rand(4)
    torch.manual_seed(2)
    outside = torch.rand(2)
    torch.manual_seed(1)
    own = OwnRandomness(device)
    torch.manual_seed(2)
    with own:
        first = torch.rand(4)
    between = torch.rand(2)
    with own:
        second = torch.rand(4)
    assert torch.equal(first, expected[0])
    assert torch.equal(second, expected[1])
    assert torch.equal(between, outside)
