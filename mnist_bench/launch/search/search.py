"""A search from its command line to its table: trials are asked for, trained and told."""

import os
import shlex
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext
from omegaconf import DictConfig
from optuna.trial import TrialState

from mnist_bench.analysis.find import JOURNAL
from mnist_bench.config.compose import quoted
from mnist_bench.config.identity import computed
from mnist_bench.config.parts import config_dirs
from mnist_bench.config.read import to_config
from mnist_bench.config.schema import TrainConfig, Validation
from mnist_bench.config.walk import flatten
from mnist_bench.errors import BenchError, ConfigError, FileError
from mnist_bench.launch.edge import as_sentence
from mnist_bench.launch.jobs import is_in_turn, lay_jobs_in
from mnist_bench.launch.search.results import tell_results, values_of
from mnist_bench.launch.search.space import as_overrides, find_space, read_space
from mnist_bench.launch.search.study import SEEDS, SharedStudy
from mnist_bench.launch.sweeps.compose import find_launcher
from mnist_bench.launch.sweeps.plan import Job, compose_job, parse
from mnist_bench.loggers.base import Logger, Pruned, RunInfo
from mnist_bench.loggers.console import info, print_error
from mnist_bench.runs import session
from mnist_bench.runs.folder import InUse, make_folder
from mnist_bench.runs.prepare import prepare
from mnist_bench.runs.standing import read_summary
from mnist_bench.training.interrupt import Stopped
from mnist_bench.training.loop import EpochRecord

# How often trials are looked at that other processes work on, in seconds.
POLL_SECONDS = 2.0


def carry_out(config: DictConfig, context: HydraContext, lines: Sequence[str]) -> None:
    """Train trials until there are as many as `config` asks for, and say how they went.

    `lines` are the overrides that all share.

    Raises:
        BenchError: the search cannot be as it is asked for; nothing has been trained.
        SystemExit: all trials failed, or the search was interrupted.
    """
    if not is_in_turn(config.hydra.launcher):
        raise ConfigError(
            "A search trains in its own process: leave out hydra/launcher, and give the same "
            "command several times to share it."
        )
    search = Search(config, context, lines)
    search.begin()
    try:
        search.run_all()
    except (KeyboardInterrupt, SystemExit, BenchError, OSError) as end:
        if isinstance(end, OSError) and end.filename is None:  # of what Optuna writes
            end.filename = str(search.path / JOURNAL)
        with suppress(OSError):  # the first one is told
            search.tell_the_end()
        raise
    if not search.tell_the_end():
        sys.exit("All trials of this search failed: see the sentences above, and trials.csv.")


class Search:
    """Trials on their way through Hydra's launcher, in the folder of a search."""

    def __init__(self, config: DictConfig, context: HydraContext, lines: Sequence[str]):
        self.config, self.lines, own = config, tuple(lines), config.hydra.sweeper
        self.total, self.seeds = own.trials, own.seeds
        self.space = read_space(find_space(own.space))
        self.path = Path(config.hydra.sweep.dir).absolute()
        self.launcher = find_launcher(context, self._train, config)
        self.watching: list[Logger] = []  # of the run that trains

    def begin(self) -> None:
        """Refuse what cannot be, and open the study.

        Raises:
            BenchError: says what, and why.
        """
        for override in parse(self.lines):
            key = str(override.get_key_element()).lstrip("+~")
            if override.is_sweep_override():
                raise ConfigError(
                    f"{override.input_line} are several values: put them into the space, or give "
                    f"one."
                )
            if key in self.space.distributions:
                raise ConfigError(f"{key} is given twice, by {override.input_line} and the space.")
        first = self._compose(self.space.first())
        if not (self.path / JOURNAL).exists():
            for values in self.space.ends():
                prepare(self._compose(values), info)
        make_folder(self.path, "outputs/searches")
        self.study = SharedStudy(self.path, begin=True)
        self.seed = first.seed
        made = computed(flatten(first)) | self.space.written | {SEEDS: self.seeds}
        self.study.refuse_another(made)
        lay_jobs_in(self.path, self.config)

    def _compose(self, values: dict[str, Any]) -> TrainConfig:
        job = Job(tuple(as_overrides(values)), self.lines, {})
        name, hydra_lines = self.config.hydra.job.config_name, self.config.hydra.overrides.hydra
        config = compose_job(name, job, list(hydra_lines))
        if config.data.validation is Validation.test:
            raise ConfigError(
                "A search would choose by the test set with data.validation=test, which an "
                "experiment may set: give data.validation=holdout data.holdout_size=5000."
            )
        return config

    def run_all(self) -> None:
        """Train trials until all are over; what other processes work on is waited for."""
        while True:
            number = self.study.claim(self.total, self.space.distributions, self.seed)
            if number is not None:
                with self.study.kept.pop_all():
                    self.run(number)
            elif self.study.others_run():
                time.sleep(POLL_SECONDS)
            else:
                return

    def run(self, number: int) -> None:
        """Train a trial, and tell the study how it went; one that was begun goes on."""
        trial = self.study.attach(number)
        folder = self.study.folder_of(number)
        told = f"\n{folder.name} ({number + 1} of {self.total}): {values_of(trial.params)}"
        info(told, style="bold")
        losses: list[float] = []
        try:
            for run in self.study.runs_of(number):
                self.watching = [Reporter(trial)] * (not losses)
                losses.append(self._launch(run, number, trial.params))
                if self.seeds > 1 and len(losses) == 1 and trial.should_prune():
                    info("Pruned after its first seed: its validation loss is above the median.")
                    raise Pruned
        except Pruned:
            self.study.study.tell(number, state=TrialState.PRUNED)
        except Stopped:
            runs = [read_summary(run) for run in self.study.runs_of(number)]
            if all(run.get("status") == "completed" for run in runs):  # the signal came behind them
                loss = statistics.fmean(run["val_loss"] for run in runs)
                self.study.study.tell(number, loss)
            raise
        except (InUse, FileError, OSError):
            raise  # not the trial's fault: it goes on when the same command is given again
        except Exception as error:
            sentence = as_sentence(error) or f"{type(error).__name__}: {error}"
            print_error(f"{folder.name} failed: {sentence}")
            trial.set_user_attr("error", sentence)
            self.study.study.tell(number, state=TrialState.FAIL)
        else:
            self.study.study.tell(number, statistics.fmean(losses))

    def _launch(self, run: Path, number: int, values: dict[str, Any]) -> float:
        subdir = f"hydra.sweep.subdir={quoted(str(run.relative_to(self.path)))}"
        seed = [run.name] * (self.seeds > 1)
        overrides = [*self.lines, *as_overrides(values), *seed, subdir]
        (job,) = self.launcher.launch([overrides], initial_job_idx=number)
        if isinstance(job.return_value, Exception):
            raise job.return_value
        return float(job.return_value)

    def _train(self, composed: DictConfig) -> float | Exception:
        """Return the validation loss of a run, or what went wrong; raised, Hydra would tell it."""
        try:
            runtime = HydraConfig.get().runtime
            config = to_config(composed, runtime.choices)
            folder = Path(runtime.output_dir)
            return session.do_what_is_missing(config, folder, *self.watching, composed=composed)
        except Exception as error:
            return error

    def tell_the_end(self) -> bool:
        """Show and write what has come out; return whether a trial did not fail."""
        tell_results(self.study, self.config)
        states = [trial.state for trial in self.study.trials]
        left = self.total - sum(state.is_finished() for state in states)
        if left > 0:
            info(f"{left} of {self.total} trials are left. To go on: {self.command()}")
        return any(state is not TrialState.FAIL for state in states)

    def command(self) -> str:
        """Return the command line that does what is missing."""
        name = os.path.relpath(self.path, Path("outputs", "searches"))
        own = ["--space", self.config.hydra.sweeper.space, "--trials", str(self.total)]
        own += ["--seeds", str(self.seeds)] * (self.seeds > 1)
        for path in config_dirs(self.config.hydra.runtime):
            own += ["--config-dir", path]
        return shlex.join(["mnist-bench", "search", name, *self.lines, *own])


class Reporter(Logger):
    """Reports each epoch of a run to the study, and ends the run where others did better."""

    def __init__(self, trial: optuna.Trial):
        self.trial = trial
        self.known = set(trial.study.trials[trial.number].intermediate_values)

    def start(self, run: RunInfo) -> None:
        self.epochs = run.settings["trainer.epochs"]
        for record in run.history:
            self._report(record)
        if run.history:
            self._prune(run.history[-1])

    def epoch(self, record: EpochRecord) -> None:
        self._report(record)
        self._prune(record)

    def _report(self, record: EpochRecord) -> None:
        if record["epoch"] not in self.known:
            self.trial.report(record["val_loss"], record["epoch"])
            self.known.add(record["epoch"])

    def _prune(self, record: EpochRecord) -> None:
        """Raise Pruned if the study says so, of the last epoch reported.

        An epoch that is trained again after a kill has been decided on already.
        """
        epoch = record["epoch"]
        if epoch == max(self.known) and epoch < self.epochs and self.trial.should_prune():
            raise Pruned(
                f"Pruned after epoch {epoch} of {self.epochs}: its validation loss, "
                f"{record['val_loss']:.4f}, is above the median of other trials."
            )
