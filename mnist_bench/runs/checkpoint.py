"""Checkpoints: everything that a resumed run needs to go on as if nothing had happened.

Loadable with `torch.load(path, weights_only=True)`: tensors, numbers, text, lists and dicts only. A
checkpoint is a zip file, as PyTorch writes it, whose comment is the sha256 of all before it:
`torch.load` does not notice a bit that has changed.
"""

import hashlib
import io
import re
import shlex
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
import yaml
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from mnist_bench.config.help import begin_command
from mnist_bench.config.identity import digest, identity
from mnist_bench.config.parts import config_dirs
from mnist_bench.config.schema import TrainConfig
from mnist_bench.config.walk import flatten
from mnist_bench.errors import DataError, explain_file_error, naming
from mnist_bench.loggers.console import print_error
from mnist_bench.runs.failures import is_out_of_memory
from mnist_bench.runs.folder import RunFolder, atomic_write
from mnist_bench.training.learner import Learner
from mnist_bench.training.loop import Position

Content = dict[str, Any]

# Counts what changed the meaning of a checkpoint. 2: dense layers read a map pixel by pixel. 3: it
# knows what configuration it belongs to, how pixels were scaled, and whether it is whole.
FORMAT = 3
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
        self.seconds = 0.0  # that writing a set took, the longest

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait until everything is written; what ends a run is told before what this does."""
        self.thread.shutdown()
        if self.writing is None:
            return
        if error is None:
            self.writing.result()
        elif not isinstance(error, Exception) and (failure := self.writing.exception()):  # stopped
            told = explain_file_error(failure) if isinstance(failure, OSError) else str(failure)
            print_error(f"{told}; a run that goes on begins from what was saved before.")

    @property
    def has_failed(self) -> bool:
        """Whether the last set is known not to have been written."""
        return self.writing is not None and self.writing.done() and bool(self.writing.exception())

    def wait(self) -> None:
        """Wait until nothing is being written, and forget how that went: all is written anew."""
        if self.writing is not None:
            wait([self.writing])
            self.writing = None

    def write(self, files: Mapping[Path, Content]) -> None:
        """Copy what the files are to hold, where it is, and begin to write them in this order."""
        failed = self.writing is not None and self.writing.exception() is not None  # waits for it
        missed = self.files if failed else {}
        # First, as the new ones may rely on them.
        missed = {path: content for path, content in missed.items() if path not in files}
        self.files = missed | copied(dict(files))
        beside = None
        if self.device.type == "cuda":  # the next steps need not wait for the way to the host
            beside = torch.cuda.Stream(self.device)
            beside.wait_stream(torch.cuda.current_stream(self.device))
        self.writing = self.thread.submit(self._write_all, self.files, beside)
        if failed:
            self.writing.result()

    def _write_all(self, files: dict[Path, Content], stream: torch.cuda.Stream | None) -> None:
        begun = time.perf_counter()
        with torch.cuda.stream(stream):
            files.update(_mapped(files, cache(Tensor.cpu)))  # the device's memory is free again
        for path, content in files.items():
            write_checkpoint(path, content)
        self.seconds = max(self.seconds, time.perf_counter() - begun)


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
    """Write a checkpoint whole or not at all; the `last.pt` that was there stays as `previous.pt`.

    Raises:
        OSError: it cannot be written; what was there is still there.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **content}, buffer)
    keep = path.with_name("previous.pt") if path.name == "last.pt" else None
    path.parent.mkdir(exist_ok=True)
    with atomic_write(path, "wb", keep) as file:
        file.write(_sealed(buffer.getvalue()))


def _sealed(archive: bytes) -> bytes:
    """Return a zip file without a comment with its digest as the comment."""
    comment = hashlib.sha256(archive).hexdigest().encode()
    return archive[: -COMMENT_SIZE.size] + COMMENT_SIZE.pack(len(comment)) + comment


def _is_sealed(archive: bytes) -> bool:
    """Return whether it ends in a comment, as all do since format 3."""
    return archive[-END_OF_ARCHIVE_SIZE:][:4] != END_OF_ARCHIVE


def _is_whole(sealed: bytes) -> bool:
    """Return whether every bit is as it was written."""
    return _sealed(sealed[: -COMMENT_SIZE.size - 64] + COMMENT_SIZE.pack(0)) == sealed


# How a zip file ends that has no comment: a record of this size, and in it the comment's size last.
END_OF_ARCHIVE, END_OF_ARCHIVE_SIZE = b"PK\x05\x06", 22
COMMENT_SIZE = struct.Struct("<H")


def read_checkpoint(path: Path) -> Content:
    """Return what a checkpoint holds, of an earlier format too.

    Raises:
        OSError: the file cannot be read.
        DataError: the file is damaged, not a checkpoint of ours, or one of another version.
    """
    with naming(path):
        archive = path.read_bytes()
    try:
        content = torch.load(io.BytesIO(archive), map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise ValueError("it holds no dict")
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise DataError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}): "
            f"it is damaged or not one of ours; {begin_again(path)}"
        ) from error
    found = content.get("format", 1)
    if (_is_sealed(archive) or found == FORMAT) and not _is_whole(archive):
        raise DataError(f"{path} is damaged: it is not as it was written; {begin_again(path)}")
    while found in MIGRATIONS:
        content, found = MIGRATIONS[found](content), found + 1
    if found != FORMAT or not isinstance(content, dict):
        raise DataError(
            f"{path} has format {found}, of another version of mnist-bench, and "
            f"this one reads {FORMAT}: use the version that wrote it, or {begin_again(path)}"
        )
    return content


def _from_2(content: Content) -> Content:
    """What a configuration computes was not saved, nor how pixels were scaled."""
    for record in content.get("position", {}).get("history", ()):
        for key in [key for key, value in record.items() if value is None]:
            del record[key]
    return {**content, "identity": {}, "inputs": None}


# From each format that can be read to the next.
MIGRATIONS: dict[int, Callable[[Content], Content]] = {2: _from_2}


def read_last(folder: RunFolder, announce: Callable[[str], None]) -> Content:
    """Return the last checkpoint of a run; if it is damaged, the one before, and say so.

    Raises:
        OSError: neither can be read.
        DataError: neither is whole, or what there is is of another kind.
    """
    try:
        content, path = read_checkpoint(folder.last), folder.last
    except (DataError, OSError) as error:
        if not folder.previous.is_file():
            raise
        content, path = read_checkpoint(folder.previous), folder.previous
        reason = explain_file_error(error) if isinstance(error, OSError) else str(error)
        reason = reason.partition("; ")[0]
        announce(f"{reason}. Its predecessor is whole and is used: {folder.previous}")
    _refuse_another_kind(content, path, ("network", "optimizer", "position"))
    return content


def read_best(folder: RunFolder, epoch: int, trained: int | None = None) -> Content:
    """Return the best weights of a run, which have to be those of `epoch`.

    Where a run goes on after `trained` epochs, from a checkpoint before its last, they may be of a
    later one, which comes again.

    Raises:
        OSError: they cannot be read.
        DataError: the file is damaged, or holds something else.
    """
    best = read_checkpoint(folder.best)
    _refuse_another_kind(best, folder.best, ("network", "epoch"))
    comes_again = trained is not None and best["epoch"] > trained
    if best["epoch"] != epoch and not comes_again:
        raise DataError(
            f"{folder.best} has the weights of epoch {best['epoch']}, and those of epoch {epoch} "
            f"are needed: it is of another run; put back the right one, or start again."
        )
    return best


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Tell in a sentence that the content of a checkpoint is not of the network that takes it.

    Raises:
        DataError: names the file, and the first thing that does not fit.
    """
    try:
        yield
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        first = " ".join(str(error).split()).partition(".")[0]
        raise DataError(
            f"{path} does not fit the network of this run ({type(error).__name__}: {first}): it "
            f"is of another run; put back the right one, or start again."
        ) from error


def _refuse_another_kind(content: Content, path: Path, keys: Sequence[str]) -> None:
    if missing := [key for key in keys if key not in content]:
        raise DataError(
            f"{path} has no {missing[0]}: it is another kind of file, under this name; put back "
            f"the right one, or start the run again."
        )


def epochs_begun(last: Content) -> int:
    """Return how many epochs the training in a checkpoint has completed or begun."""
    position = last["position"]
    return len(position["history"]) + int(position["step"] > 0)


def refuse_another_configuration(
    content: Content, path: Path, config: TrainConfig, folder: RunFolder
) -> None:
    """Refuse a checkpoint that was trained with other settings than the configuration beside it.

    A setting that one of them has not got came with a later version, and is passed over.

    Raises:
        DataError: names the first setting that differs.
    """
    now, then = identity(flatten(config)), content["identity"]
    if not then or digest(now) == digest(then):
        return
    for key in sorted(now.keys() & then.keys()):
        if now[key] != then[key]:
            raise DataError(
                f"{path} was trained with {key}={then[key]}, and {folder.config} says "
                f"{now[key]}: they are of two runs; put back the right one of them, or "
                f"{begin_again(path)}"
            )


def resume_command(folder: Path, config_dirs: Sequence[str] = ()) -> str:
    """Return the command line that goes on with a run, quoted for Hydra and for the shell.

    `config_dirs` are the folders whose classes this run was allowed to use.
    """
    run = f"resume={folder}"
    if not re.fullmatch(r"[\w./+-]+", str(folder)):
        run = shlex.quote(f'resume="{folder}"')
    return " ".join([*begin_command(config_dirs), run])


def begin_again(path: Path) -> str:
    """Return what to do about a checkpoint that no run can go on from, as a sentence ends.

    What the run was begun with is in its folder, if that has not been lost as well.
    """
    try:
        begun = OmegaConf.load(RunFolder(path.parent.parent).hydra).hydra
        lines: Any = OmegaConf.to_container(begun.overrides.task, resolve=False)
        dirs, of_a_sweep = config_dirs(begun.runtime), begun.mode == RunMode.MULTIRUN.name
    except (OSError, OmegaConfBaseException, yaml.YAMLError, AttributeError, TypeError, ValueError):
        return "start the run again."
    if of_a_sweep:
        return f"remove {path.parent}, and give the command of the sweep again."
    command = " ".join([*begin_command(dirs), *map(shlex.quote, lines)])
    return f"start the run again: {command}"


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
