"""Searches: what a space may be, trials that survive, and what is made of the best."""

import csv
import os
import re
import signal
import statistics
import subprocess
import sys

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from mnist_bench.errors import ConfigError, DataError
from mnist_bench.launch.search import results
from mnist_bench.launch.search.command import begin
from mnist_bench.launch.search.search import Reporter
from mnist_bench.launch.search.space import as_overrides, find_space, read_space
from mnist_bench.launch.search.study import JOURNAL, SEEDS, SharedStudy, ask
from mnist_bench.loggers.base import Pruned
from tests.support.train_command import (
    COMMAND,
    REPOSITORY,
    environment,
    read_summary,
    run_train,
    same_training,
)

TINY = (
    *("data.limit=200", "trainer.epochs=1", "trainer.gpus=0", "trainer.precision=fp32"),
    *("model.channels=[4,4]", "model.dense=[8]", "logger=none"),
)
SPACE = "optimizer.lr: {low: 1e-4, high: 1e-2, log: true}\nmodel.kernel_size: [3, 5]\n"


def search_in(folder, mnist_root, *arguments, status=0, space=SPACE):
    (folder / "space.yaml").write_text(space)
    process = run_train(
        *("tried", "--space", "space.yaml", *arguments),
        cwd=folder,
        data_root=mnist_root,
        verb="search",
    )
    assert process.returncode == status, process.stderr + process.stdout
    return process


def refusal(folder, mnist_root, monkeypatch, *arguments, space=SPACE, seeds=1):
    """Return the sentence that a search ends with in this process."""
    (folder / "space.yaml").write_text(space)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MNIST_BENCH_DATA", str(mnist_root))
    monkeypatch.setattr("sys.argv", ["mnist-bench"])
    monkeypatch.setattr("sys.path", [*sys.path])
    with pytest.raises(SystemExit) as ended:
        begin("tried", arguments, "space.yaml", trials=1, seeds=seeds)
    assert isinstance(ended.value.code, str) and "\n" not in ended.value.code
    return ended.value.code


def study_in(folder):
    return SharedStudy(folder / "outputs" / "searches" / "tried")


# --- Spaces -----------------------------------------------------------------------------------


def read(tmp_path, text):
    (tmp_path / "space.yaml").write_text(text)
    return read_space(tmp_path / "space.yaml")


def test_a_space_has_ranges_whole_numbers_and_choices(tmp_path):
    space = read(
        tmp_path,
        "optimizer.lr: {low: 1e-4, high: 1e-2, log: true}\n"
        "model.dropout: {low: 0, high: 0.6, step: 0.1}\n"
        "trainer.batch_size: {low: 32, high: 256, step: 32}\n"
        "model.kernel_size: [3, [3, 5]]\n"
        "trainer.ema_decay: [null, 0.99]\n"
        "optimizer: [adam, sgd]\n",
    )
    assert space.distributions == {
        "optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True),
        "model.dropout": FloatDistribution(0, 0.6, step=0.1),
        "trainer.batch_size": IntDistribution(32, 256, step=32),
        "model.kernel_size": CategoricalDistribution([3, "[3,5]"]),
        "trainer.ema_decay": CategoricalDistribution([None, 0.99]),
        "optimizer": CategoricalDistribution(["adam", "sgd"]),
    }
    lines = [as_overrides(values) for values in space.ends()]
    assert lines[0] == [
        *("optimizer.lr=0.0001", "model.dropout=0.0", "trainer.batch_size=32"),
        *("model.kernel_size=3", "trainer.ema_decay=null", "optimizer=adam"),
    ]
    reached = {line for values in lines for line in values}
    assert {"optimizer.lr=0.01", "model.kernel_size=[3,5]", "optimizer=sgd"} <= reached


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- 1", "is not a space: it has to be a mapping"),
        ("", "is not a space"),
        ("a: [1", "cannot be read"),
        ("a: 1", "a: 1 is neither a range, such as {low: 0.0, high: 0.6}, nor a list"),
        ("a: []", "a has an empty list"),
        ("a: [1, 1]", "a has 1 twice"),
        ("a: {low: 1, high: 1}", "a has low 1 and high 1: low has to be below high"),
        ("a: {low: 0, high: 1, log: true}", "a has log: true and low 0"),
        ("a: {low: 0, high: 1, log: 3}", "a has log: 3, which has to be true or false"),
        ("a: {low: 0}", "a is no range: give two numbers, low and high"),
        ("a: {low: 0, high: x}", "a is no range"),
        ("a: {min: 0, high: 1}", "a has min, and a range takes low, high, log, step"),
        ("a: {low: 0, high: 1, step: 2}", "a has step 2"),
        ("a: {low: 1, high: 9, step: 2, log: true}", "a has both log: true and a step"),
        ("seed: [1, 2]", "seed is not searched: give --seeds"),
        ("logger: [none, wandb]", "logger is not searched: it does not decide"),
        ("trainer.gpus: [0, 1]", "trainer.gpus is not searched"),
    ],
)
def test_a_space_that_cannot_be_is_refused_in_a_sentence(tmp_path, text, told):
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, text)
    assert told in str(refused.value) and "space.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_ready_space_is_found_by_its_name():
    assert set(read_space(find_space("small")).distributions) == {
        *("optimizer.lr", "model.dropout", "model.kernel_size"),
    }
    with pytest.raises(ConfigError, match=r"--space tiny is not there: .* one of small"):
        find_space("tiny")


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


# --- The study --------------------------------------------------------------------------------

LR = {"optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True)}


@pytest.fixture
def study(tmp_path):
    made = SharedStudy(tmp_path)
    made.refuse_another({"seed": 0, SEEDS: 1})
    return made


def test_a_torn_line_of_the_journal_is_cut_off(tmp_path, study):
    """Also where another process has the journal open."""
    assert study.claim(9, LR, seed=0) == 0
    study.study.tell(0, 0.5)
    study.kept.close()
    journal = tmp_path / JOURNAL
    whole = journal.read_bytes()
    for cut in (1, 20):
        last = whole.splitlines(keepends=True)[-1]
        journal.write_bytes(whole + last[:-cut])
        again = SharedStudy(tmp_path)
        assert journal.read_bytes() == whole
        assert [trial.values for trial in again.trials] == [[0.5]]
    journal.write_bytes(whole + last[:-cut])
    assert study.claim(9, LR, seed=0) == 1
    assert [trial.state for trial in SharedStudy(tmp_path).trials] == [
        TrialState.COMPLETE,
        TrialState.RUNNING,
    ]


def test_a_damaged_journal_is_named(tmp_path, study):
    journal = tmp_path / JOURNAL
    journal.write_bytes(b"junk\n" + journal.read_bytes())
    with pytest.raises(DataError, match=r"journal.log is damaged \(.*\): move .* away"):
        SharedStudy(tmp_path)


CLAIM_AND_DIE = """
import os, sys
from pathlib import Path
from optuna.distributions import FloatDistribution
from mnist_bench.launch.search.study import SharedStudy
study = SharedStudy(Path(sys.argv[1]))
lr = {"optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True)}
print(study.claim(1, lr, seed=0), study.claim(2, lr, seed=0), study.others_run(), flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_trial_is_one_process_s_alone_until_that_dies(tmp_path, study):
    assert study.claim(2, LR, seed=0) == 0
    command = [COMMAND[0], "-c", CLAIM_AND_DIE, str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert told.stdout == "None 1 True\n", told.stderr
    params = study.trials[1].params
    study.study.tell(0, 0.5)
    study.kept.close()
    assert study.claim(2, LR, seed=0) == 1
    assert study.trials[1].params == params


def test_a_trial_depends_on_those_before_it_alone(study):
    """And not on how many have been asked for in this process."""
    asked = []
    for number in range(14):
        assert study.claim(14, LR, seed=3) == number
        trial = study.trials[number]
        asked.append(trial.params)
        study.study.tell(number, abs(trial.params["optimizer.lr"] - 1e-3))
        study.kept.close()
    trials = study.trials
    assert [ask(trials[:n], LR, seed=3).params for n in range(14)] == asked
    assert ask(trials[:5], LR, seed=4).params != asked[5]
    assert len({params["optimizer.lr"] for params in asked}) == 14


def test_a_trial_is_pruned_above_the_median_and_decided_on_once(study):
    for number in range(6):
        assert study.claim(7, LR, seed=0) == number
        trial = study.attach(number)
        for epoch in (1, 2, 3):
            trial.report(number / epoch, epoch)
        study.study.tell(number, number / 3)
        study.kept.close()
    assert study.claim(7, LR, seed=0) == 6

    def reporter():
        made = Reporter(study.attach(6))
        made.epochs = 3
        return made

    median = statistics.median(number / 2 for number in range(6))
    first = reporter()
    first.epoch({"epoch": 1, "val_loss": 9.0})  # too early to say
    with pytest.raises(Pruned, match=r"epoch 2 of 3: its validation loss, 1.2600"):
        first.epoch({"epoch": 2, "val_loss": median + 0.01})
    again = reporter()
    again.epoch({"epoch": 1, "val_loss": 9.0})  # trained again after a kill
    with pytest.raises(Pruned):
        again.epoch({"epoch": 2, "val_loss": median + 0.01})
    assert study.trials[6].intermediate_values == {1: 9.0, 2: median + 0.01}


def test_what_mattered_is_what_was_made_to_matter(tmp_path, study):
    both = {**LR, "model.dropout": FloatDistribution(0, 0.6)}
    for number in range(40):
        params = {
            "optimizer.lr": 10 ** (-4 + 2 * number / 39),
            "model.dropout": (number * 7) % 40 / 80,
        }
        study.study.add_trial(
            optuna.create_trial(params=params, distributions=both, value=params["optimizer.lr"])
        )
    shares = results.importances_of(study)
    assert shares["optimizer.lr"] > 0.7 and sum(shares.values()) == pytest.approx(1)
    results.draw_importances(tmp_path / "picture.png", shares)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


# --- Whole searches ---------------------------------------------------------------------------


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
        (["model.dropout=0"], SPACE, "made with model.dropout=[0.25, 0.5], and this has"),
        ([], SPACE.replace("[3, 5]", "[3, 7]"), "model.kernel_size=[3, 5], and this has"),
    ):
        seeds = 3 if "--seeds" in told else 2
        given = (*TINY, *arguments)
        said = refusal(tmp_path, mnist_root, monkeypatch, *given, space=space, seeds=seeds)
        assert told in said and "give it another name" in said
    told = run_train("tried", cwd=tmp_path, data_root=mnist_root, verb="status")
    assert "1 trials: 1 completed" in told.stdout


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
