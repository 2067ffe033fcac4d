"""The study of a search: a journal that survives, and trials that depend on it alone."""

import statistics
import subprocess

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from mnist_bench.analysis.find import JOURNAL
from mnist_bench.errors import DataError
from mnist_bench.launch.search import results
from mnist_bench.launch.search.search import Reporter
from mnist_bench.launch.search.study import SEEDS, SharedStudy, ask
from mnist_bench.loggers.base import Pruned
from tests.support.train_command import COMMAND, REPOSITORY

LR = {"optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True)}


@pytest.fixture
def study(tmp_path):
    made = SharedStudy(tmp_path, begin=True)
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
        again = SharedStudy(tmp_path, begin=True)
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
study = SharedStudy(Path(sys.argv[1]), begin=True)
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
