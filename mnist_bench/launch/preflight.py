"""What happens before Hydra makes a folder: refuse what cannot run, and find the run's folder."""

import atexit
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write

from mnist_bench.analysis.sweeps import SweepFolder
from mnist_bench.config.compose import CONF
from mnist_bench.config.identity import Role, changeable, computed, digest, role
from mnist_bench.config.parts import TARGET, beside, config_dirs, refuse_unknown_source, search_in
from mnist_bench.config.read import load_config, own_parts, saved_choices, to_config
from mnist_bench.config.schema import TrainConfig
from mnist_bench.config.walk import flatten
from mnist_bench.errors import ConfigError, leave
from mnist_bench.launch.arguments import release
from mnist_bench.launch.edge import as_sentence
from mnist_bench.launch.jobs import lay_jobs_in
from mnist_bench.launch.sweeps.plan import (
    known_to_hydra,
    parse,
    refuse_imported_from,
    refuse_twice,
    without_hydra,
)
from mnist_bench.runs.folder import RunFolder, atomic_write, claim_folder, make_folder

RUN_DIR = "hydra.run.dir"
# The value of `resume` for the run that the same command began.
AUTO = "auto"
# Settings that a single run has no use for.
SWEEPS = re.compile(r"\+*sweep\.")


class Preflight(Callback):
    """Hydra calls this before a run or a sweep leaves anything on disk."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with _refusing():
            if config.resume is None:
                _try_checked(_read_new(config))
                config.hydra.run.dir = str(claim_folder(Path(config.hydra.run.dir), RUN_DIR))
            elif config.resume == AUTO:
                _begin_or_go_on(config)
            else:
                _refuse_sweep_settings(
                    config, "a run that goes on has no use for it, leave it out."
                )
                _adopt_run(config)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Have own modules found by the processes of a launcher, too."""
        _find_own_modules(config, saved=config.resume is not None)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with _refusing():
            if config.resume == AUTO:
                raise ConfigError(
                    "resume=auto goes on with one run: with -m give sweep.name=NAME in its place, "
                    "and the same command goes on."
                )
            lines: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
            with read_write(config):
                config.hydra.overrides.task = release(lines)
            _find_own_modules(config, saved=False)
            if _is_ours(config):
                return
            _refuse_sweep_settings(config, "leave it out, or hydra/sweeper.")
            if _is_ours(config, "MnistBenchSearch"):
                return
            _name_runs_by_what_varies(config)
            lay_jobs_in(claim_folder(Path(config.hydra.sweep.dir), "hydra.sweep.dir"), config)


@contextmanager
def _refusing() -> Iterator[None]:
    """End the process with one sentence; Hydra turns exceptions of callbacks into warnings."""
    try:
        yield
    except Exception as error:
        if (told := as_sentence(error)) is not None:
            leave(told)
        traceback.print_exc()
        sys.exit(1)


def _read_new(config: DictConfig) -> TrainConfig:
    """Return the configuration of a run that begins, and have a user's own modules found."""
    refuse_imported_from(config)
    _refuse_sweep_settings(config, "give -m, and what is to vary.")
    _find_own_modules(config, saved=False)
    with known_to_hydra(config):
        return to_config(without_hydra(config), config.hydra.runtime.choices)


def _try_checked(checked: TrainConfig) -> None:
    """Raise ConfigError or DataError if a run of this configuration could not begin."""
    # Imported late: PyTorch takes seconds, and a value out of range needs none of it.
    from mnist_bench.loggers.console import info
    from mnist_bench.runs.prepare import prepare

    prepare(checked, info)


def _refuse_sweep_settings(config: DictConfig, remedy: str) -> None:
    """Refuse what would do nothing without our sweeper."""
    lines: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    if given := [line for line in lines if SWEEPS.match(line)]:
        raise ConfigError(f"{given[0]} is for a sweep of mnist-bench: {remedy}")


def _find_own_modules(config: DictConfig, saved: bool) -> list[Path]:
    """Have a user's own modules found; return the folders that the command line vouches for.

    They are in or beside the folder of --config-dir, and for a new run in the working directory:
    the configuration of a saved one is from whoever made it, and may not name what lies about.
    """
    given = config_dirs(config.hydra.runtime)
    for path in given:
        _refuse_hidden(Path(path))
    vouched = [folder for path in given for folder in beside(path)]
    search_in([*vouched, *([] if saved else [Path.cwd()])])
    return vouched


def _refuse_hidden(config_dir: Path) -> None:
    """Refuse a folder of --config-dir with a file that Hydra would never read, as ours is first."""
    for file in sorted(config_dir.rglob("*.yaml")):
        ours = CONF / file.relative_to(config_dir)
        if ours.is_file() and not ours.samefile(file):
            raise ConfigError(
                f"{file} has the name of a file of mnist-bench, which would be read in its place: "
                f"give it another name."
            )


# --- Resuming ---------------------------------------------------------------------------------


def _begin_or_go_on(config: DictConfig) -> None:
    """Make `config` that of a run that goes on, if this command has begun one, or of a new one."""
    from mnist_bench.launch.resume import newest_unfinished, refuse_another
    from mnist_bench.loggers.console import info
    from mnist_bench.runs.records import read_summary
    from mnist_bench.runs.run import describe_test

    config.resume = None
    checked, path = _read_new(config), Path(config.hydra.run.dir)
    if not _given_folder(config):
        found = newest_unfinished(path.parent, checked, KEPT)
        _try_checked(checked)
        folder = found or RunFolder(claim_folder(path, RUN_DIR))
    else:
        if not path.is_dir():
            _try_checked(checked)  # before anything is written
        folder = RunFolder(make_folder(path, RUN_DIR))
        KEPT.enter_context(folder.owned())
        refuse_another(folder, checked)
        summary = read_summary(folder.path)
        if summary.get("status") == "completed":
            shown = os.path.relpath(folder.path)
            info(f"{shown} holds this run, completed: test accuracy {describe_test(summary)}.")
            sys.exit(0)
        _try_checked(checked)
    config.hydra.run.dir = str(folder)
    if folder.can_go_on:
        info(f"resume=auto goes on with {os.path.relpath(folder.path)}")
        _write_if_changed(config, checked, folder)
        config.resume = str(folder)
    elif folder.config.is_file():
        folder.clear()


def _given_folder(config: DictConfig) -> str | None:
    """Return the override that names the folder of a run, if there is one."""
    lines = config.hydra.overrides.hydra
    return next((line for line in lines if line.startswith(f"{RUN_DIR}=")), None)


def _write_if_changed(config: DictConfig, checked: TrainConfig, folder: RunFolder) -> None:
    """Bring a run's saved configuration up to date where it says what computes nothing."""
    saved = to_config(load_config(folder.config), saved_choices(folder.path))
    if flatten(replace(saved, resume=None)) != flatten(checked):
        with atomic_write(folder.config) as file:
            OmegaConf.save(without_hydra(config), file)


def _adopt_run(config: DictConfig) -> None:
    """Make `config` that of the run in `resume`, and Hydra's folder that run's folder."""
    from mnist_bench.runs.checkpoint import epochs_begun, read_last, refuse_another_configuration
    from mnist_bench.runs.records import read_command

    folder = RunFolder(config.resume)
    if seed := next(folder.path.glob(f"seed=*/{folder.last.relative_to(folder.path)}"), None):
        raise ConfigError(
            f"resume={folder} holds the runs of several seeds: give one of them, such as "
            f"'resume=\"{seed.parents[1]}\"', in both kinds of quotes."
        )
    files = folder.config, folder.hydra
    if not folder.path.is_dir():
        raise ConfigError(f"resume={folder} is not there: name the folder of a run.")
    is_cut_off = all(file.is_file() for file in files) and not folder.summary.is_file()
    if is_cut_off and not folder.can_go_on:
        raise ConfigError(
            f"resume={folder} cannot go on: nothing of it was saved before it ended, as that is "
            f"done after an epoch. Give its first command again."
        )
    if not (folder.can_go_on and all(file.is_file() for file in files)):
        raise ConfigError(
            f"resume={folder} is not a run that can be resumed: it has no "
            f"{folder.last.relative_to(folder.path)} with a "
            f"{folder.config.relative_to(folder.path)} beside it."
        )
    if moved := _given_folder(config):
        raise ConfigError(
            f"{moved} does not go with resume={folder}: a run goes on in its own folder. Leave "
            f"it out, or copy the folder first."
        )
    KEPT.enter_context(folder.owned())
    changes = [
        change
        for change in parse(config.hydra.overrides.task)
        if change.get_key_element() != "resume"
    ]
    vouched = _find_own_modules(config, saved=True)
    saved = load_config(folder.config)
    own_data = TARGET in saved.data
    for change in changes:
        if role(change.get_key_element(), own_data) is Role.identity:
            raise ConfigError(
                f"{change.input_line} cannot be changed while resuming a run: only "
                f"{', '.join(changeable())} can."
            )
    _apply(changes, saved)
    if any(map(_is_of_the_logger, changes)):
        saved.logger = config.logger
    checked = to_config(saved, saved_choices(folder.path))
    for part in own_parts(checked):
        refuse_unknown_source(part, vouched)
    _try_checked(checked)
    read_command(folder)
    last = read_last(folder, lambda line: None)
    refuse_another_configuration(last, folder.last, checked, folder)
    begun = epochs_begun(last)
    if saved.trainer.epochs < begun:
        raise ConfigError(
            f"trainer.epochs={saved.trainer.epochs} is less than {folder} has begun: give "
            f"{begun} or more."
        )
    _refuse_to_leave_its_sweep(folder, checked)
    if changes:
        _write_changes(changes, folder.config, saved.logger)
    saved.resume = str(folder)
    for group in saved:
        config[group] = saved[group]
    config.hydra.run.dir = str(folder)
    # The folder's own .hydra, with the choices and overrides of its first start, stays.
    config.hydra.output_subdir = None


def _refuse_to_leave_its_sweep(folder: RunFolder, checked: TrainConfig) -> None:
    """Refuse to make a run another one than its sweep has asked for, which would miss it."""
    sweep = SweepFolder(folder.path.resolve().parent)
    names, name = sweep.names(), folder.path.resolve().name
    if name in names.values() and names.get(digest(computed(flatten(checked)))) != name:
        raise ConfigError(
            f"resume={folder} with other settings would be missing in the sweep "
            f"{sweep.path.name}: copy the folder to another place, and resume it there."
        )


# What this process has taken and keeps until it ends.
KEPT = ExitStack()
atexit.register(KEPT.close)


def _apply(changes: Sequence[Override], saved: DictConfig) -> None:
    for change in changes:
        if _is_of_the_logger(change):  # chosen anew as a whole
            continue
        OmegaConf.update(saved, change.get_key_element(), change.value())


def _is_of_the_logger(change: Override) -> bool:
    return change.get_key_element().partition(".")[0] == "logger"


def _write_changes(changes: Sequence[Override], path: Path, logger: DictConfig) -> None:
    saved = load_config(path)
    _apply(changes, saved)
    saved.logger = logger
    with atomic_write(path) as file:
        OmegaConf.save(saved, file)


# --- Sweeps of other sweepers -----------------------------------------------------------------


def _is_ours(config: DictConfig, name: str = "MnistBenchSweeper") -> bool:
    """Others choose their values as they go; their runs are checked as they start."""
    return str(config.hydra.sweeper._target_).endswith(f".{name}")


def _name_runs_by_what_varies(config: DictConfig) -> None:
    """Leave what all runs of a sweep share out of the names of their folders."""
    overrides = parse(config.hydra.overrides.task)
    refuse_twice(overrides)
    shared = [o.get_key_element() for o in overrides if not o.is_sweep_override()]
    if len(shared) < len(overrides):
        with read_write(config):
            config.hydra.overrides.hydra.append(
                f"hydra.job.config.override_dirname.exclude_keys=[{','.join(shared)}]"
            )
