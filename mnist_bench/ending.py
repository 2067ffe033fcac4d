"""How a run ends: tested and summarised, or interrupted, or failed."""

import os
import signal
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from mnist_bench.begin import Run
from mnist_bench.checkpoint import (
    BEST,
    LAST,
    read_checkpoint,
    resume_command,
    training_state,
    write_checkpoint,
)
from mnist_bench.config import TestWeights, TrainConfig, Validation
from mnist_bench.errors import TrainingError
from mnist_bench.interrupt import Interrupted
from mnist_bench.loop import EpochRecord
from mnist_bench.models import count_parameters
from mnist_bench.records import (
    best_record,
    epoch_figures,
    read_summary,
    test_figures,
    write_predictions,
    write_summary,
)
from mnist_bench.screen import Screen, closing_table, format_seconds, sweep_table
from mnist_bench.tensorboard import Board


def finish(this: Run) -> None:
    record = choose_tested_epoch(this)
    if record.epoch != this.position.history[-1].epoch:
        weights = read_checkpoint(this.folder / BEST)
        assert weights["epoch"] == record.epoch
        this.learner.tested.load_state_dict(weights["network"])
    summary = record_test(this, "completed", record)
    this.screen.table(closing_table(closing_rows(this, record, summary)))


def record_test(this: Run, status: str, record: EpochRecord | None) -> dict[str, Any]:
    """Test the network as it is, with the weights of an epoch or of none, and write it down."""
    averages, logits = this.learner.evaluate(this.splits.test)
    figures = test_figures(averages, logits, this.splits.test.labels)
    write_predictions(this.folder, logits, this.splits.test.labels)
    summary = summarise_run(this, status, record, figures)
    show_in_tensorboard(this, record, summary, logits)
    write_summary(this.folder, summary)
    this.ended = True
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
        "replicas": this.replicas,
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


def compare_seeds(runs: Sequence[Run], folder: Path, screen: Screen) -> None:
    """Show the results of runs that trained side by side, and what they say of the next."""
    summaries = {this.folder.name: read_summary(this.folder) for this in runs if not this.error}
    if not summaries:
        return
    screen.table(sweep_table(os.path.relpath(folder), summaries))
    accuracies = [summary["test_accuracy"] for summary in summaries.values()]
    if len(accuracies) > 1:
        mean, std = statistics.mean(accuracies), statistics.stdev(accuracies)
        screen.line(
            f"test accuracy of {len(accuracies)} seeds: mean {mean:.2%}, standard deviation "
            f"{std:.2%}, from {min(accuracies):.2%} to {max(accuracies):.2%}"
        )


# --- Otherwise --------------------------------------------------------------------------------


@contextmanager
def record_ending(runs: Sequence[Run], folder: Path, screen: Screen) -> Iterator[None]:
    """Leave a summary.json that tells an interrupted or failed run, and say how to go on."""
    try:
        yield
    except Interrupted as stop:
        for this in runs:
            if not this.ended:
                with this.learner.randomness:
                    state = training_state(this.learner, this.position)
                    write_checkpoint(this.folder / LAST, state)
        _tell_interrupted(runs, folder, screen)
        raise SystemExit(128 + stop.signal_number) from None
    except KeyboardInterrupt:
        _tell_interrupted(runs, folder, screen)
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:
        if len(runs) > 1:
            screen.log_failure(error)
        for this in runs:
            if not this.ended:
                record_failure(this, error)
        raise


def record_failure(this: Run, error: Exception) -> None:
    this.screen.log_failure(error)
    write_summary(this.folder, {**summarise_run(this, "failed", None, {}), "error": str(error)})
    # Its traceback would keep the whole training in memory, while others may go on.
    this.ended, this.error = True, error.with_traceback(None)


def _tell_interrupted(runs: Sequence[Run], folder: Path, screen: Screen) -> None:
    for this in runs:
        if not this.ended:
            write_summary(this.folder, summarise_run(this, "interrupted", None, {}))
    folder = Path(os.path.relpath(folder))
    if any((this.folder / LAST).exists() for this in runs):
        screen.line(f"Stopped. To go on: {resume_command(folder)}")
    else:
        screen.line("Stopped before anything was saved.")


def sum_up(failures: Mapping[str, Exception], replicas: int) -> TrainingError:
    name, error = next(iter(failures.items()))
    others = ", and the others are complete" if len(failures) < replicas else ""
    return TrainingError(
        f"{len(failures)} of {replicas} replicas failed ({', '.join(failures)}){others}. "
        f"{name}: {error}"
    )
