"""Checkpoints: everything that a resumed run needs to go on as if nothing had happened.

Loadable with `torch.load(path, weights_only=True)`: tensors, numbers, text, lists and dicts only.
"""

import os
import re
import shlex
from pathlib import Path
from typing import Any

import torch

from mnist_bench.errors import DataError
from mnist_bench.loop import Position
from mnist_bench.step import Learner

LAST = Path("checkpoints", "last.pt")
BEST = Path("checkpoints", "best.pt")


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write beside and rename, so that a run killed at any moment leaves a whole file."""
    path.parent.mkdir(exist_ok=True)
    beside = path.with_suffix(".partial")
    with beside.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Raises DataError if the file is not a checkpoint of ours."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}): "
            f"it is damaged or not one of ours; start the run again."
        ) from error
    assert isinstance(content, dict)
    return content


def resume_command(folder: Path) -> str:
    """The command line that goes on with a run, quoted for Hydra and for the shell."""
    if re.fullmatch(r"[\w./+=-]+", str(folder)):
        return f"python train.py resume={folder}"
    return "python train.py " + shlex.quote(f'resume="{folder}"')


def training_state(learner: Learner, position: Position) -> dict[str, Any]:
    """The whole state of a training between two steps."""
    return {
        "network": learner.network.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "scheduler": learner.scheduler.state_dict(),
        "scaler": learner.scaler.state_dict(),
        "learning_rate": learner.last_learning_rate,
        "position": position.state_dict(),
        "rng": {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        },
    }


def restore_training(state: dict[str, Any], learner: Learner, position: Position) -> None:
    """Put a learner, a position and the random number generators back to `state`."""
    learner.network.load_state_dict(state["network"])
    learner.optimizer.load_state_dict(state["optimizer"])
    learner.scheduler.load_state_dict(state["scheduler"])
    learner.scaler.load_state_dict(state["scaler"])
    learner.last_learning_rate = state["learning_rate"]
    position.load_state_dict(state["position"])
    torch.set_rng_state(state["rng"]["cpu"])
    if torch.cuda.is_available() and state["rng"]["cuda"]:
        torch.cuda.set_rng_state_all(state["rng"]["cuda"])
