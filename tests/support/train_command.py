"""Running a training as a user does: in a process of its own, in a folder of its own."""

import json
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import torch

from mnist_bench.launch.jobs import train_command

REPOSITORY = Path(__file__).parents[2]
COMMAND = train_command()
# Enough to go through every part of a run in seconds.
QUICK = ("data.limit=1000", "trainer.epochs=1", "trainer.precision=fp32", "trainer.gpus=0")

FIVE_EPOCHS = ("data.limit=3000", "trainer.epochs=5", "trainer.precision=fp32", "trainer.gpus=0")


def environment(data_root: Path, **variables: str) -> dict[str, str]:
    return {**os.environ, "MNIST_BENCH_DATA": str(data_root), "COLUMNS": "100", **variables}


def run_train(
    *arguments: str, cwd: Path, data_root: Path, limit: float = 300, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(data_root, **variables),
        capture_output=True,
        text=True,
        timeout=limit,
    )


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
