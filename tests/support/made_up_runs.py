"""Folders of runs that were never trained: summary.json, and what TensorBoard is given of them."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mnist_bench.config.walk import flatten
from mnist_bench.loggers.base import RunInfo
from mnist_bench.loggers.tensorboard import TensorBoard
from tests.conftest import compose_config

RECORD: dict[str, Any] = {
    **{"epoch": 1, "train_loss": 0.5, "train_accuracy": 0.8, "val_loss": 0.4, "val_accuracy": 0.9},
    **{"learning_rate": 1e-3, "seconds": 1.0, "images_per_second": 100.0},
}


def write_events(
    folder: Path,
    settings: Mapping[str, Any],
    choices: Mapping[str, str | None],
    epochs: int = 1,
    accuracy: float = 0.9,
    overrides: tuple[str, ...] = (),
) -> None:
    """Tell the TensorBoard logger of a run."""
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    (folder / ".hydra" / "config.yaml").write_text("seed: 0\n")
    logger = TensorBoard()
    logger.start(
        RunInfo(
            *(folder, folder.name, settings, overrides, choices, "a table of layers"),
            splits=SimpleNamespace(),  # type: ignore[arg-type]
            history=[],
            is_resumed=False,
        )
    )
    for epoch in range(1, epochs + 1):
        logger.epoch({**RECORD, "epoch": epoch})
    logger.end({"tested_epoch": epochs, "test_loss": 0.3, "test_accuracy": accuracy})
    logger.close()


def write_run(folder: Path, *overrides: str, accuracy: float = 0.9, events: bool = True) -> Path:
    """Make the folder of a completed run of a command line."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = flatten(compose_config(*overrides))
    given = dict(line.split("=", 1) for line in overrides)
    summary = {
        **{"status": "completed", "config": settings, "experiment": given.get("experiment")},
        **dict.fromkeys(("train_accuracy", "val_accuracy", "test_accuracy"), accuracy),
        **{"val_loss": 0.4, "train_seconds": 1.0, "seed": settings["seed"], "device": "CPU"},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    if events:
        groups = {"model": "mnist_cnn", "optimizer": "adam", "experiment": None}
        choices = {**groups, **{k: v for k, v in given.items() if "." not in k}}
        write_events(folder, settings, choices, accuracy=accuracy, overrides=overrides)
    return folder
