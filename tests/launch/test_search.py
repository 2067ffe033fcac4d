"""Whole searches: what is refused, trials that survive, and what is made of the best."""

import csv
import os
import re
import signal
import statistics
import subprocess

import pytest
from optuna.trial import TrialState

from tests.support.searches import SPACE, refusal, search_in, study_in
from tests.support.train_command import (
    COMMAND,
    TINY,
    environment,
    read_summary,
    run_train,
    same_training,
)


def test_what_cannot_be_searched_is_refused_before_anything_is_written(
    tmp_path, mnist_root, monkeypatch
):
    for arguments, space, told in (
        ([], "model.drop: [0, 0.5]\n", "model.drop is not a key"),
        ([], "model.dropout: {low: 0.0, high: 1.0}\n", "model.dropout=1.0 is not allowed"),
        (["data.validation=test"], SPACE, "would choose by the test set"),
        (["model.kernel_size=3"], SPACE, "model.kernel_size is given twice"),
        (["model.dropout=0,0.5"], SPACE, "are several values: put them into the space"),
    ):
        assert told in refusal(tmp_path, mnist_root, monkeypatch, *TINY, *arguments, space=space)
        assert [path.name for path in tmp_path.iterdir()] == ["space.yaml"]


def test_a_search_is_pruned_goes_on_and_its_best_can_be_trained(tmp_path, mnist_root):
    epochs = ("trainer.epochs=4", "optimizer=sgd")
    space = "optimizer.lr: {low: 1e-6, high: 0.1, log: true}\nmodel: [mnist_cnn, cnn3x3]\n"
    arguments = (*TINY, *epochs)
    first = search_in(tmp_path, mnist_root, *arguments, "--trials", "4", space=space)
    assert "4 trials: 4 completed" in first.stdout
    whole = search_in(tmp_path, mnist_root, *arguments, "--trials", "14", space=space)
    assert "trial-003" not in whole.stdout and "trial-013 (14 of 14): lr=" in whole.stdout

    trials = study_in(tmp_path).trials
    completed = []
    for trial in trials:
        folder = study_in(tmp_path).folder_of(trial.number)
        losses, summary = trial.intermediate_values, read_summary(folder)
        others = [t.intermediate_values for t in completed]
        prunes = next(
            (
                epoch
                for epoch in (2, 3)
                if len(completed) >= 5
                and min(v for e, v in losses.items() if e <= epoch)
                > statistics.median(other[epoch] for other in others)
            ),
            None,
        )
        if prunes is None:
            assert summary["status"] == "completed" and trial.values == [summary["val_loss"]]
            completed.append(trial)
        else:
            assert summary["status"] == "pruned" and max(losses) == prunes
            assert not (folder / "predictions.npz").exists()
    assert 0 < len(trials) - len(completed) < 9
    with (tmp_path / "outputs/searches/tried/trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["optimizer.lr"]) for row in rows] == [
        t.params["optimizer.lr"] for t in trials
    ]
    best = min(completed, key=lambda trial: trial.values[0])
    assert f"best: outputs/searches/tried/trial-{best.number:03}" in whole.stdout

    again = run_train(
        *("--config-dir", "outputs/searches/tried", "experiment=best"),
        *("logger=none", "trainer.gpus=0", "hydra.run.dir=best"),
        cwd=tmp_path,
        data_root=mnist_root,
    )
    assert again.returncode == 0, again.stderr
    assert same_search_run(tmp_path / "best", study_in(tmp_path).folder_of(best.number))
    table = whole.stdout.partition("outputs/searches/tried\n")[2].partition("best: ")[0]
    assert max(map(len, table.splitlines())) <= 80 and "val loss" in table


def same_search_run(one, other):
    assert read_summary(one)["digest"] == read_summary(other)["digest"]
    return read_summary(one)["val_loss"] == read_summary(other)["val_loss"]


def test_another_space_or_setting_is_refused_and_the_difference_told(
    tmp_path, mnist_root, monkeypatch
):
    search_in(tmp_path, mnist_root, *TINY, "--trials", "1", "--seeds", "2")
    trial = study_in(tmp_path).trials[0]
    runs = [tmp_path / "outputs/searches/tried/trial-000" / f"seed={seed}" for seed in (0, 1)]
    losses = [read_summary(run)["val_loss"] for run in runs]
    assert trial.values == [statistics.fmean(losses)] and len(set(losses)) == 2
    for arguments, space, told in (
        ([], SPACE, "made with --seeds=2, and this has --seeds=3"),
        (["model.dropout=0"], SPACE, "made with model.dropout=[0.25,0.5], and this has"),
        ([], SPACE.replace("[3, 5]", "[3, 7]"), "model.kernel_size=[3,5], and this has"),
    ):
        seeds = 3 if "--seeds" in told else 2
        given = (*TINY, *arguments)
        said = refusal(tmp_path, mnist_root, monkeypatch, *given, space=space, seeds=seeds)
        assert told in said and "give it another name" in said
    told = run_train("tried", cwd=tmp_path, data_root=mnist_root, verb="status")
    assert "1 trial: 1 completed" in told.stdout
    assert "best: outputs/searches/tried/trial-000" in told.stdout


def test_a_trial_that_fails_does_not_end_the_search(tmp_path, mnist_root):
    space = "optimizer.lr: [0.01, 1e20]\n"
    process = search_in(tmp_path, mnist_root, *TINY, "optimizer=sgd", "--trials", "5", space=space)
    trials = study_in(tmp_path).trials
    states = {trial.params["optimizer.lr"]: trial.state for trial in trials}
    assert states == {0.01: TrialState.COMPLETE, 1e20: TrialState.FAIL}
    failed = next(trial for trial in trials if trial.state is TrialState.FAIL)
    assert "The loss became" in failed.user_attrs["error"]
    assert f"trial-{failed.number:03} failed: The loss became" in process.stderr
    space = "optimizer.lr: [1e19, 1e20]\n"
    (tmp_path / "other").mkdir()
    process = search_in(
        tmp_path / "other",
        mnist_root,
        *(*TINY, "optimizer=sgd", "--trials", "2"),
        space=space,
        status=1,
    )
    assert "All trials of this search failed" in process.stderr


LONGER = (*TINY, "data.limit=1000", "trainer.epochs=5", "--trials", "3")


def begin_search(folder, mnist_root, *more):
    (folder / "space.yaml").write_text(SPACE)
    return subprocess.Popen(
        [*COMMAND[:-1], "search", "tried", "--space", "space.yaml", *LONGER, *more],
        cwd=folder,
        env=environment(mnist_root, PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(process, begins, then):
    """Read lines until one begins so behind one that begins with `then`."""
    seen = False
    for line in process.stdout:
        seen = seen or line.startswith(begins)
        if seen and line.startswith(then):
            return


def same_searches(one, other):
    """In what was tried, how it was judged, and all that was computed."""
    found = [study_in(folder) for folder in (one, other)]
    tried = [
        [(t.params, t.state, t.values, t.intermediate_values) for t in study.trials]
        for study in found
    ]
    assert tried[0] == tried[1]
    return all(
        same_training(*(study.folder_of(trial.number) for study in found))
        for trial in found[0].trials
    )


@pytest.mark.slow
def test_a_search_that_is_killed_and_stopped_goes_on_to_the_same_end(tmp_path, mnist_root):
    folders = [tmp_path / name for name in ("whole", "killed")]
    for folder in folders:
        folder.mkdir()
    search_in(folders[0], mnist_root, *LONGER)
    with begin_search(folders[1], mnist_root) as process:
        until(process, "trial-000", "epoch 3/5")
        process.kill()
    with begin_search(folders[1], mnist_root) as process:
        until(process, "trial-001", "epoch 2/5")
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate()
    assert process.returncode == 128 + signal.SIGINT, errors
    told = re.search(r"2 of 3 trials are left. To go on: (mnist-bench search tried .*)", rest)
    assert told is not None and "--space space.yaml --trials 3" in told[1]
    search_in(folders[1], mnist_root, *LONGER)
    assert same_searches(*folders)


@pytest.mark.slow
def test_two_processes_share_a_search_and_one_takes_over_from_the_other(tmp_path, mnist_root):
    many = ("--trials", "8")
    with (
        begin_search(tmp_path, mnist_root, *many) as killed,
        begin_search(tmp_path, mnist_root, *many) as other,
    ):
        until(killed, "trial-", "epoch 1/5")
        until(other, "trial-", "epoch 1/5")
        os.kill(killed.pid, signal.SIGKILL)
        rest, errors = other.communicate()
    assert other.returncode == 0, errors
    trials = study_in(tmp_path).trials
    assert len({trial.params["optimizer.lr"] for trial in trials}) == len(trials) == 8
    assert all(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
    assert "8 trials: " in rest
    for trial in trials:
        log = (study_in(tmp_path).folder_of(trial.number) / "train.log").read_text()
        assert log.count("  test accuracy  ") == (trial.state is TrialState.COMPLETE)
