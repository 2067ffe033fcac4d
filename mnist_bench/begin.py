"""How a run begins: its images and its network in place, and its records where it stands."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnist_bench.checkpoint import (
    BEST,
    LAST,
    read_checkpoint,
    restore_training,
    write_checkpoint,
)
from mnist_bench.config import TrainConfig
from mnist_bench.data.splits import Splits
from mnist_bench.folders import lay_out_replicas, replica_configs, replica_folders
from mnist_bench.loop import Position, Training
from mnist_bench.placement import Placement, keep_freed_memory
from mnist_bench.prepare import prepare
from mnist_bench.records import PREDICTIONS, SUMMARY, best_record, provenance, write_metrics
from mnist_bench.replicas import build_learners
from mnist_bench.screen import Screen, say
from mnist_bench.step import Learner


@dataclass
class Run:
    """What the acts of a run share. Runs that train side by side share the images, too."""

    config: TrainConfig
    folder: Path
    screen: Screen
    placement: Placement
    splits: Splits
    learner: Learner
    position: Position
    provenance: dict[str, Any]
    replicas: int  # that train side by side, with this one
    # Set when summary.json tells how it went; `error` if it went wrong.
    ended: bool = False
    error: Exception | None = None

    @property
    def training(self) -> Training:
        return Training(self.learner, self.position, self.config.seed)


def begin(config: TrainConfig, folder: Path) -> list[Run]:
    prepared = prepare(config, say)
    placement, splits = prepared.placement, prepared.splits.to(prepared.placement.device)
    keep_freed_memory()
    configs, origin = replica_configs(config), provenance()
    alone = len(configs) == 1
    if not alone and config.resume is None:
        lay_out_replicas(folder, (own.seed for own in configs))
    learners = build_learners(configs, placement, splits)
    folders = replica_folders(folder, config.seed, len(configs))
    runs = []
    for own, place, learner in zip(configs, folders, learners, strict=True):
        position = Position(learner.new_totals())
        # A replica may have been killed, or may have diverged, before its first checkpoint.
        if config.resume is not None and (place / LAST).exists():
            with learner.randomness:
                restore_training(read_checkpoint(place / LAST), learner, position)
        screen = Screen() if alone else Screen(log=place / "train.log")
        runs.append(
            Run(own, place, screen, placement, splits, learner, position, origin, len(configs))
        )
    if config.resume is not None:
        for this in runs:
            repair_records(this)
    return runs


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


def at_the_same_step(runs: Sequence[Run]) -> list[list[Run]]:
    """All together, unless some were killed before, or resumed alone, or have to begin again."""
    groups: dict[tuple[int, int], list[Run]] = {}
    for this in runs:
        groups.setdefault((this.position.epoch, this.position.step), []).append(this)
    return list(groups.values())


def write_best(this: Run) -> None:
    """Keep the weights as they are at the end of the last epoch in the history."""
    epoch = this.position.history[-1].epoch
    content = {"network": this.learner.tested.state_dict(), "epoch": epoch}
    write_checkpoint(this.folder / BEST, content)
