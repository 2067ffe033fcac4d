"""Carrying a run out: trained, tested and told, or stopped so that it can go on."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mnist_bench.config.identity import computed, digest
from mnist_bench.config.parts import config_dirs
from mnist_bench.config.schema import TrainConfig
from mnist_bench.config.walk import flatten
from mnist_bench.errors import FileError, explain_file_error
from mnist_bench.loggers.base import Loggers
from mnist_bench.loggers.console import Screen, as_text, closing_table, info, layers_table
from mnist_bench.models import summarise
from mnist_bench.runs.checkpoint import CheckpointWriter, resume_command, write_checkpoint
from mnist_bench.runs.failures import naming_the_batch
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.records import read_summary, write_command, write_metrics
from mnist_bench.runs.run import Run
from mnist_bench.training.interrupt import Interrupted, StopRequest
from mnist_bench.training.learner import count_steps
from mnist_bench.training.loop import best_record, is_over, train


def do_what_is_missing(
    config: TrainConfig, path: Path, *, composed: DictConfig | None = None
) -> float:
    """Carry out a run that may have been begun, or completed, by an earlier command.

    `composed` is as for `carry_out`.

    Raises:
        InUse: another process works on it.
        DataError: the folder holds another run.
        BenchError, SystemExit: as `carry_out`.
    """
    folder = RunFolder(path)
    with folder.owned():
        summary = read_summary(path, digest(computed(flatten(config))))
        if summary.get("status") == "completed":
            return float(summary["val_loss"])
        if folder.last.exists() or folder.previous.exists():
            config = replace(config, resume=str(path))
        else:
            folder.clear()
        return carry_out(config, path, composed=composed)


def carry_out(config: TrainConfig, path: Path, *, composed: DictConfig | None = None) -> float:
    """Train, validate, test, and leave the records in the folder `path`.

    Returns the validation loss of the weights that were tested.

    The folder exists, and with `config.resume` is that run's. Its `.hydra` is written from
    `composed`, the configuration as Hydra has composed it; without, it is there already.

    Raises:
        BenchError: the run cannot begin, or cannot go on, which summary.json then says.
        OSError: a file cannot be read or written before the run begins.
        SystemExit: the run was interrupted; it can be resumed.
    """
    folder, screen = RunFolder(path), Screen()
    with folder.owned(), naming_the_batch(config):
        run, made = Run(config, folder, info), Loggers(config.logger)
        run.open()
        if composed is not None:
            hydra: Any = HydraConfig.instance().cfg
            write_command(folder, composed, hydra)
        with (
            recording_a_failure(run, screen),
            recording_the_end(run, screen),
            closing(made) as loggers,
        ):
            fit(run, screen, loggers)
            summary = run.test("completed", run.choose_tested_epoch())
            loggers.end(summary)
            run.finish(summary)
            screen.table(closing_table(run.closing_rows(summary)))
            if summary["warning"]:
                screen.line(summary["warning"], style="bold red")
    return float(summary["val_loss"])


def fit(run: Run, screen: Screen, loggers: Loggers) -> None:
    """Train to the last epoch."""
    table = layers_table(
        run.config.model.name, summarise(run.learner.network, run.splits.image_shape)
    )
    screen.table(table, once=True)
    screen.line(run.describe(), style="bold")
    trainer, history = run.config.trainer, run.position.history
    steps = count_steps(len(run.splits.train), trainer.batch_size)
    with (
        StopRequest() as stop,  # until all is written
        CheckpointWriter(run.placement.device) as writer,
        screen.bar(trainer.epochs, steps, run.position.epoch) as bar,
    ):
        loggers.start(run.info(as_text(table)))
        for record in train(run.training, run.splits, trainer, stop, bar.show):
            best = best_record(history) is record
            if best:
                run.keep_best()
            every = trainer.save_every
            due = is_over(run.position, trainer) or (every and record["epoch"] % every == 0)
            if due or writer.has_failed:
                writer.write(run.checkpoints())
            write_metrics(run.folder, history)
            loggers.epoch(record)
            screen.epoch(record, trainer.epochs, best)
            bar.next_epoch(record["epoch"] + 1)


@contextmanager
def recording_the_end(run: Run, screen: Screen) -> Iterator[None]:
    """Leave a summary.json that tells an interrupted run, and say how to go on."""
    try:
        yield
    except Interrupted as stop:
        for path, content in run.checkpoints(whole=True).items():
            write_checkpoint(path, content)
        _tell_interrupted(run, screen)
        raise SystemExit(128 + stop.signal_number) from None
    except KeyboardInterrupt:
        _tell_interrupted(run, screen)
        raise SystemExit(128 + signal.SIGINT) from None


def _tell_interrupted(run: Run, screen: Screen) -> None:
    run.interrupt()
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        return  # the sweep says how to go on
    if run.folder.last.exists():
        screen.line(f"Stopped. To go on: {_command(run)}")
    else:
        screen.line("Stopped before anything was saved.")


def _command(run: Run) -> str:
    """Return the command line that goes on with a run."""
    folder = Path(os.path.relpath(run.folder.path))
    return resume_command(folder, config_dirs(HydraConfig.get().runtime))


@contextmanager
def recording_a_failure(run: Run, screen: Screen) -> Iterator[None]:
    """Leave a summary.json that says why a run has failed, if it can be written.

    Raises:
        FileError: a file could not be read or written; says how to go on when that is put right.
    """
    try:
        with naming_the_batch(run.config):
            yield
    except Exception as error:
        screen.log_failure(error)
        told = error
        if isinstance(error, OSError):
            saved = run.folder.last.exists() or run.folder.previous.exists()
            in_sweep = HydraConfig.get().mode is RunMode.MULTIRUN
            again = "give the same command again"
            then = f"go on with {_command(run)}" if saved and not in_sweep else again
            told = FileError(f"{explain_file_error(error)}, then {then}.")
        with suppress(OSError):  # what ended the run may prevent this, too
            run.fail(told)
        if told is error:
            raise
        raise told from error
