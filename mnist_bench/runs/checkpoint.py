"""Checkpoints: everything that a resumed run needs to go on as if nothing had happened.

Loadable with `torch.load(path, weights_only=True)`: tensors, numbers, text, lists and dicts only.
"""

import os
import re
import shlex
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from mnist_bench.errors import ConfigError, DataError
from mnist_bench.runs.records import read_summary
from mnist_bench.training.learner import Learner
from mnist_bench.training.loop import Position

Content = dict[str, Any]

LAST = Path("checkpoints", "last.pt")
BEST = Path("checkpoints", "best.pt")
# Counts what changed the meaning of a checkpoint. 2: dense layers read a map pixel by pixel.
FORMAT = 2
# Of an optimizer's settings, those that follow the device.
PLACED = {"lr", "capturable", "foreach", "fused"}


class CheckpointWriter:
    """Writes checkpoints while training goes on, one set after the other.

    A set that could not be written is written with the next one, which is then waited for.

    Raises:
        OSError: from `write`, a second set in a row could not be written; at the end, the last one.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.thread = ThreadPoolExecutor(1, "checkpoints")
        self.writing: Future[None] | None = None
        self.files: dict[Path, Content] = {}  # the last set

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait until everything is written; what ends a training is told before what this does."""
        self.thread.shutdown()
        if self.writing is not None and error is None:
            self.writing.result()

    @property
    def has_failed(self) -> bool:
        """Whether the last set is known not to have been written."""
        return self.writing is not None and self.writing.done() and bool(self.writing.exception())

    def write(self, files: Mapping[Path, Content]) -> None:
        """Copy what the files are to hold, where it is, and begin to write them in this order."""
        failed = self.writing is not None and self.writing.exception() is not None  # waits for it
        missed = self.files if failed else {}
        self.files = missed | copied(dict(files))
        beside = None
        if self.device.type == "cuda":  # the next steps need not wait for the way to the host
            beside = torch.cuda.Stream(self.device)
            beside.wait_stream(torch.cuda.current_stream(self.device))
        self.writing = self.thread.submit(_write_all, self.files, beside)
        if failed:
            self.writing.result()


def _write_all(files: dict[Path, Content], stream: torch.cuda.Stream | None) -> None:
    with torch.cuda.stream(stream):
        files.update(_mapped(files, cache(Tensor.cpu)))  # the device's memory is free again
    for path, content in files.items():
        write_checkpoint(path, content)


def copied(content: Any) -> Any:
    """Return dicts and lists with their tensors copied, each once and where it is."""
    return _mapped(content, cache(lambda tensor: tensor.detach().clone()))


def _mapped(content: Any, change: Callable[[Tensor], Tensor]) -> Any:
    match content:
        case Tensor():
            return change(content)
        case dict():
            return {key: _mapped(value, change) for key, value in content.items()}
        case list() | tuple():
            return type(content)(_mapped(value, change) for value in content)
        case _:
            return content


def write_checkpoint(path: Path, content: Content) -> None:
    """Write beside and rename, so that a run killed at any moment leaves a whole file."""
    path.parent.mkdir(exist_ok=True)
    beside = path.with_suffix(".partial")
    with beside.open("wb") as file:
        torch.save({"format": FORMAT, **content}, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def read_checkpoint(path: Path, mmap: bool = False) -> Content:
    """`mmap` reads tensors when they are used.

    Raises:
        DataError: the file is not a checkpoint of ours, or one of another version.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:
        raise DataError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}): "
            f"it is damaged or not one of ours; start the run again."
        ) from error
    assert isinstance(content, dict)
    if content.get("format") != FORMAT:
        raise DataError(
            f"{path} has format {content.get('format', 1)}, of another version of mnist-bench, and "
            f"this one reads {FORMAT}: use the version that wrote it, or start the run again."
        )
    return content


def epochs_begun(path: Path) -> int:
    """How many epochs the training in a checkpoint has completed or begun."""
    position = read_checkpoint(path, mmap=True)["position"]
    return len(position["history"]) + int(position["step"] > 0)


def read_tested_weights(folder: Path) -> tuple[dict[str, torch.Tensor], str]:
    """The weights that a run was tested with, the last ones if it was not (yet); and of when.

    Raises:
        ConfigError: the folder is not that of a run.
        DataError: a file in it is damaged.
    """
    for needed in (LAST, Path(".hydra", "config.yaml")):
        if not (folder / needed).is_file():
            raise ConfigError(f"{folder} is not the folder of a run: it has no {needed}.")
    last = read_checkpoint(folder / LAST)
    tested = read_summary(folder).get("tested_epoch")
    position = last["position"]
    if tested is not None and tested != len(position["history"]):
        best = read_checkpoint(folder / BEST)
        assert best["epoch"] == tested
        return best["network"], f"as of epoch {tested}"
    weights = last["average"] or last["network"]
    if position["step"]:
        return weights, f"within epoch {position['epoch']}"
    return weights, f"as of epoch {len(position['history'])}"


def resume_command(folder: Path) -> str:
    """The command line that goes on with a run, quoted for Hydra and for the shell."""
    if re.fullmatch(r"[\w./+-]+", str(folder)):
        return f"python train.py resume={folder}"
    return "python train.py " + shlex.quote(f'resume="{folder}"')


def training_state(learner: Learner, position: Position) -> dict[str, Any]:
    """The whole state of a training between two steps."""
    device = learner.placement.device
    return {
        "network": learner.network.state_dict(),
        "average": None if learner.average is None else learner.average.network.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "scaler": learner.scaler.state_dict(),
        "position": position.state_dict(),
        "rng": {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        },
    }


def restore_training(state: dict[str, Any], learner: Learner, position: Position) -> None:
    """Put a learner, a position and the random number generators back to `state`."""
    learner.network.load_state_dict(state["network"])
    if learner.average is not None:
        learner.average.network.load_state_dict(state["average"])
    restore_optimizer(learner.optimizer, state["optimizer"])
    if state["scaler"]:  # empty if the run did not begin in fp16
        learner.scaler.load_state_dict(state["scaler"])
    position.load_state_dict(state["position"])
    torch.set_rng_state(state["rng"]["cpu"])
    if learner.placement.device.type == "cuda" and state["rng"]["cuda"] is not None:
        torch.cuda.set_rng_state(state["rng"]["cuda"], learner.placement.device)


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Its state, but not where it is computed: that is for this run's device to say.

    PyTorch leaves the count of steps where the *saved* settings want it, and a graph that was
    recorded with one on the host would count no further.
    """
    here = [dict(group) for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, here, strict=True):
        # What the saved settings lack came later than they did, and has its default.
        group.update({key: own[key] for key in own if key in PLACED or key not in group})
        on_device = group.get("capturable") or group.get("fused") or isinstance(group["lr"], Tensor)
        for weight in group["params"]:
            for name, value in optimizer.state[weight].items():
                if on_device and isinstance(value, Tensor):
                    optimizer.state[weight][name] = value.to(weight.device)
