"""Carrying a run out: trained, tested and told, or stopped so that it can go on."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from mnist_bench.config.identity import computed, digest
from mnist_bench.config.parts import config_dirs
from mnist_bench.config.schema import TrainConfig
from mnist_bench.config.walk import flatten
from mnist_bench.loggers.base import Logger, Loggers, Pruned
from mnist_bench.loggers.console import Screen, as_text, closing_table, info, layers_table
from mnist_bench.models import summarise
from mnist_bench.runs.checkpoint import CheckpointWriter, resume_command, write_checkpoint
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.records import read_summary, write_metrics
from mnist_bench.runs.run import Run
from mnist_bench.training.interrupt import Interrupted, StopRequest
from mnist_bench.training.learner import count_steps
from mnist_bench.training.loop import best_record, is_over, train


def do_what_is_missing(config: TrainConfig, path: Path, *watching: Logger) -> float:
    """Carry out a run that may have been begun, or completed, by an earlier command.

    `watching` are told of it besides the loggers that are configured.

    Raises:
        InUse: another process works on it.
        DataError: the folder holds another run.
        BenchError, Pruned, SystemExit: as `carry_out`.
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
        return carry_out(config, path, *watching)


def carry_out(config: TrainConfig, path: Path, *watching: Logger) -> float:
    """Train, validate, test, and leave the records in the folder `path`.

    Returns the validation loss of the weights that were tested.

    The folder exists and has Hydra's `.hydra`. With `config.resume` it is that run's folder.

    Raises:
        BenchError: the run cannot begin, or cannot go on, which summary.json then says.
        Pruned: one of `watching` has ended it; it can be resumed.
        SystemExit: the run was interrupted; it can be resumed.
    """
    folder, screen = RunFolder(path), Screen()
    with folder.owned():
        run, made = Run(config, folder, info), Loggers(config.logger, watching)
        run.open()
        with recording_the_end(run, screen), closing(made) as loggers:
            fit(run, screen, loggers)
            summary = run.test("completed", run.choose_tested_epoch())
            loggers.end(summary)
            run.finish(summary)
            screen.table(closing_table(run.closing_rows(summary)))
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
    """Leave a summary.json that tells an interrupted or failed run, and say how to go on."""
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
    except Pruned as reason:
        for path, content in run.checkpoints(whole=True).items():
            write_checkpoint(path, content)
        run.prune()
        screen.line(str(reason))
        raise
    except Exception as error:
        screen.log_failure(error)
        run.fail(error)
        raise


def _tell_interrupted(run: Run, screen: Screen) -> None:
    run.interrupt()
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        return  # the sweep says how to go on
    if run.folder.last.exists():
        folder = Path(os.path.relpath(run.folder.path))
        command = resume_command(folder, config_dirs(HydraConfig.get().runtime))
        screen.line(f"Stopped. To go on: {command}")
    else:
        screen.line("Stopped before anything was saved.")
