"""A sweep from its command line to its table: what is missing is trained, what is there is read."""

import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from mnist_bench.config.compose import quoted
from mnist_bench.config.help import begin_command
from mnist_bench.config.parts import config_dirs
from mnist_bench.errors import BenchError, TrainingError
from mnist_bench.launch.jobs import is_in_turn, lay_jobs_in, others_save_first
from mnist_bench.launch.sweeps.plan import Job, compose_job, groups_of, plan
from mnist_bench.launch.sweeps.record import SweepRecord
from mnist_bench.launch.sweeps.results import forecast, results_table, tell_best, write_csv
from mnist_bench.loggers.console import Screen, info, print_error
from mnist_bench.runs.figures import hand_over_again
from mnist_bench.runs.folder import (
    RunFolder,
    claim_folder,
    make_folder,
    refuse_folder_that_cannot_be,
)
from mnist_bench.runs.prepare import prepare
from mnist_bench.runs.standing import Standing, State, standing
from mnist_bench.training.interrupt import OUT_OF_TIME

# How often a run is looked at that another process works on, in seconds.
POLL_SECONDS = 2.0


def carry_out(config: DictConfig, launcher: Launcher, lines: Sequence[str]) -> dict[str, Any]:
    """Train what is missing of a sweep; return the validation loss of every run by its name.

    Raises:
        BenchError: the sweep cannot be as it is asked for; nothing has been trained.
        SystemExit: a run failed or ran out of time, after the others, or the sweep was interrupted.
    """
    hydra_lines = list(config.hydra.overrides.hydra)
    config_name = config.hydra.job.config_name
    planned = plan(config_name, lines, hydra_lines)
    folder = Path(config.hydra.sweep.dir)
    known = {}
    if config.sweep.name:
        record = SweepRecord(folder.absolute())
        record.refuse_another(planned)
        known = record.names()
    new = [job for job in planned.jobs if job.digest not in known]
    refuse_what_cannot_run(config_name, hydra_lines, new)
    if config.sweep.dry_run:
        refuse_folder_that_cannot_be(folder, "hydra.sweep.dir")
        found = [
            standing(folder / known.get(job.digest, job.name()), job.digest) for job in planned.jobs
        ]
        title = f"{folder}: a dry run, which trains nothing"
        show(results_table(title, found, most_waiting=len(found)))
        info(forecast(found))
        return {}
    make = make_folder if config.sweep.name else claim_folder
    sweep = Sweep(SweepRecord(make(folder, "hydra.sweep.dir")), launcher, planned.jobs, config)
    sweep.names = sweep.record.extend(planned, sweep.command())
    try:
        sweep.run_all()
    except (KeyboardInterrupt, SystemExit, BenchError, OSError):
        with suppress(OSError):  # the first one is told
            sweep.tell_the_end()
        raise
    failed = sweep.tell_the_end()
    sweep.draw_missing_figures()
    if failed:
        sys.exit(1)
    standings = sweep.standings
    if any(s.state is State.interrupted for s in standings.values()):
        sys.exit(OUT_OF_TIME)
    return {name: s.summary.get("val_loss") for name, s in standings.items()}


def refuse_what_cannot_run(config_name: str, hydra_lines: list[str], jobs: Sequence[Job]) -> None:
    """Refuse a sweep one of whose runs could not begin; seeds make no difference to that.

    Raises:
        BenchError: says why.
    """
    for job in groups_of(jobs):
        prepare(compose_job(config_name, job, hydra_lines), info)


def show(table: Table) -> None:
    Screen().console.print(table)


class Sweep:
    """The runs of a command line, in their folder, on their way through a launcher."""

    def __init__(
        self, record: SweepRecord, launcher: Launcher, jobs: Sequence[Job], config: DictConfig
    ):
        self.record, self.launcher, self.jobs, self.config = record, launcher, jobs, config
        self.names: dict[str, str] = {}  # of folders, by digest
        self.place = {job.digest: number for number, job in enumerate(jobs)}
        self.completed: dict[str, Standing] = {}  # by digest: what they are they stay
        self.attempted: set[str] = set()
        self.failed: set[str] = set()  # of those, also where no summary could tell
        self.suspects: set[str] = set()  # by digest: they were under way when a launcher died

    @property
    def standings(self) -> dict[str, Standing]:
        """How each of this command's runs stands, by its name, in order."""
        return {self.names[job.digest]: self._standing(job.digest) for job in self.jobs}

    def run_all(self) -> None:
        """Launch what is missing, until nothing is; what other processes work on is waited for."""
        lay_jobs_in(self.record.path, self.config)
        while missing := self._missing():
            free = [job for job in missing if self._state(job) is not State.running]
            for batch in self._batches(free):
                self._launch(batch)
                if self.config.sweep.fail_fast and self.failed:
                    return
            if not free:
                time.sleep(POLL_SECONDS)

    def _missing(self) -> list[Job]:
        return [
            job
            for job in self.jobs
            if self._state(job) is not State.completed
            and self.names[job.digest] not in self.attempted
        ]

    def _batches(self, jobs: list[Job]) -> list[list[Job]]:
        """One after the other where they are launched so, as others may take some meanwhile.

        Side by side go all but those of which one has ended a launcher: alone, it is known which.
        """
        in_turn = is_in_turn(self.config.hydra.launcher)
        alone = [job for job in jobs if in_turn or job.digest in self.suspects]
        beside = [job for job in jobs if job not in alone]
        return [*([beside] if beside else []), *([job] for job in alone)]

    def _launch(self, jobs: Sequence[Job]) -> None:
        over = (State.running, State.completed)
        jobs = [job for job in jobs if self._state(job) not in over]
        jobs = [job for job in jobs if not self._is_damaged(job)]
        if not jobs:
            return
        overrides = []
        for job in jobs:
            self._announce(job)
            name = quoted(self.names[job.digest])
            overrides.append([*job.overrides, f"hydra.sweep.subdir={name}"])
        before = [self._standing(job.digest).summary for job in jobs]
        in_turn = is_in_turn(self.config.hydra.launcher)
        waiting = nullcontext() if in_turn else others_save_first([*map(self._folder, jobs)])
        try:
            with waiting:
                results: Sequence[JobReturn] = self.launcher.launch(
                    overrides, initial_job_idx=self.place[jobs[0].digest]
                )
        except (BenchError, HydraException):
            raise
        except Exception as error:  # of the launcher itself, such as a process of its that died
            self._go_on_after(error, jobs, before)
            return
        for job, result in zip(jobs, results, strict=True):
            failed = result.status is JobStatus.FAILED
            if failed or self._state(job) is not State.running:
                self._end_attempt(job, failed)

    def _end_attempt(self, job: Job, failed: bool) -> None:
        self.attempted.add(self.names[job.digest])
        if failed:
            self.failed.add(self.names[job.digest])

    def _go_on_after(
        self, error: Exception, jobs: Sequence[Job], before: Sequence[Mapping[str, Any]]
    ) -> None:
        """Sort the runs of a launcher that died: those that ended, those that may have ended it.

        One process that is killed ends all those beside it. `before` are the summaries that the
        runs had when they were launched.

        Raises:
            TrainingError: it has begun with none.
        """
        launcher = f"hydra/launcher={self.config.hydra.runtime.choices['hydra/launcher']}"
        kind, said = type(error).__name__, str(error).partition("\n")[0]
        left = []
        for job, then in zip(jobs, before, strict=True):
            now = self._standing(job.digest)
            if now.summary and now.summary != then:
                self._end_attempt(job, failed=now.state is State.failed)
            else:
                left.append(job)
        if left and left[0].digest in self.suspects:  # which was launched alone
            self._end_attempt(left[0], failed=True)
            print_error(
                f"{self.names[left[0].digest]} failed: its process died again, alone ({kind}); if "
                f"it was killed for its memory, lower trainer.batch_size or data.limit."
            )
            return
        begun = [job for job in left if self._folder(job).owner.exists()]
        if len(left) == len(jobs) and not begun:
            raise TrainingError(f"{launcher} failed ({kind}: {said}): no run has begun.") from error
        self.suspects.update(job.digest for job in begun)
        again = ", ".join(self.names[job.digest] for job in begun) or "none"
        print_error(
            f"A process of {launcher} died ({kind}), which ended those beside it. The others go "
            f"on; tried once more, each alone: {again}."
        )

    def _folder(self, job: Job) -> RunFolder:
        return RunFolder(self.record.path / self.names[job.digest])

    def _is_damaged(self, job: Job) -> bool:
        """Return whether a run's folder cannot be used, and say why if it cannot."""
        name, damage = self.names[job.digest], self._standing(job.digest).damage
        if damage:
            print_error(f"{name} failed: {damage}")
            self._end_attempt(job, failed=True)
        return bool(damage)

    def _announce(self, job: Job) -> None:
        goes_on = ", goes on" * (self._state(job) is State.interrupted)
        number = f"run {self.place[job.digest] + 1} of {len(self.jobs)}{goes_on}"
        info(f"\n{number}: {' '.join(job.varied)}", style="bold")

    def _state(self, job: Job) -> State:
        return self._standing(job.digest).state

    def _standing(self, digest: str) -> Standing:
        if digest in self.completed:
            return self.completed[digest]
        found = standing(self.record.path / self.names[digest], digest)
        if found.state is State.completed:
            self.completed[digest] = found
        return found

    def tell_the_end(self) -> bool:
        """Show and write the table of all runs; return whether one of this command's failed."""
        self.names = self.record.names()  # others may have extended it
        everything = [
            replace(found, state=State.failed) if found.name in self.failed else found
            for found in map(self._standing, self.names)
        ]
        show(results_table(os.path.relpath(self.record.path), everything, self.record.varied()))
        for found in everything:
            if found.damage and found.name not in self.failed:  # else it is told already
                print_error(found.damage)
        own = {self.names[job.digest] for job in self.jobs}
        states = [found.state for found in everything if found.name in own]
        self._keep_what_is_wished()
        completed, failed = states.count(State.completed), states.count(State.failed)
        tell_best(self.record, everything)
        if sum(found.state is State.completed for found in everything) > 1:
            info(f"what that allows to conclude: mnist-bench report {self._shortest()}")
        if completed < len(states):
            left = len(states) - completed - failed
            told = [f"{completed} of {len(states)} runs are completed"]
            are = "is" if left == 1 else "are"
            told += [f"{failed} failed"] * (failed > 0) + [f"{left} {are} left"] * (left > 0)
            info(f"{', '.join(told)}. To go on: {self.command()}")
        write_csv(self.record.path / "sweep.csv", self.record.varied(), everything)
        return failed > 0

    def draw_missing_figures(self) -> None:
        """Draw those of runs that earlier commands have completed, and were stopped before that."""
        if not self.config.trainer.figures:
            return
        without = [
            folder
            for job in self.jobs
            if self.names[job.digest] not in self.attempted
            and self._state(job) is State.completed
            and not (folder := self._folder(job)).figures.is_dir()
            and (folder.best.is_file() or folder.can_go_on)  # else there are no weights to draw
        ]
        own = next(iter(config_dirs(self.config.hydra.runtime)), None)
        try:
            for folder in without:
                hand_over_again(folder.path, Path(own) if own else None)
        except (BenchError, OSError) as error:
            command = f"mnist-bench figures {self._shortest()}"
            info(f"Figures of earlier runs are missing ({error}). To draw them: {command}")

    def _shortest(self) -> str:
        """Return the sweep as it is shortest to type: by its name, where that leads to it."""
        path = self.record.path
        named = path.parent == Path("outputs", "sweeps").absolute()
        return shlex.quote(path.name if named else os.path.relpath(path))

    def _keep_what_is_wished(self) -> None:
        """Remove checkpoints of runs that were completed by earlier commands, too."""
        for job in self.jobs:
            if self._state(job) is State.completed:
                self._folder(job).keep(self.config.sweep.keep)

    def command(self) -> str:
        """Return the command line that does what is missing."""
        begin = begin_command(config_dirs(self.config.hydra.runtime))
        # As they were given, `${...}` included.
        overrides: Any = OmegaConf.to_container(self.config.hydra.overrides, resolve=False)
        own = ("hydra.mode=", "hydra.sweep.dir=", "sweep.name=")
        given = (*overrides["task"], *overrides["hydra"])
        lines = [line for line in given if not line.lstrip("+").startswith(own)]
        lines.append(f"sweep.name={self.record.path.name}")
        if self.record.path.parent != Path("outputs", "sweeps").absolute():
            lines.append(f"hydra.sweep.dir={os.path.relpath(self.record.path)}")
        return " ".join([*begin, "-m", *map(shlex.quote, lines)])
