"""Sweeps keep their runs apart, remember them, and do what is missing."""

import csv
import os
import re
import signal
import subprocess

import numpy as np
import pytest
from hydra import initialize_config_dir

from mnist_bench.config.compose import CONF
from mnist_bench.config.schema import register_schemas
from mnist_bench.config.walk import flatten
from mnist_bench.errors import ConfigError, DataError
from mnist_bench.launch.sweeps.plan import compose_job, plan
from mnist_bench.runs.checkpoint import epochs_begun, read_checkpoint
from mnist_bench.runs.load import load
from tests.support.train_command import (
    COMMAND,
    environment,
    read_summary,
    run_train,
    same_training,
)

TINY = (
    *("data.limit=200", "trainer.epochs=1", "trainer.gpus=0", "trainer.precision=fp32"),
    *("model.channels=[4,4]", "model.dense=[8]", "logger=none"),
)


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


def test_runs_that_would_be_the_same_are_refused(tmp_path, mnist_root):
    for arguments, said in (
        (["seed=0,0"], "Two runs of this sweep would be the same, seed=0"),
        (["model.dropout=0.5,.5"], "Two runs of this sweep would be the same, model.dropout=0.5"),
        (["seed=1", "seed=2,3"], "seed is given twice, as seed=1 and seed=2,3"),
        (["seed=0,1", "sweep.name=a/b"], "sweep.name=a/b is not allowed"),
        (["sweep.name=a,b"], "sweep.name=a,b varies what is one for a whole sweep"),
        (
            ["model.dropout=interval(0,1)"],
            "names no single values: give some, as in model.dropout=",
        ),
        (["seed=range(0)"], "seed=range(0) has no values to vary"),
        (["seed=range(0,9,0)"], "seed=range(0,9,0) has no values to vary"),
        (["model=glob(zzz*)"], "model=glob(zzz*) has no values to vary"),
        (["++seed=0,1", "seed=2"], "seed is given twice, as ++seed=0,1 and seed=2"),
    ):
        process = run_train("-m", *arguments, *TINY, cwd=tmp_path, data_root=mnist_root)
        assert process.returncode == 1
        assert said in process.stderr and len(process.stderr.splitlines()) == 1
        assert list(tmp_path.iterdir()) == []


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
    begun = epochs_begun(read_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt"))
    more = f"trainer.epochs={begun + 1}"
    again = run_train("resume=run", more, cwd=tmp_path, data_root=mnist_root)
    assert again.returncode == 0, again.stderr


# --- Named sweeps -----------------------------------------------------------------------------

NAMED = ("-m", *TINY, "sweep.name=named")
# Long enough to be stopped in the middle.
LONGER = ("-m", *TINY, "data.limit=1000", "trainer.epochs=5", "seed=range(4)")


def sweep_of(folder, mnist_root, *arguments, status=0):
    process = run_train(*arguments, cwd=folder, data_root=mnist_root)
    assert process.returncode == status, process.stderr
    return process


def when_trained(folder):
    return {p.parent.name: p.stat().st_mtime_ns for p in folder.rglob("predictions.npz")}


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


def test_another_setting_is_refused_and_the_difference_told(tmp_path, mnist_root):
    sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,1")
    before = when_trained(tmp_path)
    for changed, told in (
        (["seed=0,1", "optimizer.lr=0.1"], "made with optimizer.lr=0.003, and this has"),
        (["seed=5,6", "trainer.epochs=2"], "made with trainer.epochs=1, and this has"),
        (["seed=0,1", "model=cnn3x3", "model.dropout=0"], "made with model.dropout=[0.25, 0.5]"),
    ):
        process = sweep_of(tmp_path, mnist_root, *NAMED, *changed, status=1)
        (sentence,) = process.stderr.splitlines()
        assert told in sentence and "give it another sweep.name" in sentence
        assert "or what it was made with: mnist-bench train -m " in sentence
    assert when_trained(tmp_path) == before
    # What changes nothing that is computed may differ.
    sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,1", "trainer.save_every=3")


def test_a_dry_run_tells_what_is_there_and_trains_nothing(tmp_path, mnist_root):
    nothing = sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,1", "sweep.dry_run=true")
    assert "how long a run takes is not known yet" in nothing.stdout
    assert not (tmp_path / "outputs").exists()
    sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,1")
    some = sweep_of(tmp_path, mnist_root, *NAMED, "seed=range(4)", "sweep.dry_run=true")
    assert "2 of 4 runs are missing: about " in some.stdout
    assert some.stdout.count("waiting") == 2 and some.stdout.count("completed") == 2
    assert len(when_trained(tmp_path)) == 2


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
    assert any(line.split()[:2] == ["seed=1", "stopped"] for line in told)
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


def test_settings_are_planned_as_they_are_composed(mnist_root):
    """Numbers between the ends of an axis are set without composing all."""
    register_schemas()
    lines = [
        *(
            "model=cnn3x3,vgg16",
            "optimizer.lr=1e-4,2e-4,3e-4,0.5",
            "model.dropout=0.5,[0,0.1],0,0.2",
        ),
        *("model.adam_lr=0.001,0.002,0.003", "seed=range(2)", "data.scaling=raw,unit"),
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        planned = plan("train", lines[:3] + lines[4:], ["hydra.mode=RUN"])
        others = plan("train", ["trainer.gpus=0", lines[3]], ["hydra.mode=RUN"])
        assert len(planned.jobs) == 2 * 4 * 4 * 2 * 2
        assert [job.settings["optimizer.lr"] for job in others.jobs] == [0.001, 0.002, 0.003]
        refers = plan(
            *("train", ["label_smoothing=${model.adam_lr},0", lines[3], "++seed=1,2"]),
            ["hydra.mode=RUN"],
        )
        assert {job.settings["label_smoothing"] for job in refers.jobs} == {0, 1e-3, 2e-3, 3e-3}
        assert refers.jobs[0].name().endswith("--seed=1")
        with pytest.raises(ConfigError, match=r"the same, .* model.adam_lr=0.001 and .*=0.002"):
            plan("train", ["optimizer.lr=1e-3,2e-3", lines[3]], ["hydra.mode=RUN"])
        for job in (*planned.jobs[::7], *others.jobs, *refers.jobs):
            assert job.settings == flatten(compose_job("train", job, ["hydra.mode=RUN"]))


def test_a_folder_that_holds_another_run_is_not_taken_for_it(tmp_path, mnist_root):
    sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,1")
    named = tmp_path / "outputs" / "sweeps" / "named"
    (named / "seed=1").rename(named / "seed=2")
    process = sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,2", status=1)
    assert "seed=2 holds another run, of other settings: move it away" in process.stderr


def test_files_in_conf_sweep_are_sweeps(tmp_path, mnist_root):
    """Of which the command line may take a part."""
    process = sweep_of(tmp_path, mnist_root, "sweep=kernel_dropout", *TINY, "sweep.dry_run=true")
    assert "27 of 27 runs are missing" in process.stdout
    part = ("sweep=kernel_dropout", *TINY, "seed=5", "model.dropout=0.1,0.2", "sweep.dry_run=true")
    assert "6 of 6 runs are missing" in sweep_of(tmp_path, mnist_root, *part).stdout


def test_a_run_that_cannot_go_on_fails_the_sweep(tmp_path, mnist_root):
    """Though no summary.json could be written that says so."""
    sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,1")
    run = tmp_path / "outputs" / "sweeps" / "named" / "seed=0"
    (run / "summary.json").unlink()
    for file in (run / "checkpoints").iterdir():
        file.write_bytes(b"junk")
    process = sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,1", status=1)
    assert process.stderr.startswith("seed=0 failed: ")
    assert "1 of 2 runs are completed, 1 failed. To go on: " in process.stdout


def test_a_damaged_summary_fails_its_run_and_hides_no_other(tmp_path, mnist_root):
    sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,1")
    named = tmp_path / "outputs" / "sweeps" / "named"
    before = when_trained(named)
    (named / "seed=0" / "summary.json").write_text("{")
    process = sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,1,2", status=1)
    (sentence,) = process.stderr.splitlines()
    assert sentence.startswith("seed=0 failed: ") and "summary.json is damaged" in sentence
    assert "2 of 3 runs are completed, 1 failed. To go on: " in process.stdout
    after = when_trained(named)
    assert {*after} == {"seed=0", "seed=1", "seed=2"}
    assert all(after[name] == before[name] for name in before)
    command = [*COMMAND[:-1], "status", "named"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0 and "summary.json is damaged" in told.stderr
    for row in ("seed=0 +failed", "seed=1 +completed", "seed=2 +completed"):
        assert re.search(row, told.stdout)


@pytest.mark.parametrize("content", ["{", "[]", '{"jobs": {}}', '{"jobs": [1]}', "null"])
def test_a_damaged_record_is_named_and_runs_are_found_without_it(tmp_path, mnist_root, content):
    sweep_of(tmp_path, mnist_root, *NAMED, "seed=0")
    named = tmp_path / "outputs" / "sweeps" / "named"
    before = when_trained(named)
    (named / "sweep.json").write_text(content)
    process = sweep_of(tmp_path, mnist_root, *NAMED, "seed=0", status=1)
    assert "sweep.json is damaged" in process.stderr and "remove it" in process.stderr
    assert len(process.stderr.splitlines()) == 1
    (named / "sweep.json").unlink()
    sweep_of(tmp_path, mnist_root, *NAMED, "seed=0")
    assert when_trained(named) == before


def test_settings_of_sweeps_are_refused_where_they_would_do_nothing(tmp_path, mnist_root):
    for given in (
        [*TINY, "sweep.name=one"],
        ["-m", "hydra/sweeper=basic", *TINY, "seed=0,1", "sweep.dry_run=true"],
    ):
        process = sweep_of(tmp_path, mnist_root, *given, status=1)
        assert "is for a sweep of mnist-bench" in process.stderr
        assert list(tmp_path.iterdir()) == []
    sweep_of(tmp_path, mnist_root, "-m", "hydra/sweeper=basic", *TINY, "seed=0,1")
    assert len(when_trained(tmp_path)) == 2


def test_an_override_that_refers_to_a_setting_is_kept_as_it_was_given(tmp_path, mnist_root):
    refers = "label_smoothing=${model.adam_lr}"
    sweep_of(tmp_path, mnist_root, *TINY, refers, "hydra.run.dir=run")
    summary = read_summary(tmp_path / "run")
    assert refers in summary["overrides"] and summary["config"]["label_smoothing"] == 3e-3
    sweep_of(tmp_path, mnist_root, *NAMED, refers, "model.adam_lr=1e-3,2e-3")
    before = when_trained(tmp_path)
    sweep_of(tmp_path, mnist_root, *NAMED, refers, "model.adam_lr=1e-3,2e-3")
    assert when_trained(tmp_path) == before


def test_status_is_told_from_beside(tmp_path, mnist_root):
    sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,1")
    command = [*COMMAND[:-1], "status", "named"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0 and "All runs are completed." in told.stdout
    none = subprocess.run([*command[:-1], "nowhere"], cwd=tmp_path, capture_output=True, text=True)
    assert none.returncode == 1 and "nowhere is not the folder of a sweep" in none.stderr


def test_it_ends_at_the_first_failure_if_that_is_wished(tmp_path, mnist_root):
    fails = (*NAMED, "optimizer=sgd", "optimizer.lr=1e20,0.01", "sweep.fail_fast=true")
    process = sweep_of(tmp_path, mnist_root, *fails, status=1)
    assert "1 failed, 1 are left" in process.stdout


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
