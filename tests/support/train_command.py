"""Running a training as a user does: in a process of its own, in a folder of its own."""

import atexit
import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mnist_bench.launch.jobs import PROGRAM, train_command
from mnist_bench.loggers.artist import ARTIST

REPOSITORY = Path(__file__).parents[2]
COMMAND = train_command()
# mnist_cnn with fewer kernels, as many as compiled ones compute.
WITH_FIGURES = ("model.channels=[32,32]", "trainer.precision=fp32", "trainer.gpus=0")
# Figures take seconds.
FEWER = (*WITH_FIGURES, "trainer.figures=false")
# Enough to go through every part of a run in a second.
QUICK = (*FEWER, "data.limit=500", "trainer.epochs=1")
TINY = (
    *("data.limit=200", "trainer.epochs=1", "trainer.gpus=0", "trainer.precision=fp32"),
    *("model.channels=[4,4]", "model.dense=[8]", "logger=none", "trainer.figures=false"),
)
# 95 % in some seconds.
KNOWS_DIGITS = (
    *("model=cnn5x5_single", "data.limit=5000", "trainer.epochs=3", "logger=none"),
    *("trainer.precision=fp32", "trainer.gpus=0", "trainer.figures=false"),
)
FIVE_EPOCHS = (*FEWER, "data.limit=1000", "trainer.epochs=5")


def environment(data_root: Path, **variables: str) -> dict[str, str]:
    return {**os.environ, "MNIST_BENCH_DATA": str(data_root), "COLUMNS": "100", **variables}


# Processes that begin where Hydra, PyTorch and what its optimizers ask for are imported already,
# which takes 6 s.
FORKING = multiprocessing.get_context("forkserver")
FORKING.set_forkserver_preload(
    ["mnist_bench.launch.main", "mnist_bench.runs.session", "torch._inductor", __name__]
)


def run_train(
    *arguments: str,
    cwd: Path,
    data_root: Path,
    limit: float = 300,
    verb: str = "train",
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run `mnist-bench train ARGUMENTS` to its end; `variables` are of its environment."""
    environ = environment(data_root, **variables)
    command = [*COMMAND[:-1], verb, *arguments]
    if variables:  # which may be read when something is imported
        return subprocess.run(
            command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=limit
        )
    with started(*arguments, cwd=cwd, environ=environ, verb=verb) as training:
        return training.end(limit)


@dataclass
class Started:
    """A training under way."""

    command: list[str]
    process: Any
    out: Path
    err: Path

    def wait_until(self, condition: Callable[[], bool], limit: float = 60) -> None:
        end = time.monotonic() + limit
        while not condition():
            assert self.process.is_alive() and time.monotonic() < end, self.out.read_text()
            time.sleep(0.005)

    def send(self, signal_number: int) -> None:
        os.kill(self.process.pid, signal_number)

    def end(self, limit: float = 60) -> subprocess.CompletedProcess[str]:
        self.process.join(limit)
        if self.process.is_alive():
            outputs = self.out.read_bytes(), self.err.read_bytes()
            raise subprocess.TimeoutExpired(self.command, limit, *outputs)
        code = self.process.exitcode
        return subprocess.CompletedProcess(
            self.command, code, self.out.read_text(), self.err.read_text()
        )


@contextmanager
def started(
    *arguments: str,
    cwd: Path,
    environ: dict[str, str],
    before: Callable[[], object] | None = None,
    verb: str = "train",
) -> Iterator[Started]:
    """Start `mnist-bench train ARGUMENTS`, which first calls `before`; kill it at the end."""
    told = (verb, *arguments)
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "stdout"), Path(folder, "stderr")
        process = FORKING.Process(target=_train, args=(told, cwd, environ, out, err, before))
        out.touch()
        err.touch()
        process.start()
        try:
            yield Started([*COMMAND[:-1], *told], process, out, err)
        finally:
            process.kill()
            process.join()


def _train(
    arguments: tuple[str, ...],
    cwd: Path,
    environ: dict[str, str],
    out: Path,
    err: Path,
    before: Callable[[], object] | None,
) -> None:
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(cwd)
    for file, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.argv = [str(PROGRAM), *arguments]
    if "trainer.figures=true" not in arguments:  # asked for by tests of them: they take seconds
        ARTIST.start = ARTIST.draw = lambda *what: None  # type: ignore[method-assign]
    if before is not None:
        before()
    try:
        runpy.run_path(str(PROGRAM), run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which `multiprocessing` leaves out


def read_summary(folder):
    return json.loads((folder / "summary.json").read_text())


def start_and_stop(signal_number, cwd, mnist_root, *overrides):
    """Start the same run, and send the signal in epoch 3: early, as it may be far faster than 2."""
    process = subprocess.Popen(
        [*COMMAND, *FIVE_EPOCHS, *overrides, "hydra.run.dir=run"],
        cwd=cwd,
        env=environment(mnist_root, PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    ends = []
    for line in process.stdout:
        if line.startswith("epoch "):
            ends.append(time.monotonic())
        if len(ends) == 2:
            break
    time.sleep((ends[1] - ends[0]) / 10)
    process.send_signal(signal_number)
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def same_training(one, other):
    """Equal to the bit: final weights, test logits, and all figures of all epochs but the times."""
    weights = [
        torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["network"]
        for folder in (one, other)
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    logits = [np.load(folder / "predictions.npz")["logits"] for folder in (one, other)]
    assert np.array_equal(*logits)
    figures = [
        [line.split(",")[:6] for line in (folder / "metrics.csv").read_text().splitlines()]
        for folder in (one, other)
    ]
    assert figures[0] == figures[1] and len(figures[0]) == 6
    return True
