"""How a run stands, as its folder tells it; without PyTorch, as there may be thousands to read."""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from mnist_bench.errors import DataError, explain_file_error
from mnist_bench.runs.folder import RunFolder

# As RunFolder has it, whose many paths take longer to make than this file takes to read; that is
# read by thousands, and so without pathlib, which takes as long again.
SUMMARY = "summary.json"


def read_summary(folder: Path, digest: str | None = None) -> dict[str, Any]:
    """Return what summary.json holds; nothing if the run has not ended.

    Raises:
        DataError: the file is not a JSON object, or is of a run with another digest.
    """
    path = os.path.join(folder, SUMMARY)
    try:
        with open(path, "rb") as file:
            content = json.loads(file.read())
        if not isinstance(content, dict):
            raise ValueError("it is not an object")
    except FileNotFoundError:
        return {}
    except OSError as error:
        error.filename = path  # which an error of reading does not name
        raise
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): move {folder} away.") from error
    if digest is not None and content.get("digest", digest) != digest:
        raise DataError(
            f"{folder} holds another run, of other settings: move it away, or give the sweep "
            f"another name."
        )
    return content


class State(Enum):
    """How a run stands; the values are what tables say."""

    completed = "completed"
    running = "running"
    interrupted = "stopped"  # it goes on from its checkpoint
    failed = "failed"
    waiting = "waiting"
    cut_off = "cut off"  # killed before anything was saved: it begins again
    pruned = "pruned"  # a trial of a search that others had overtaken
    imported = "imported"  # from Keras, tested and not trained on


@dataclass(frozen=True)
class Standing:
    """A run as its folder tells it; `summary` is empty until it has ended."""

    name: str
    state: State
    summary: Mapping[str, Any]
    epochs: int = 0  # done so far, of one that has not ended well
    damage: str = ""  # why it cannot be told, nor gone on with


def val_loss(found: Standing) -> float:
    """Return the validation loss of a completed run, which chooses the best; NaN as infinite."""
    loss = float(found.summary["val_loss"])
    return math.inf if math.isnan(loss) else loss


def best_of(standings: Iterable[Standing]) -> Standing | None:
    """Return the completed run of lowest validation loss; the test set does not choose."""
    return min((s for s in standings if s.state is State.completed), key=val_loss, default=None)


# Of a completed run, what its summary.json is not whole without; and what others are, if there.
NEEDED: dict[str, type] = {
    **dict.fromkeys(("val_loss", "train_accuracy", "val_accuracy", "test_accuracy"), float),
    **{"train_seconds": float, "seed": int, "device": str},
}
KINDS: dict[str, Any] = {
    **dict.fromkeys(("epochs", "parameters", "test_errors"), int),
    **dict.fromkeys(("train_loss", "test_loss", "images_per_second"), float),
    **{"overrides": list, "config": dict, "versions": dict, "git_commit": str | None},
}


def standing(path: Path, digest: str | None = None) -> Standing:
    """Return how the run in a folder stands, which need not be there.

    One that is damaged, or holds another run than that of `digest`, has failed, and hides no other.
    """
    try:
        summary = read_summary(path, digest)
        if summary.get("status") != "completed":
            return _unfinished(RunFolder(path), summary)
        for key, kind in NEEDED.items():
            if not isinstance(summary.get(key), kind):
                raise DataError(f"{path / SUMMARY} is damaged (it has no {key}): move {path} away.")
        for key, kind in KINDS.items():
            if key in summary and not isinstance(summary[key], kind):
                told = f"its {key} is {summary[key]!r}"
                raise DataError(f"{path / SUMMARY} is damaged ({told}): move {path} away.")
        return Standing(path.name, State.completed, summary)
    except DataError as error:
        return Standing(path.name, State.failed, {}, damage=str(error))
    except OSError as error:
        return Standing(path.name, State.failed, {}, damage=f"{explain_file_error(error)}.")


def _unfinished(folder: RunFolder, summary: dict[str, Any]) -> Standing:
    status = summary.get("status")
    if folder.is_in_use():
        state = State.running
    elif status in ("failed", "pruned", "imported"):
        state = State[status]
    elif folder.can_go_on:
        state = State.interrupted
    else:
        state = State.cut_off if folder.config.is_file() else State.waiting
    epochs = 0
    if state in (State.running, State.interrupted) and folder.metrics.is_file():
        epochs = len(folder.metrics.read_text().splitlines()) - 1
    return Standing(folder.path.name, state, summary, epochs)
