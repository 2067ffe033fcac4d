"""Running `python train.py` as a user does: in a process of its own, in a folder of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
COMMAND = [sys.executable, str(REPOSITORY / "train.py")]
# Enough to go through every part of a run in seconds.
QUICK = ("data.limit=1000", "trainer.epochs=1", "trainer.precision=fp32", "trainer.gpus=0")


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
