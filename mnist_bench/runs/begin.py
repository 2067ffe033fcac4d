"""How a run begins: its images and its network in place, and its records where it stands."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_bench.config.schema import TrainConfig
from mnist_bench.data.splits import Splits
from mnist_bench.loggers.console import Screen, say
from mnist_bench.runs.checkpoint import (
    BEST,
    LAST,
    Content,
    copied,
    read_checkpoint,
    restore_training,
    training_state,
    write_checkpoint,
)
from mnist_bench.runs.prepare import prepare
from mnist_bench.runs.records import PREDICTIONS, SUMMARY, best_record, provenance, write_metrics
from mnist_bench.training.device import Placement, keep_freed_memory
from mnist_bench.training.learner import Learner, build_learner
from mnist_bench.training.loop import Position, Training


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
    # The weights of the best epoch, copied where they were computed; None if only best.pt has them.
    best: Content | None = None
    best_is_saved: bool = True

    @property
    def training(self) -> Training:
        return Training(self.learner, self.position, self.config.seed)

    def keep_best(self) -> None:
        """Copy the weights of the epoch that has just ended, which is the best one so far."""
        self.best, self.best_is_saved = copied(best_weights(self)), False

    def checkpoints(self, whole: bool = False) -> dict[Path, Content]:
        """Return what has to be written, in this order, for the run to go on from here.

        Killed in between, it goes on all the same: the first has what the second may lack. Best
        weights that were returned before are left out, unless it is to be the `whole`.
        """
        last = training_state(self.learner, self.position)
        files = {self.folder / LAST: last}
        if self.best is not None and (whole or not self.best_is_saved):
            if not self.stands_at_its_best():
                last["best"] = self.best
            files[self.folder / BEST] = self.best
            self.best_is_saved = True
        return files

    def stands_at_its_best(self) -> bool:
        """Return whether the network is as it was at the end of its best epoch."""
        history = self.position.history
        return self.position.step == 0 and bool(history) and best_record(history) is history[-1]


def begin(config: TrainConfig, folder: Path) -> Run:
    prepared = prepare(config, say)
    placement, splits = prepared.placement, prepared.splits.to(prepared.placement.device)
    keep_freed_memory()
    learner = build_learner(config, placement, splits)
    position = Position(learner.new_totals())
    run = Run(config, folder, Screen(), placement, splits, learner, position, provenance())
    if config.resume is not None:
        last = read_checkpoint(folder / LAST)
        restore_training(last, learner, position)
        repair_records(run, last.get("best"))
    return run


def repair_records(run: Run, best: Content | None) -> None:
    """Bring the files of a resumed run to where its checkpoint is.

    It may have been killed right after that was written, or had ended and is given more epochs.
    `best` are the weights that the checkpoint has beside those of its moment, if any.
    """
    for ended in (SUMMARY, PREDICTIONS):
        (run.folder / ended).unlink(missing_ok=True)
    write_metrics(run.folder, run.position.history)
    if run.stands_at_its_best():
        best = best_weights(run)
    if best is not None:
        write_checkpoint(run.folder / BEST, best)


def best_weights(run: Run) -> Content:
    """Return the weights as they are at the end of the last epoch in the history."""
    epoch = run.position.history[-1].epoch
    return {"network": run.learner.tested.state_dict(), "epoch": epoch}
