"""All that waits for a GPU, in one command: `python -m benchmarks.gpu [FOLDER] [--minutes 9]`.

It is made of parts, and leaves out what would not end in time: the same command does that next
time, also on another machine with the same FOLDER (benchmarks/results/gpu by default). There
`parts.csv` tells which parts are done, with device and commit, and each has left its files:

    tests       the tests that need CUDA                                       tests.txt
    step        steps of all nine networks beside plain PyTorch, in bf16,
                fp16 and fp32, with CUDA graphs and without                    step-<device>.md
    replicas    1 to 64 seeds side by side                                     replicas-<device>.md
    speedrun    the time to 99 % beside the study of 2021                      speedrun-<device>.md
    MODEL       ten seeds of the accuracy record's simple3x3, 5x5, 7x7; and
                what they are together, when all are there                     accuracy-<device>.md
    time-NAME   a published training as trainer.precision=auto does it         time-NAME.json
    NAME        five seeds of a published training, as evidence for the
                reproduction (vgg16: five in bf16, and one in fp32)            reproduction/

The runs themselves are in FOLDER/runs, which need not be kept.
"""

import argparse
import csv
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import accuracy
from benchmarks.step import ROOT, device_name
from mnist_bench.records import provenance
from mnist_bench.reproduction.published import PUBLISHED
from mnist_bench.screen import complain, say

MNIST_BENCH = ["-c", "from mnist_bench.command import main; main()"]
SEEDS = 5


@dataclass(frozen=True)
class Part:
    name: str
    # How long it is expected to take on an H100; it is not begun with less time left.
    seconds: int
    # Arguments of Python, one process after the other.
    commands: Sequence[Sequence[str]]
    # A run's folder that an attempt which was cut off may have left, and that is begun again.
    run: Path | None = None
    # A file for what the last of them prints.
    output: str | None = None


def parts(folder: Path) -> list[Part]:
    write = ("--write", str(folder))
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_graphs.py"]
    records = ("-m", "benchmarks.accuracy", str(folder / "runs" / "accuracy"))
    precisions = ("--precision", "bf16", "fp16", "fp32")
    return [
        Part("tests", 120, [tests], output="tests.txt"),
        Part("step", 300, [["-m", "benchmarks.step", *precisions, *write]]),
        Part("replicas", 120, [["-m", "benchmarks.replicas", *write]]),
        Part("speedrun", 60, [["-m", "benchmarks.speedrun", *write]]),
        *(timing(folder, name) for name in PUBLISHED),
        *(evidence(folder, name) for name in PUBLISHED),
        *(Part(name, 480, [[*records, "--models", name, *write]]) for name in accuracy.MODELS),
    ]


def timing(folder: Path, name: str) -> Part:
    run = folder / "runs" / f"time-{name}"
    train = [
        *("train.py", f"experiment={name}", "trainer.precision=auto", "trainer.gpus=1"),
        f'hydra.run.dir="{run}"',
    ]
    copy = f"import shutil; shutil.copy(r'{run}/summary.json', r'{folder}/time-{name}.json')"
    seconds = 90 if name == "vgg16" else 40
    return Part(f"time-{name}", seconds, [train, ["-c", copy]], run)


def evidence(folder: Path, name: str) -> Part:
    runs = folder / "runs" / "reproduction"
    report = ["reproduce", "--no-train", "--runs", str(runs), "--results", str(folder)]
    if name == "vgg16":  # too long in fp32, and too large to have five at once
        train = ["reproduce", name, "--gpus", "1", "--runs", str(runs), "--results", str(folder)]
        bf16 = [*MNIST_BENCH, *train, "--seeds", str(SEEDS), "--precision", "bf16"]
        return Part(name, 480, [bf16, [*MNIST_BENCH, *train, "--seeds", "1"]])
    side_by_side = [
        *("train.py", f"experiment={name}", "trainer.gpus=1", f"trainer.replicas={SEEDS}"),
        f'hydra.run.dir="{runs / name}"',
    ]
    return Part(name, 120, [side_by_side, [*MNIST_BENCH, *report]], runs / name)


def do(part: Part, folder: Path) -> bool:
    """Run a part's commands; whether they all succeeded."""
    if part.run is not None:
        shutil.rmtree(part.run, ignore_errors=True)
    for command in part.commands:
        kept = subprocess.PIPE if part.output else None
        ended = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=kept, text=True)
        if part.output:
            (folder / part.output).write_text(ended.stdout)
        if ended.returncode != 0:
            complain(f"{part.name} has failed: python {' '.join(command)}")
            return False
    return True


def read_done(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def note(path: Path, part: str, seconds: float) -> None:
    """Add a row to parts.csv."""
    origin = provenance()
    row = {
        "part": part,
        "seconds": f"{seconds:.1f}",
        "device": device_name(),
        "torch": origin["versions"]["torch"],
        "commit": origin["git_commit"],
        "date": origin["started"],
    }
    first = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if first:
            writer.writeheader()
        writer.writerow(row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "benchmarks/results/gpu")
    parser.add_argument("--minutes", type=float, default=9, help="not to be exceeded by far")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("PyTorch finds no CUDA device here, and all of this waits for one.")
    deadline = time.monotonic() + 60 * arguments.minutes
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "parts.csv"
    waiting = failed = 0
    done = {row["part"] for row in read_done(path)}
    for part in parts(folder):
        if part.name in done:
            continue
        if time.monotonic() + part.seconds > deadline:
            waiting += 1
            continue
        start = time.monotonic()
        if do(part, folder):
            note(path, part.name, time.monotonic() - start)
        else:
            failed += 1
    say(f"Parts: {len(read_done(path))} done, {waiting} waiting for another call, {failed} failed.")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
