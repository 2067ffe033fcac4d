"""How a run ends: tested and summarised, or interrupted, or failed."""

import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from mnist_bench.config.schema import TestWeights, TrainConfig, Validation
from mnist_bench.loggers.console import closing_table, format_seconds
from mnist_bench.loggers.tensorboard import Board
from mnist_bench.models import count_parameters
from mnist_bench.runs.begin import Run
from mnist_bench.runs.checkpoint import (
    BEST,
    LAST,
    read_checkpoint,
    resume_command,
    write_checkpoint,
)
from mnist_bench.runs.records import (
    best_record,
    epoch_figures,
    test_figures,
    write_predictions,
    write_summary,
)
from mnist_bench.training.interrupt import Interrupted
from mnist_bench.training.loop import EpochRecord


def finish(run: Run) -> None:
    record = choose_tested_epoch(run)
    if record.epoch != run.position.history[-1].epoch:
        weights = run.best or read_checkpoint(run.folder / BEST)
        assert weights["epoch"] == record.epoch
        run.learner.tested.load_state_dict(weights["network"])
    summary = record_test(run, "completed", record)
    run.screen.table(closing_table(closing_rows(run, record, summary)))


def record_test(run: Run, status: str, record: EpochRecord | None) -> dict[str, Any]:
    """Test the network as it is, with the weights of an epoch or of none, and write it down."""
    averages, logits = run.learner.evaluate(run.splits.test)
    figures = test_figures(averages, logits, run.splits.test.labels)
    write_predictions(run.folder, logits, run.splits.test.labels)
    summary = summarise_run(run, status, record, figures)
    show_in_tensorboard(run, record, summary, logits)
    write_summary(run.folder, summary)
    return summary


def choose_tested_epoch(run: Run) -> EpochRecord:
    history = run.position.history
    if tests_last_weights(run.config):
        return history[-1]
    return best_record(history)


def tests_last_weights(config: TrainConfig) -> bool:
    """Whether the final weights are tested; the best on the test set itself would flatter."""
    weights = config.trainer.test_weights
    on_test = config.data.validation is Validation.test
    return weights is TestWeights.last or (weights is TestWeights.auto and on_test)


def summarise_run(
    run: Run, status: str, record: EpochRecord | None, figures: dict[str, Any]
) -> dict[str, Any]:
    """The content of summary.json; figures that there are none of (yet) are null."""
    config, history, splits = run.config, run.position.history, run.splits
    hydra = OmegaConf.load(run.folder / ".hydra" / "hydra.yaml").hydra
    seconds = sum(r.seconds for r in history)
    keys = [f"{part}_{key}" for part in ("train", "val", "test") for key in ("loss", "accuracy")]
    return {
        "status": status,
        "model": config.model.name,
        "experiment": hydra.runtime.choices.get("experiment"),
        "dataset": config.data.name,
        "seed": config.seed,
        "imported_from": config.imported_from,
        "parameters": count_parameters(run.learner.network),
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
        "warm_up_seconds": run.position.warm_up_seconds,
        "train_seconds": seconds,
        "images_per_second": len(splits.train) * len(history) / seconds if history else None,
        "device": run.placement.device_name,
        "precision": run.placement.precision.name,
        "compiled": run.learner.compiled is not None,
        "kernels": run.learner.kernels,
        **run.provenance,
        "overrides": list(hydra.overrides.task),
    }


def show_in_tensorboard(
    run: Run, record: EpochRecord | None, summary: dict[str, Any], logits: torch.Tensor
) -> None:
    wrong = (logits.argmax(1) != run.splits.test.labels.cpu()).nonzero().flatten()
    with closing(Board(run.folder / "tensorboard")) as board:
        epoch = record.epoch if record else 0
        board.show_end(run.config, epoch, summary, run.splits.test, wrong)


def closing_rows(
    run: Run, record: EpochRecord, summary: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    yield "test accuracy", describe_test(summary)
    if "test_binary_accuracy" in summary:
        yield "binary", f"{summary['test_binary_accuracy']:.2%} of the outputs (not an accuracy)"
    if record.epoch == summary["best_epoch"] and not tests_last_weights(run.config):
        yield "weights of", f"epoch {record.epoch}, the best by validation"
    else:
        yield (
            "weights of",
            f"epoch {record.epoch}, the last (best by validation: {summary['best_epoch']})",
        )
    where = "on the test set" if summary["validation"] == "test" else "on held-out training images"
    yield "validation", f"accuracy {record.val_accuracy:.2%}, loss {record.val_loss:.4f}, {where}"
    rate = summary["images_per_second"]
    warm_up = summary["warm_up_seconds"]
    before = f", after {warm_up:.1f} s of warm-up" if warm_up else ""
    seconds = format_seconds(summary["train_seconds"])
    yield "training", f"{seconds} (m:s), {rate:,.0f} images/s{before}"
    yield "folder", os.path.relpath(run.folder)


def describe_test(summary: dict[str, Any]) -> str:
    return (
        f"{summary['test_accuracy']:.2%}, {summary['test_errors']} errors in "
        f"{summary['test_images']:,} images; loss {summary['test_loss']:.4f}"
    )


# --- Otherwise --------------------------------------------------------------------------------


@contextmanager
def record_ending(run: Run) -> Iterator[None]:
    """Leave a summary.json that tells an interrupted or failed run, and say how to go on."""
    try:
        yield
    except Interrupted as stop:
        for path, content in run.checkpoints(whole=True).items():
            write_checkpoint(path, content)
        _tell_interrupted(run)
        raise SystemExit(128 + stop.signal_number) from None
    except KeyboardInterrupt:
        _tell_interrupted(run)
        raise SystemExit(128 + signal.SIGINT) from None
    except Exception as error:
        run.screen.log_failure(error)
        failed = {**summarise_run(run, "failed", None, {}), "error": str(error)}
        write_summary(run.folder, failed)
        raise


def _tell_interrupted(run: Run) -> None:
    write_summary(run.folder, summarise_run(run, "interrupted", None, {}))
    if (run.folder / LAST).exists():
        folder = Path(os.path.relpath(run.folder))
        run.screen.line(f"Stopped. To go on: {resume_command(folder)}")
    else:
        run.screen.line("Stopped before anything was saved.")
