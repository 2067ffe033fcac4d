"""Carrying a run out: trained, tested and told, or stopped so that it can go on."""

import os
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
from mnist_bench.loggers.artist import ARTIST
from mnist_bench.loggers.base import Logger, Loggers, Pruned
from mnist_bench.loggers.console import (
    Screen,
    closing_table,
    info,
    layers_table,
    print_error,
)
from mnist_bench.models import count_parameters, summarise
from mnist_bench.runs.checkpoint import CheckpointWriter, resume_command, write_checkpoint
from mnist_bench.runs.failures import naming_the_batch
from mnist_bench.runs.figures import hand_over
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.records import read_summary, write_command, write_metrics
from mnist_bench.runs.run import Run
from mnist_bench.training.interrupt import OutOfTime, Stopped, StopRequest
from mnist_bench.training.learner import count_steps
from mnist_bench.training.loop import best_record, is_over, train


def do_what_is_missing(
    config: TrainConfig, path: Path, *watching: Logger, composed: DictConfig
) -> float:
    """Carry out a run that may have been begun, or completed, by an earlier command.

    `watching` are told of it besides the loggers that are configured; `composed` is as for
    `carry_out`.

    Raises:
        InUse: another process works on it.
        DataError: the folder holds another run.
        BenchError, Pruned, Stopped: as `carry_out`.
    """
    folder = RunFolder(path)
    with folder.owned():
        summary = read_summary(path, digest(computed(flatten(config))))
        if summary.get("status") == "completed":
            return float(summary["val_loss"])
        if folder.can_go_on:
            config = replace(config, resume=str(path))
        else:
            folder.clear()
        val_loss = carry_out(config, path, *watching, composed=composed)
        folder.keep(config.sweep.keep)
        return val_loss


def carry_out(
    config: TrainConfig, path: Path, *watching: Logger, composed: DictConfig | None = None
) -> float:
    """Train, validate, test, and leave the records in the folder `path`.

    Returns the validation loss of the weights that were tested.

    The folder exists, and with `config.resume` is that run's. Its `.hydra` is written from
    `composed`, the configuration as Hydra has composed it; without, it is there already.

    Raises:
        BenchError: the run cannot begin, or cannot go on, which summary.json then says.
        OSError: a file cannot be read or written before the run begins.
        Pruned: one of `watching` has ended it; it can be resumed.
        Stopped: a signal or the time ended the run; it can be resumed. It is a SystemExit.
    """
    folder, screen = RunFolder(path), Screen()
    with (
        StopRequest(config.trainer.max_seconds) as stop,
        folder.owned(),
        naming_the_batch(config),
    ):
        with stop.at_once():
            run, made = Run(config, folder, info), Loggers(config.logger, watching)
            run.open()
            if composed is not None:
                hydra: Any = HydraConfig.instance().cfg
                write_command(folder, composed, hydra)
        with recording_the_end(run, screen, stop), closing(made) as loggers:
            with CheckpointWriter(run.placement.device) as writer:  # which the test is beside
                fit(run, screen, loggers, stop, writer)
                if config.trainer.figures:
                    ARTIST.start()  # so that it is ready when the test is over
                with stop.at_once():
                    summary = run.test("completed", run.choose_tested_epoch())
                loggers.end(summary)
            run.finish(summary)
        screen.table(closing_table(run.closing_rows(summary)))
        screen.line(f"folder: {os.path.relpath(path)}")  # whole, to be copied
        if summary["warning"]:
            screen.line(summary["warning"], style="bold red")
        if config.trainer.figures:
            hand_over(run, summary)
        stop.check_signal()
    return float(summary["val_loss"])


def fit(
    run: Run, screen: Screen, loggers: Loggers, stop: StopRequest, writer: CheckpointWriter
) -> None:
    """Train to the last epoch, or until it is to stop.

    Raises:
        Stopped: the run can go on; all is written.
    """
    table = layers_table(
        run.config.model.name, summarise(run.learner.network, run.splits.image_shape)
    )
    layers = screen.table(table, once=True)
    screen.line(run.describe(), style="bold")
    trainer, history = run.config.trainer, run.position.history
    steps = count_steps(len(run.splits.train), trainer.batch_size)
    stop.reserve = seconds_to_save(run)
    with (
        screen.bar(trainer.epochs, steps, run.position.epoch) as bar,
        saved_if_stopped(run, writer),
    ):
        loggers.start(run.info(layers))
        for record in train(run.training, run.splits, trainer, stop, bar.show):
            best = best_record(history) is record
            if best:
                run.keep_best()
            every = trainer.save_every
            due = is_over(run.position, trainer) or (every and record["epoch"] % every == 0)
            if due or writer.has_failed:
                writer.write(run.checkpoints())
            stop.reserve = seconds_to_save(run, writer.seconds)
            write_metrics(run.folder, history)
            loggers.epoch(record)
            screen.epoch(record, trainer.epochs, best)
            bar.next_epoch(record["epoch"] + 1)


# Bytes a second at which a disk is taken to write before it has shown it; a slow one.
SLOW_DISK = 50e6


def seconds_to_save(run: Run, last: float = 0.0) -> float:
    """Return how long a run that stops is given to save, and to end.

    `last` are the seconds that writing its checkpoints took; what is on its way is waited for, and
    as much is written once more. Without, all is reckoned by its size: weights, two numbers of an
    optimizer and the best weights, of four bytes each.
    """
    return 1.0 + 2 * (last or 16 * count_parameters(run.learner.network) / SLOW_DISK)


@contextmanager
def saved_if_stopped(run: Run, writer: CheckpointWriter) -> Iterator[None]:
    """Write all that is needed to go on before anything is said: the terminal may be gone."""
    try:
        yield
    except (Stopped, Pruned) as end:
        writer.wait()
        for path, content in run.checkpoints(whole=True).items():
            write_checkpoint(path, content)
        if isinstance(end, Pruned):
            run.prune()
        else:
            run.interrupt()
        raise


@contextmanager
def recording_the_end(run: Run, screen: Screen, stop: StopRequest) -> Iterator[None]:
    """Leave a summary.json that tells a stopped or failed run, and say how to go on.

    Raises:
        FileError: a file could not be read or written; says how to go on when that is put right.
    """
    try:
        with naming_the_batch(run.config):
            yield
    except (SystemExit, KeyboardInterrupt) as end:
        if not run.folder.summary.exists():
            run.interrupt()
        _tell_how_to_go_on(run, screen, str(end) if isinstance(end, OutOfTime) else "Stopped")
        raise
    except Pruned as reason:
        screen.line(str(reason))
        raise
    except Exception as error:
        screen.log_failure(error)
        told = _told(run, error)
        with suppress(OSError):  # what ended the run may prevent this, too
            if not run.folder.summary.exists():
                run.fail(told)
        if stop.signal_number is not None:  # which ends the process, and no more is said
            print_error(str(told))
        if told is error:
            raise
        raise told from error


def _tell_how_to_go_on(run: Run, screen: Screen, stopped: str) -> None:
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        return  # the sweep does
    if run.folder.last.exists():
        screen.line(f"{stopped}. To go on: {_command(run)}")
    else:
        screen.line(f"{stopped} before anything was saved.")


def _command(run: Run) -> str:
    """Return the command line that goes on with a run."""
    folder = Path(os.path.relpath(run.folder.path))
    return resume_command(folder, config_dirs(HydraConfig.get().runtime))


def _told(run: Run, error: Exception) -> Exception:
    """Return an error as its user is told it: of a file, with how to go on once it is mended."""
    if not isinstance(error, OSError):
        return error
    then = "give the same command again"
    if run.folder.can_go_on and HydraConfig.get().mode is not RunMode.MULTIRUN:
        then = f"go on with {_command(run)}"
    return FileError(f"{explain_file_error(error)}, then {then}.")
