"""One run, from a configuration to a folder of results."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from mnist_bench.checkpoint import (
    BEST,
    LAST,
    read_checkpoint,
    restore_training,
    resume_command,
    training_state,
    write_checkpoint,
)
from mnist_bench.config import TestWeights, TrainConfig, Validation
from mnist_bench.data.splits import Splits
from mnist_bench.interrupt import Interrupted, StopRequest
from mnist_bench.loop import EpochRecord, LoopSettings, Position, train
from mnist_bench.models import count_parameters, summarise
from mnist_bench.placement import Placement, keep_freed_memory, set_up_torch
from mnist_bench.prepare import prepare
from mnist_bench.records import (
    PREDICTIONS,
    SUMMARY,
    best_record,
    epoch_figures,
    provenance,
    test_figures,
    write_metrics,
    write_predictions,
    write_summary,
)
from mnist_bench.screen import Screen, as_text, closing_table, format_seconds, layers_table, say
from mnist_bench.step import Learner, build_learner, count_steps
from mnist_bench.tensorboard import Board


@dataclass
class Run:
    """What the acts of a run share."""

    config: TrainConfig
    folder: Path
    screen: Screen
    placement: Placement
    splits: Splits
    learner: Learner
    position: Position
    provenance: dict[str, Any]


def run(config: TrainConfig, folder: Path) -> dict[str, Any]:
    """Train, validate, test, and leave the records in `folder`; returns what summary.json holds.

    `folder` exists and has Hydra's `.hydra`. With `config.resume` it is that run's folder.

    Raises:
        BenchError: the run cannot begin, or cannot go on, which summary.json then says.
        SystemExit: the run was interrupted; it can be resumed.
    """
    this = begin(config, folder)
    with record_ending(this):
        fit(this)
        summary = finish(this)
    return summary


# --- Act 1: place the images and the network --------------------------------------------------


def begin(config: TrainConfig, folder: Path) -> Run:
    prepared = prepare(config, say)
    placement, splits = prepared.placement, prepared.splits.to(prepared.placement.device)
    set_up_torch(config.seed, config.trainer.deterministic)
    keep_freed_memory()
    learner = build_learner(config, placement, splits)
    position = Position(learner.new_totals())
    if config.resume is not None:
        restore_training(read_checkpoint(folder / LAST), learner, position)
    this = Run(config, folder, Screen(), placement, splits, learner, position, provenance())
    if config.resume is not None:
        repair_records(this)
    return this


def repair_records(this: Run) -> None:
    """Bring the files of a resumed run to where its checkpoint is.

    It may have been killed right after that was written, or had ended and is given more epochs.
    """
    for ended in (SUMMARY, PREDICTIONS):
        (this.folder / ended).unlink(missing_ok=True)
    history = this.position.history
    write_metrics(this.folder, history)
    if history and this.position.step == 0 and best_record(history) is history[-1]:
        write_best(this)


# --- Act 2: train -----------------------------------------------------------------------------


def fit(this: Run) -> None:
    config, position = this.config, this.position
    trainer = config.trainer
    steps = count_steps(len(this.splits.train), trainer.batch_size)
    table = layers_table(config.model.name, summarise(this.learner.network))
    this.screen.table(table)
    this.screen.line(describe(this), style="bold")
    settings = LoopSettings(
        trainer.epochs, trainer.batch_size, config.seed, trainer.refresh_seconds
    )
    with (
        StopRequest() as stop,
        closing(Board(this.folder / "tensorboard", position.history)) as board,
        this.screen.bar(trainer.epochs, steps) as bar,
    ):
        if not position.history and position.step == 0:
            yaml = OmegaConf.to_yaml(OmegaConf.structured(config))
            board.show_start(yaml, as_text(table), this.splits.train)
        for record in train(this.learner, this.splits, position, settings, stop, bar.show):
            best = best_record(position.history) is record
            if best or record.epoch % trainer.save_every == 0 or record.epoch == trainer.epochs:
                write_checkpoint(this.folder / LAST, training_state(this.learner, position))
            if best:
                write_best(this)
            write_metrics(this.folder, position.history)
            board.show_epoch(record)
            this.screen.epoch(record, trainer.epochs, best)


def write_best(this: Run) -> None:
    """Keep the weights as they are at the end of the last epoch in the history."""
    epoch = this.position.history[-1].epoch
    content = {"network": this.learner.network.state_dict(), "epoch": epoch}
    write_checkpoint(this.folder / BEST, content)


def describe(this: Run) -> str:
    """What runs where."""
    splits, trainer = this.splits, this.config.trainer
    validation = f"{len(splits.validation):,} to validate"
    if this.config.data.validation is Validation.test:
        validation = "validated on the test set"
    resumed = f", from epoch {this.position.epoch}" if this.config.resume else ""
    return (
        f"{this.config.data.name}: {len(splits.train):,} images to train, {validation}, "
        f"{len(splits.test):,} to test; {trainer.epochs} epoch{'s' * (trainer.epochs != 1)} of "
        f"batch {trainer.batch_size}"
        f"{resumed}; {this.placement.precision.name} on {this.placement.device_name}"
    )


# --- Act 3: test once and write it down -------------------------------------------------------


def finish(this: Run) -> dict[str, Any]:
    record = choose_tested_epoch(this)
    if record.epoch != this.position.history[-1].epoch:
        weights = read_checkpoint(this.folder / BEST)
        assert weights["epoch"] == record.epoch
        this.learner.network.load_state_dict(weights["network"])
    summary = record_test(this, "completed", record)
    this.screen.table(closing_table(closing_rows(this, record, summary)))
    return summary


def record_test(this: Run, status: str, record: EpochRecord | None) -> dict[str, Any]:
    """Test the network as it is, with the weights of an epoch or of none, and write it down."""
    averages, logits = this.learner.evaluate(this.splits.test)
    figures = test_figures(averages, logits, this.splits.test.labels)
    write_predictions(this.folder, logits, this.splits.test.labels)
    summary = summarise_run(this, status, record, figures)
    show_in_tensorboard(this, record, summary, logits)
    write_summary(this.folder, summary)
    return summary


def choose_tested_epoch(this: Run) -> EpochRecord:
    history = this.position.history
    if tests_last_weights(this.config):
        return history[-1]
    return best_record(history)


def tests_last_weights(config: TrainConfig) -> bool:
    """Whether the final weights are tested; the best on the test set itself would flatter."""
    weights = config.trainer.test_weights
    on_test = config.data.validation is Validation.test
    return weights is TestWeights.last or (weights is TestWeights.auto and on_test)


def summarise_run(
    this: Run, status: str, record: EpochRecord | None, figures: dict[str, Any]
) -> dict[str, Any]:
    """The content of summary.json; figures that there are none of (yet) are null."""
    config, history, splits = this.config, this.position.history, this.splits
    hydra = OmegaConf.load(this.folder / ".hydra" / "hydra.yaml").hydra
    seconds = sum(r.seconds for r in history)
    keys = [f"{part}_{key}" for part in ("train", "val", "test") for key in ("loss", "accuracy")]
    return {
        "status": status,
        "model": config.model.name,
        "experiment": hydra.runtime.choices.get("experiment"),
        "dataset": config.data.name,
        "seed": config.seed,
        "imported_from": config.imported_from,
        "parameters": count_parameters(this.learner.network),
        "epochs": len(history),
        "best_epoch": best_record(history).epoch if history else None,
        "tested_epoch": record.epoch if record else None,
        "validation": config.data.validation.name,
        **dict.fromkeys([*keys, "test_errors"]),
        **(epoch_figures(record) if record else {}),
        **figures,
        "train_images": len(splits.train),
        "val_images": len(splits.validation),
        "test_images": len(splits.test),
        "train_seconds": seconds,
        "images_per_second": len(splits.train) * len(history) / seconds if history else None,
        "device": this.placement.device_name,
        "precision": this.placement.precision.name,
        **this.provenance,
        "overrides": list(hydra.overrides.task),
    }


def show_in_tensorboard(
    this: Run, record: EpochRecord | None, summary: dict[str, Any], logits: torch.Tensor
) -> None:
    wrong = (logits.argmax(1) != this.splits.test.labels.cpu()).nonzero().flatten()
    with closing(Board(this.folder / "tensorboard")) as board:
        epoch = record.epoch if record else 0
        board.show_end(this.config, epoch, summary, this.splits.test, wrong)


def closing_rows(
    this: Run, record: EpochRecord, summary: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    yield "test accuracy", describe_test(summary)
    if "test_binary_accuracy" in summary:
        yield "binary", f"{summary['test_binary_accuracy']:.2%} of the outputs (not an accuracy)"
    if record.epoch == summary["best_epoch"] and not tests_last_weights(this.config):
        yield "weights of", f"epoch {record.epoch}, the best by validation"
    else:
        yield (
            "weights of",
            f"epoch {record.epoch}, the last (best by validation: {summary['best_epoch']})",
        )
    where = "on the test set" if summary["validation"] == "test" else "on held-out training images"
    yield "validation", f"accuracy {record.val_accuracy:.2%}, loss {record.val_loss:.4f}, {where}"
    rate = summary["images_per_second"]
    yield "training", f"{format_seconds(summary['train_seconds'])} (m:s), {rate:,.0f} images/s"
    yield "folder", os.path.relpath(this.folder)


def describe_test(summary: dict[str, Any]) -> str:
    return (
        f"{summary['test_accuracy']:.2%}, {summary['test_errors']} errors in "
        f"{summary['test_images']:,} images; loss {summary['test_loss']:.4f}"
    )


# --- However it ends --------------------------------------------------------------------------


@contextmanager
def record_ending(this: Run) -> Iterator[None]:
    """Leave a summary.json that tells an interrupted or failed run, and say how to go on."""
    try:
        yield
    except Interrupted as stop:
        write_checkpoint(this.folder / LAST, training_state(this.learner, this.position))
        _tell_interrupted(this)
        raise SystemExit(128 + stop.signal_number) from None
    except KeyboardInterrupt:
        _tell_interrupted(this)
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:
        this.screen.log_failure()
        write_summary(this.folder, {**summarise_run(this, "failed", None, {}), "error": str(error)})
        raise


def _tell_interrupted(this: Run) -> None:
    write_summary(this.folder, summarise_run(this, "interrupted", None, {}))
    folder = Path(os.path.relpath(this.folder))
    if (folder / LAST).exists():
        this.screen.line(f"Stopped. To go on: {resume_command(folder)}")
    else:
        this.screen.line("Stopped before anything was saved.")
