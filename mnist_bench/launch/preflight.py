"""What happens before Hydra makes a folder: refuse what cannot run, and find the run's folder."""

import copy
import itertools
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mnist_bench.config.explain import explain
from mnist_bench.config.schema import load_config, to_config
from mnist_bench.errors import BenchError, ConfigError

CONFIG = Path(".hydra", "config.yaml")
# A resumed run keeps its configuration but for how long it trains, where, and how often it saves.
RESUMABLE_KEYS = ("trainer.epochs", "trainer.gpus", "trainer.refresh_seconds", "trainer.save_every")


class Preflight(Callback):
    """Hydra calls this before a run or a sweep leaves anything on disk."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with _refusing():
            if config.resume is None:
                _refuse_imported_from(config)
                _try(_without_hydra(config))
                _claim_run_folder(config)
            else:
                _adopt_run(config)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with _refusing():
            overrides = _parse_overrides(config.hydra.overrides.task)
            if _is_basic_sweep(config):
                jobs = [_compose(kwargs["config_name"], job) for job in _expand(overrides)]
                for job in jobs:
                    _try(job)
            _name_runs_by_what_varies(config, overrides)


@contextmanager
def _refusing() -> Iterator[None]:
    """End the process with one sentence; Hydra turns exceptions of callbacks into warnings."""
    try:
        yield
    except BenchError as error:
        sys.exit(str(error))
    except HydraException as error:
        sys.exit(explain(error))
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def _try(config: DictConfig) -> None:
    """Raise ConfigError or DataError if a run of this configuration could not begin."""
    checked = to_config(config)
    # Imported late: PyTorch takes seconds, and a value out of range needs none of it.
    from mnist_bench.loggers.console import say
    from mnist_bench.runs.prepare import prepare

    prepare(checked, say)


def _refuse_imported_from(config: DictConfig) -> None:
    if config.imported_from is not None:
        raise ConfigError("imported_from= is set by mnist-bench import-keras: use that.")


def _without_hydra(config: DictConfig) -> DictConfig:
    job_config = copy.deepcopy(config)
    with read_write(job_config), open_dict(job_config):
        del job_config["hydra"]
    return job_config


def _claim_run_folder(config: DictConfig) -> None:
    """Make the run's folder, numbered if there is one of its name (begun in the same second)."""
    path = Path(config.hydra.run.dir).absolute()
    for suffix in itertools.chain([""], (f"-{i}" for i in itertools.count(2))):
        folder = path.with_name(path.name + suffix)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigError(
                f"hydra.run.dir={folder} cannot be made: {error.strerror}."
            ) from error
        config.hydra.run.dir = str(folder)
        return


# --- Resuming ---------------------------------------------------------------------------------


def _adopt_run(config: DictConfig) -> None:
    """Make `config` that of the run in `resume`, and Hydra's folder that run's folder."""
    from mnist_bench.runs.checkpoint import LAST, epochs_begun

    folder = Path(config.resume)
    saved_path = folder / CONFIG
    saved = load_config(saved_path) if saved_path.is_file() else None
    if seed := next(folder.glob(f"seed=*/{LAST}"), None):
        raise ConfigError(
            f"resume={folder} holds the runs of several seeds: give one of them, such as "
            f"'resume=\"{seed.parents[1]}\"', in both kinds of quotes."
        )
    if saved is None or not (folder / LAST).is_file():
        raise ConfigError(
            f"resume={folder} is not a run that can be resumed: it has no {LAST} "
            f"with a {saved_path.relative_to(folder)} beside it."
        )
    changes = [
        change
        for change in _parse_overrides(config.hydra.overrides.task)
        if change.get_key_element() != "resume"
    ]
    for change in changes:
        if change.get_key_element() not in RESUMABLE_KEYS:
            raise ConfigError(
                f"{change.input_line} cannot be changed while resuming a run: "
                f"only {', '.join(RESUMABLE_KEYS)} can."
            )
    _apply(changes, saved)
    _try(saved)
    begun = epochs_begun(folder / LAST)
    if saved.trainer.epochs < begun:
        raise ConfigError(
            f"trainer.epochs={saved.trainer.epochs} is less than {folder} has begun: give "
            f"{begun} or more."
        )
    if changes:
        _write_changes(changes, saved_path)
    saved.resume = str(folder)
    for group in saved:
        config[group] = saved[group]
    config.hydra.run.dir = str(folder)
    # The folder's own .hydra, with the choices and overrides of its first start, stays.
    config.hydra.output_subdir = None


def _apply(changes: Sequence[Override], saved: DictConfig) -> None:
    for change in changes:
        OmegaConf.update(saved, change.get_key_element(), change.value())


def _write_changes(changes: Sequence[Override], path: Path) -> None:
    saved = load_config(path)
    _apply(changes, saved)
    beside = path.with_suffix(".partial")
    OmegaConf.save(saved, beside)
    beside.replace(path)


# --- Sweeps -----------------------------------------------------------------------------------


def _parse_overrides(lines: Sequence[str]) -> list[Override]:
    loader = GlobalHydra.instance().config_loader()
    overrides: list[Override] = OverridesParser.create(config_loader=loader).parse_overrides(
        list(lines)
    )
    return overrides


def _is_basic_sweep(config: DictConfig) -> bool:
    """Other sweepers choose their values as they go; their runs are checked as they start."""
    return str(config.hydra.sweeper._target_).endswith(".BasicSweeper")


def _expand(overrides: list[Override]) -> list[list[str]]:
    (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return jobs


def _compose(config_name: str, overrides: list[str]) -> DictConfig:
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    composed = hydra.compose_config(
        config_name, overrides, run_mode=RunMode.RUN, with_log_configuration=False
    )
    if composed.resume is not None:
        raise ConfigError("resume= goes on with one run: give it without -m.")
    _refuse_imported_from(composed)
    return _without_hydra(composed)


def _name_runs_by_what_varies(config: DictConfig, overrides: list[Override]) -> None:
    """Leave what all runs of a sweep share out of the names of their folders."""
    shared = [o.get_key_element() for o in overrides if not o.is_sweep_override()]
    if len(shared) < len(overrides):
        keys = ",".join(shared)
        with read_write(config):
            config.hydra.overrides.hydra.append(
                f"hydra.job.config.override_dirname.exclude_keys=[{keys}]"
            )
