"""A sweep from its command line to its table: what is missing is trained, what is there is read."""

import os
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, read_write
from rich.table import Table

from mnist_bench.config.compose import quoted
from mnist_bench.config.help import begin_command
from mnist_bench.config.parts import config_dirs
from mnist_bench.errors import BenchError, TrainingError
from mnist_bench.launch.jobs import is_in_turn
from mnist_bench.launch.sweeps.plan import Job, compose_job, groups_of, plan
from mnist_bench.launch.sweeps.record import SweepRecord
from mnist_bench.launch.sweeps.results import forecast, results_table, tell_best, write_csv
from mnist_bench.loggers.console import Screen, info, print_error
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
        show(results_table(f"{folder}: a dry run, which trains nothing", found))
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

    @property
    def standings(self) -> dict[str, Standing]:
        """How each of this command's runs stands, by its name, in order."""
        return {self.names[job.digest]: self._standing(job.digest) for job in self.jobs}

    def run_all(self) -> None:
        """Launch what is missing, until nothing is; what other processes work on is waited for."""
        with read_write(self.config):
            hydra = self.config.hydra
            hydra.sweep.dir = str(self.record.path)
            # Each job is composed anew, from these.
            hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(hydra.sweep.dir)}")
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
        """One after the other where they are launched so, as others may take some meanwhile."""
        if is_in_turn(self.config.hydra.launcher):
            return [[job] for job in jobs]
        return [jobs] if jobs else []

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
        try:
            results: Sequence[JobReturn] = self.launcher.launch(
                overrides, initial_job_idx=self.place[jobs[0].digest]
            )
        except (BenchError, HydraException):
            raise
        except Exception as error:  # of the launcher itself, such as a process of its that died
            said = str(error).partition("\n")[0]
            raise TrainingError(
                f"hydra/launcher={self.config.hydra.runtime.choices['hydra/launcher']} failed "
                f"({type(error).__name__}: {said}); what its runs have saved is kept."
            ) from error
        for job, result in zip(jobs, results, strict=True):
            name = self.names[job.digest]
            if result.status is JobStatus.FAILED:
                self.failed.add(name)
            if self._state(job) is not State.running:
                self.attempted.add(name)

    def _is_damaged(self, job: Job) -> bool:
        """Return whether a run's folder cannot be used, and say why if it cannot."""
        name, damage = self.names[job.digest], self._standing(job.digest).damage
        if damage:
            print_error(f"{name} failed: {damage}")
            self.failed.add(name)
            self.attempted.add(name)
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
        everything = list(map(self._standing, self.names))
        show(results_table(os.path.relpath(self.record.path), everything, self.record.varied()))
        for found in everything:
            if found.damage and found.name not in self.failed:  # else it is told already
                print_error(found.damage)
        own = {self.names[job.digest] for job in self.jobs}
        states = [
            State.failed if found.name in self.failed else found.state
            for found in everything
            if found.name in own
        ]
        self._keep_what_is_wished()
        completed, failed = states.count(State.completed), states.count(State.failed)
        tell_best(self.record, everything)
        if completed < len(states):
            left = len(states) - completed - failed
            told = [f"{completed} of {len(states)} runs are completed"]
            told += [f"{failed} failed"] * (failed > 0) + [f"{left} are left"] * (left > 0)
            info(f"{', '.join(told)}. To go on: {self.command()}")
        write_csv(self.record.path / "sweep.csv", self.record.varied(), everything)
        return failed > 0

    def _keep_what_is_wished(self) -> None:
        """Remove checkpoints of runs that were completed by earlier commands, too."""
        for job in self.jobs:
            if self._state(job) is State.completed:
                run = RunFolder(self.record.path / self.names[job.digest])
                run.keep(self.config.sweep.keep)

    def command(self) -> str:
        """Return the command line that does what is missing."""
        begin = begin_command(config_dirs(self.config.hydra.runtime))
        # As they were given, `${...}` included.
        overrides: Any = OmegaConf.to_container(self.config.hydra.overrides, resolve=False)
        own = ("hydra.mode=", "hydra.sweep.dir=", "sweep.name=")
        lines = [o for o in (*overrides["task"], *overrides["hydra"]) if not o.startswith(own)]
        lines.append(f"sweep.name={self.record.path.name}")
        if self.record.path.parent != Path("outputs", "sweeps").absolute():
            lines.append(f"hydra.sweep.dir={os.path.relpath(self.record.path)}")
        return " ".join([*begin, "-m", *map(shlex.quote, lines)])
