"""Optuna's study in a journal that several processes write to, and who works on which trial."""

from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock
from optuna.distributions import BaseDistribution
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState, create_trial

from mnist_bench.analysis.find import JOURNAL
from mnist_bench.config.compose import as_given
from mnist_bench.errors import ConfigError, DataError
from mnist_bench.runs.folder import InUse, RunFolder

NAME = "search"
# Of the study: the settings that all trials share, the space, and how many seeds a trial has.
MADE_WITH = "made_with"
SEEDS = "--seeds"

optuna.logging.set_verbosity(optuna.logging.WARNING)


class JournalLock(JournalFileOpenLock):
    """The lock of a journal, which is free as soon as its owner dies.

    Whoever takes it finds the journal whole: Optuna would append to what a killed process has left
    of a line, and could not read either.
    """

    def __init__(self, journal: Path):
        super().__init__(str(journal))
        self.journal = journal
        self.file = FileLock(f"{journal}.lock")

    def acquire(self) -> bool:
        self.file.acquire()
        with self.journal.open("r+b") as file:
            content_end = file.seek(0, 2)
            if content_end and (file.seek(-1, 2), file.read(1))[1] != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        self.file.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class SharedStudy:
    """The folder of a search: its journal, and a folder for each trial.

    With `begin` the study is made if there is none; without, nothing is written, nor locked.

    Raises:
        ConfigError: there is no study to be read, yet.
        DataError: the journal is damaged.
    """

    def __init__(self, folder: Path, begin: bool = False):
        self.folder = folder
        journal = folder / JOURNAL
        self.lock = JournalLock(journal)
        self.kept = ExitStack()  # the folder of the trial that this process works on
        try:
            backend = JournalFileBackend(str(journal), lock_obj=self.lock)
            storage = optuna.storages.JournalStorage(backend)
            with self.lock if begin else nullcontext():
                known = NAME in optuna.get_all_study_names(storage)
                if not (known or begin):
                    raise ConfigError(f"The search {folder.name} has not begun yet.")
                make = optuna.load_study if known else optuna.create_study
                self.study = make(study_name=NAME, storage=storage, pruner=PRUNER)
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            raise DataError(
                f"{journal} is damaged ({type(error).__name__}: {error}): move {folder} away, and "
                f"search anew."
            ) from error

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def folder_of(self, number: int) -> Path:
        return self.folder / f"trial-{number:03}"

    def runs_of(self, number: int) -> list[Path]:
        """Return the folders of a trial's runs: its own, or with several seeds one for each."""
        made, folder = self.study.user_attrs.get(MADE_WITH, {SEEDS: 1}), self.folder_of(number)
        if made[SEEDS] == 1:
            return [folder]
        return [folder / f"seed={made['seed'] + i}" for i in range(made[SEEDS])]

    def refuse_another(self, made: dict[str, Any]) -> None:
        """Take down what the search is made with, or refuse what differs from that.

        Raises:
            ConfigError: names what differs.
        """
        with self.lock:
            if (then := self.study.user_attrs.get(MADE_WITH)) is None:
                self.study.set_user_attr(MADE_WITH, made)
                return
        keys = [k for k in sorted(then.keys() | made.keys()) if then.get(k) != made.get(k)]
        if keys:
            before, now = (
                ", ".join(f"{k}={as_given(d.get(k))}" for k in keys) for d in (then, made)
            )
            raise ConfigError(
                f"The search {self.folder.name} was made with {before}, and this has {now}: give "
                f"it another name, or what it was made with."
            )

    def claim(self, total: int, space: dict[str, BaseDistribution], seed: int) -> int | None:
        """Return the number of a trial that is this process's alone; None if there is none left.

        One that a dead process has begun comes first, then a new one, up to `total` trials.
        """
        with self.lock:
            trials = self.trials
            for trial in trials:
                if trial.state is TrialState.RUNNING and self._take(trial.number):
                    return trial.number
            number = len(trials)
            if number >= total:
                return None
            self.study.add_trial(ask(trials, space, seed))  # one line, whole or not at all
            return number if self._take(number) else None

    def _take(self, number: int) -> bool:
        folder = RunFolder(self.folder_of(number))
        folder.path.mkdir(exist_ok=True)
        try:
            self.kept.enter_context(folder.owned())
        except InUse:
            return False
        return True

    def attach(self, number: int) -> optuna.Trial:
        """Return a trial that is running, to report to."""
        return optuna.Trial(self.study, self.trials[number]._trial_id)

    def others_run(self) -> bool:
        """Return whether a trial is running, or was when its process died."""
        return any(trial.state is TrialState.RUNNING for trial in self.trials)


# A trial is compared with others after as many epochs, which asks for nothing to be set, as the
# budgets of Hyperband would; in two epochs a low learning rate has had no time to show.
PRUNER = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)


def ask(trials: list[FrozenTrial], space: dict[str, BaseDistribution], seed: int) -> FrozenTrial:
    """Return the next trial of a search, running.

    Its values depend on `seed`, its number and the trials before it alone, so that a search that
    was killed and goes on is the same as one that was not.
    """
    number = len(trials)
    drawn = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    sampler = optuna.samplers.TPESampler(seed=drawn, multivariate=True, constant_liar=True)
    study = optuna.create_study(sampler=sampler)
    study.add_trials(trials)
    asked = study.ask(space)
    return create_trial(
        state=TrialState.RUNNING, params=asked.params, distributions=asked.distributions
    )
