"""One run: what it consists of, from its images in place to its results in a folder."""

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from mnist_bench.config.identity import computed, digest, identity
from mnist_bench.config.schema import LossConfig, TestWeights, TrainConfig, Validation
from mnist_bench.config.walk import flatten
from mnist_bench.errors import ConfigError
from mnist_bench.kernels import why_portable
from mnist_bench.loggers.base import RunInfo
from mnist_bench.loggers.console import format_seconds
from mnist_bench.models import count_parameters
from mnist_bench.runs.checkpoint import (
    Content,
    copied,
    fitting,
    read_best,
    read_last,
    refuse_another_configuration,
    restore_training,
    training_state,
    write_checkpoint,
)
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.predictions import write_predictions
from mnist_bench.runs.prepare import prepare
from mnist_bench.runs.records import (
    Command,
    doubt,
    epoch_figures,
    previous_of,
    provenance,
    read_command,
    set_result_aside,
    test_figures,
    write_metrics,
    write_summary,
)
from mnist_bench.training.device import Placement, keep_freed_memory
from mnist_bench.training.learner import build_learner
from mnist_bench.training.loop import (
    EpochRecord,
    Position,
    Training,
    best_record,
    is_over,
    stops_early,
)


class Run:
    """A network in training, and the folder that its results go to.

    `best` are the weights of the best epoch, copied where they were computed; None if only best.pt
    has them.
    """

    def __init__(self, config: TrainConfig, folder: RunFolder, announce: Callable[[str], None]):
        """Put images and a fresh network in place.

        Raises:
            BenchError: the run cannot begin; nothing has been written.
        """
        prepared = prepare(config, announce)
        self.config, self.folder, self.announce = config, folder, announce
        self.placement: Placement = prepared.placement
        self.splits = prepared.splits.to(self.placement.device)
        keep_freed_memory()
        self.learner = build_learner(config, self.placement, self.splits)
        self.position = Position(self.learner.new_totals())
        self.provenance = provenance()
        self.best: Content | None = None
        self.best_is_saved = True

    def open(self) -> None:
        """Take the folder for this run; go on from its last checkpoint if the run is resumed.

        Raises:
            BenchError: the folder holds another run, or what it holds cannot be gone on with.
        """
        if self.config.resume is not None:
            last = read_last(self.folder, self.announce)
            refuse_another_configuration(last, self.folder.last, self.config, self.folder)
            with fitting(self.folder.last):
                restore_training(last, self.learner, self.position)
            self._repair_records(last.get("best"))
        elif self.folder.holds_a_run:
            raise ConfigError(
                f"{self.folder} holds a run already: give this one another folder, or go on with "
                f"that one by resume={self.folder}."
            )

    def _repair_records(self, best: Content | None) -> None:
        """Bring the files of a resumed run to where its checkpoint is.

        It may have been killed right after that was written, or had ended and is given more epochs.
        `best` are the weights that the checkpoint has beside those of its moment, if any.
        """
        history = self.position.history
        on_disk = best is None and bool(history) and not self.stands_at_its_best()
        if on_disk and not self.tests_last_weights():
            self._read_best(best_record(history)["epoch"], len(history))
        set_result_aside(self.folder)
        write_metrics(self.folder, history)
        if self.stands_at_its_best():
            best = self._weights()
        if best is not None:
            write_checkpoint(self.folder.best, best)

    @property
    def training(self) -> Training:
        return Training(self.learner, self.position, self.config.seed)

    def info(self, layers: str) -> RunInfo:
        """Return what loggers are told; `layers` is the network's table."""
        return RunInfo(
            folder=self.folder.path,
            name=self.folder.path.name,
            settings=flatten(self.config),
            overrides=self.command.overrides,
            choices=self.command.choices,
            layers=layers,
            splits=self.splits,
            history=self.position.history,
            is_resumed=bool(self.position.history or self.position.step),
        )

    # --- Checkpoints --------------------------------------------------------------------------

    def _weights(self) -> Content:
        """Return the weights as they are at the end of the last epoch in the history."""
        epoch = self.position.history[-1]["epoch"]
        return {**self._belongs(), "network": self.learner.tested.state_dict(), "epoch": epoch}

    def _belongs(self) -> Content:
        """Return what any weights of this run need to be used."""
        inputs = {
            "offset": self.splits.scaling.offset,
            "divisor": self.splits.scaling.divisor,
            "image_shape": list(self.splits.image_shape),
            "class_names": list(self.splits.class_names),
        }
        return {"identity": identity(flatten(self.config)), "inputs": inputs}

    def keep_best(self) -> None:
        """Copy the weights of the epoch that has just ended, which is the best one so far."""
        self.best, self.best_is_saved = copied(self._weights()), False

    def checkpoints(self, whole: bool = False) -> dict[Path, Content]:
        """Return what has to be written, in this order, for the run to go on from here.

        Killed in between, it goes on all the same: the first has what the second may lack. Best
        weights that were returned before are left out, unless it is to be the `whole`.
        """
        last = {**self._belongs(), **training_state(self.learner, self.position)}
        files = {self.folder.last: last}
        if self.best is not None and (whole or not self.best_is_saved):
            if not self.stands_at_its_best():
                last["best"] = self.best
            files[self.folder.best] = self.best
            self.best_is_saved = True
        return files

    def stands_at_its_best(self) -> bool:
        """Return whether the network is as it was at the end of its best epoch."""
        history = self.position.history
        return self.position.step == 0 and bool(history) and best_record(history) is history[-1]

    # --- The end ------------------------------------------------------------------------------

    def choose_tested_epoch(self) -> EpochRecord:
        """Return the epoch whose weights are to be tested."""
        history = self.position.history
        return history[-1] if self.tests_last_weights() else best_record(history)

    def tests_last_weights(self) -> bool:
        """Return whether the last weights are tested: the best on the test set would flatter."""
        weights = self.config.trainer.test_weights
        on_test = self.config.data.validation is Validation.test
        return weights is TestWeights.last or (weights is TestWeights.auto and on_test)

    def test(
        self,
        status: str,
        record: EpochRecord | None,
        remedy: str = "lower optimizer.lr, or train longer",
    ) -> dict[str, Any]:
        """Test with the weights of an epoch, or as it is; return the summary, not yet written.

        `remedy` is what to do about a network that has learnt nothing.
        """
        if record is not None and record["epoch"] != self.position.history[-1]["epoch"]:
            weights = self.best or self._read_best(record["epoch"])
            self.learner.tested.load_state_dict(weights["network"])
        figures, logits = self.learner.evaluate(self.splits.test, "test")
        write_predictions(self.folder, logits, self.splits.test.labels)
        tested = test_figures(figures, logits, self.splits.test.labels)
        warning = doubt(
            tested,
            self.splits.test.labels,
            self.splits.num_classes,
            isinstance(self.config.loss, LossConfig),
            remedy,
        )
        return self.summarise(status, record, {**tested, "warning": warning})

    def _read_best(self, epoch: int, trained: int | None = None) -> Content:
        best = read_best(self.folder, epoch, trained)
        refuse_another_configuration(best, self.folder.best, self.config, self.folder)
        return best

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary, the last of a run's files; an earlier result gives way to it."""
        write_summary(self.folder, summary)
        for file in (self.folder.summary, self.folder.predictions):
            previous_of(file).unlink(missing_ok=True)

    def interrupt(self) -> None:
        """Leave a summary.json that says so."""
        write_summary(self.folder, self.summarise("interrupted", None, {}))

    def prune(self) -> None:
        """Leave a summary.json that says so."""
        write_summary(self.folder, self.summarise("pruned", None, {}))

    def fail(self, error: Exception) -> None:
        """Leave a summary.json that says why."""
        failed = {**self.summarise("failed", None, {}), "error": str(error)}
        write_summary(self.folder, failed)

    def summarise(
        self, status: str, record: EpochRecord | None, figures: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the content of summary.json; figures that there are none of (yet) are null."""
        config, history, splits = self.config, self.position.history, self.splits
        seconds = sum(r["seconds"] for r in history)
        parts = ("train", "val", "test")
        keys = [f"{part}_{key}" for part in parts for key in ("loss", "accuracy")]
        return {
            "status": status,
            "model": config.model.name,
            "experiment": self.command.experiment,
            "dataset": config.data.name,
            "seed": config.seed,
            "imported_from": config.imported_from,
            "parameters": count_parameters(self.learner.network),
            "epochs": len(history),
            "stopped_early": stops_early(history, config.trainer.early_stopping),
            "best_epoch": best_record(history)["epoch"] if history else None,
            "tested_epoch": record["epoch"] if record else None,
            "validation": config.data.validation.name,
            **dict.fromkeys([*keys, "test_errors", "warning"]),
            **(epoch_figures(record) if record else {}),
            **figures,
            "train_images": len(splits.train),
            "val_images": len(splits.validation),
            "test_images": len(splits.test),
            "warm_up_seconds": self.position.warm_up_seconds,
            "train_seconds": seconds,
            "images_per_second": len(splits.train) * len(history) / seconds if history else None,
            "device": self.placement.device_name,
            "precision": self.placement.precision.name,
            "compiled": self.learner.compiled is not None,
            "kernels": self.learner.kernels,
            **self.provenance,
            "overrides": self.command.overrides,
            "digest": digest(computed(flatten(config))),
            "config": flatten(config),
        }

    @cached_property
    def command(self) -> Command:
        """What the command line of the run's first start was."""
        return read_command(self.folder)

    # --- What is said -------------------------------------------------------------------------

    def describe(self) -> str:
        """Return what runs where."""
        splits, trainer = self.splits, self.config.trainer
        validation = f"{len(splits.validation):,} to validate"
        if self.config.data.validation is Validation.test:
            validation = "validated on the test set"
        resumed = ""
        if self.config.resume:
            over = is_over(self.position, trainer)
            resumed = ", already over" if over else f", from epoch {self.position.epoch}"
        # Which has ways of its own for what it compiles, in place of those of a CPU.
        compiler = (
            "torch.compile in full batches of training, else "
            if self.learner.compiled is not None
            else ""
        )
        missing = why_portable(trainer.kernels.name, self.placement.device)
        return (
            f"{self.config.data.name}: {len(splits.train):,} images to train, {validation}, "
            f"{len(splits.test):,} to test; {trainer.epochs} epoch{'s' * (trainer.epochs != 1)} of "
            f"batch {trainer.batch_size}"
            f"{resumed}; {self.placement.precision.name} on {self.placement.device_name}; "
            f"kernels: {compiler}{self.learner.kernels}{f', without {missing}' if missing else ''}"
        )

    def closing_rows(self, summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield the rows of the table that ends a run."""
        yield "test accuracy", describe_test(summary)
        if "test_binary_accuracy" in summary:
            binary = summary["test_binary_accuracy"]
            yield "binary", f"{binary:.2%} of the outputs (not an accuracy)"
        epoch, best = summary["tested_epoch"], summary["best_epoch"]
        which = f"the last (best by validation: {best})"
        if epoch == best and not self.tests_last_weights():
            which = "the best by validation"
        yield "weights of", f"epoch {epoch}, {which}"
        if summary["stopped_early"]:
            patience = self.config.trainer.early_stopping
            told = f"epoch {summary['epochs']}, as validation's loss had not fallen for {patience}"
            yield "stopped after", told
        on_test = summary["validation"] == "test"
        where = "on the test set" if on_test else "on held-out training images"
        accuracy, loss = summary["val_accuracy"], summary["val_loss"]
        yield "validation", f"accuracy {accuracy:.2%}, loss {loss:.4f}, {where}"
        warm_up = summary["warm_up_seconds"]
        before = f", after {warm_up:.1f} s of warm-up" if warm_up else ""
        seconds = format_seconds(summary["train_seconds"])
        yield "training", f"{seconds} (m:s), {summary['images_per_second']:,.0f} images/s{before}"


def describe_test(summary: dict[str, Any]) -> str:
    """Return how a test went, in one line."""
    return (
        f"{summary['test_accuracy']:.2%}, {summary['test_errors']} errors in "
        f"{summary['test_images']:,} images; loss {summary['test_loss']:.4f}"
    )
