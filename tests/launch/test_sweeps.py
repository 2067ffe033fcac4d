"""Sweeps keep their runs apart, remember them, and do what is missing."""

import csv
import os
import signal
import subprocess

import numpy as np
import pytest

from mnist_bench.errors import ConfigError, DataError
from mnist_bench.runs.checkpoint import epochs_begun, read_last
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.load import load
from tests.support.sweeps import NAMED, sweep_of, when_trained
from tests.support.train_command import (
    COMMAND,
    TINY,
    environment,
    read_summary,
    run_train,
    same_training,
)

# Long enough to be stopped in the middle.
LONGER = ("-m", *TINY, "data.limit=1000", "trainer.epochs=5", "seed=range(4)")


@pytest.mark.slow
def test_two_sweeps_that_begin_together_have_folders_of_their_own(tmp_path, mnist_root):
    """Both are told the same folder, as two of the same second are."""
    folder = "hydra.sweep.dir=sweep"
    processes = [
        subprocess.Popen(
            [*COMMAND, "-m", f"model={model}", "seed=0,1", *TINY, folder],
            cwd=tmp_path,
            env=environment(mnist_root),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for model in ("cnn3x3", "cnn5x5")
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    found = {
        name: [read_summary(tmp_path / name / f"seed={seed}")["model"] for seed in (0, 1)]
        for name in ("sweep", "sweep-2")
    }
    assert sorted(found.values()) == [["cnn3x3"] * 2, ["cnn5x5"] * 2]


def test_a_run_that_is_in_use_is_refused_with_its_owner(tmp_path, mnist_root):
    """And once it is over, it can be gone on with."""
    long = [*TINY, "trainer.epochs=1000", "hydra.run.dir=run"]
    with subprocess.Popen(
        [*COMMAND, *long], cwd=tmp_path, env=environment(mnist_root), stdout=subprocess.PIPE
    ) as owner:
        while not (tmp_path / "run" / "checkpoints" / "last.pt").exists():
            assert owner.poll() is None
        refused = run_train("resume=run", cwd=tmp_path, data_root=mnist_root)
        assert refused.returncode == 1
        (sentence,) = refused.stderr.splitlines()
        assert f"run is in use by process {owner.pid} on " in sentence
        owner.kill()
    begun = epochs_begun(read_last(RunFolder(tmp_path / "run"), print))  # killed while it saved?
    more = f"trainer.epochs={begun + 1}"
    again = run_train("resume=run", more, cwd=tmp_path, data_root=mnist_root)
    assert again.returncode == 0, again.stderr


def test_the_same_command_again_does_what_is_missing(tmp_path, mnist_root):
    """In whatever order; with more values it is extended, also by what did not vary before."""
    named = tmp_path / "outputs" / "sweeps" / "named"
    first = sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,1", "model.kernel_size=3,5")
    assert "run 4 of 4: seed=1 model.kernel_size=5" in first.stdout
    before = when_trained(named)
    assert sorted(before) == [
        f"model.kernel_size={size}--seed={seed}" for size in (3, 5) for seed in (0, 1)
    ]
    assert first.stdout.count("output shape") == 2  # a table of layers for each network

    again = sweep_of(tmp_path, mnist_root, *NAMED, "model.kernel_size=5,3", "seed=1,0")
    assert when_trained(named) == before
    assert "epoch" not in again.stdout
    assert again.stdout.count("kernel_size=") == 4 + 2  # and the best run and setting
    means = {
        size: np.mean(
            [
                read_summary(named / f"model.kernel_size={size}--seed={seed}")["val_loss"]
                for seed in (0, 1)
            ]
        )
        for size in (3, 5)
    }
    least = min(means, key=means.get)
    told = f"kernel_size={least}, mean validation loss {means[least]:.4f} (standard deviation "
    assert f"best over 2 seeds or more: {told}" in again.stdout

    more = sweep_of(tmp_path, mnist_root, *NAMED, "model.kernel_size=3,5,7", "seed=0,2")
    after = when_trained(named)
    assert {name: after[name] for name in before} == before
    assert len(after) == 8 and more.stdout.count("\nrun ") == 4

    sweep_of(tmp_path, mnist_root, *NAMED, "model.kernel_size=3,5", "seed=3")
    assert "model.kernel_size=5--seed=3" in when_trained(named)
    with (named / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    assert {(row["model.kernel_size"], row["seed"]) for row in rows} >= {("7", "2"), ("5", "3")}
    for row in rows:
        summary = read_summary(named / row["run"])
        assert float(row["val_loss"]) == summary["val_loss"]
        assert int(row["test_errors"]) == summary["test_errors"]


@pytest.mark.slow
def test_a_sweep_that_is_stopped_says_how_it_goes_on_to_the_same_end(tmp_path, mnist_root):
    whole = sweep_of(tmp_path, mnist_root, *LONGER, "sweep.name=whole")
    assert "To go on" not in whole.stdout
    with subprocess.Popen(
        [*COMMAND, *LONGER],
        cwd=tmp_path,
        env=environment(mnist_root, PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        told = []
        for line in process.stdout:
            told.append(line)
            if line.startswith("epoch 3/5") and "run 2 of 4: seed=1\n" in told:
                process.send_signal(signal.SIGINT)
    assert process.returncode == 128 + signal.SIGINT
    (how,) = [line for line in told if "To go on: " in line]
    assert how.startswith("1 of 4 runs are completed, 3 are left. To go on: mnist-bench train -m ")
    assert any(line.split()[:2] == ["seed=1", "stopped,"] for line in told)
    command = how.partition("mnist-bench train ")[2]
    goes_on = subprocess.run(
        " ".join([*COMMAND, command]),
        shell=True,
        cwd=tmp_path,
        env=environment(mnist_root),
        capture_output=True,
        text=True,
    )
    assert goes_on.returncode == 0, goes_on.stderr
    assert "run 2 of 4, goes on: seed=1" in goes_on.stdout and "run 1 of" not in goes_on.stdout
    (stopped,) = [p for p in (tmp_path / "outputs" / "sweeps").iterdir() if p.name != "whole"]
    for seed in range(4):
        same_training(stopped / f"seed={seed}", stopped.with_name("whole") / f"seed={seed}")


def test_two_processes_share_a_sweep_and_one_takes_over_from_the_other(tmp_path, mnist_root):
    """Each run is trained once, but for the one that is killed in the middle."""
    shared = [*COMMAND, *LONGER, "sweep.name=shared"]
    variables = environment(mnist_root, PYTHONUNBUFFERED="1")
    with subprocess.Popen(
        shared, cwd=tmp_path, env=variables, stdout=subprocess.PIPE, text=True
    ) as killed:
        for line in killed.stdout:
            if line.startswith("epoch 2/5"):
                break
        with subprocess.Popen(
            shared, cwd=tmp_path, env=variables, stdout=subprocess.PIPE, text=True
        ) as other:
            for line in other.stdout:
                if line.startswith("run "):
                    os.kill(killed.pid, signal.SIGKILL)
                    break
            rest = [line, *other.stdout]
        before = ["run 1 of 4: seed=0\n", *killed.stdout]
    assert other.returncode == 0
    first, second = (
        [line.split("seed=")[1].strip() for line in lines if line.startswith("run ")]
        for lines in (before, rest)
    )
    assert {*first, *second} == {"0", "1", "2", "3"}
    assert len({*second}) == len(second) and {*first} & {*second} <= {first[-1]}
    assert len(when_trained(tmp_path)) == 4


def test_status_is_told_from_beside(tmp_path, mnist_root):
    sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,1")
    command = [*COMMAND[:-1], "status", "named"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0 and "All runs are completed." in told.stdout
    none = subprocess.run([*command[:-1], "nowhere"], cwd=tmp_path, capture_output=True, text=True)
    assert none.returncode == 1 and "nowhere is not there: name the folder of a run" in none.stderr


def test_checkpoints_stay_as_is_wished(tmp_path, mnist_root, images):
    """What stays is enough: to predict with, or to go on from; and if not, that is said."""
    files = {"all": {"best.pt", "last.pt"}, "best": {"best.pt"}, "last": {"last.pt"}, "none": set()}
    for keep, kept in files.items():
        # At such a rate an earlier epoch is the best of some, and last.pt has not what was tested.
        sweep_of(
            tmp_path,
            mnist_root,
            *("-m", *TINY, f"sweep.name={keep}", f"sweep.keep={keep}", "seed=range(4)"),
            *("trainer.epochs=3", "optimizer.lr=0.3", "scheduler=constant"),
        )
        for run in (tmp_path / "outputs" / "sweeps" / keep).glob("seed=*"):
            assert {p.name for p in (run / "checkpoints").iterdir()} - {"previous.pt"} == kept
    sweeps = tmp_path / "outputs" / "sweeps"
    pixels = images.test_images[:200].numpy()
    tested = []
    for seed in range(4):
        whole, best = (load(sweeps / keep / f"seed={seed}") for keep in ("all", "best"))
        expected = whole.predict(pixels).probabilities
        np.testing.assert_array_equal(best.predict(pixels).probabilities, expected)
        tested.append(read_summary(sweeps / "last" / f"seed={seed}")["tested_epoch"])
        if tested[-1] != 3:
            with pytest.raises(DataError, match=f"weights of epoch {tested[-1]}, and has .* 3 al"):
                load(sweeps / "last" / f"seed={seed}")
        with pytest.raises(ConfigError, match="it has no checkpoints"):
            load(sweeps / "none" / f"seed={seed}")
    assert any(epoch != 3 for epoch in tested)
    # Of what was kept before, too, once less is wished.
    less = ("-m", *TINY, "sweep.name=all", "sweep.keep=none", "seed=0,1", "trainer.epochs=3")
    sweep_of(tmp_path, mnist_root, *less, "optimizer.lr=0.3", "scheduler=constant")
    for seed, kept in enumerate((set(), set(), files["all"], files["all"])):
        run = sweeps / "all" / f"seed={seed}" / "checkpoints"
        assert {p.name for p in run.iterdir()} - {"previous.pt"} == kept
