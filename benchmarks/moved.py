"""Whether another commit trains to the same bits, and as fast: for changes that only move code.

    python -m benchmarks.moved 2e99cf2                  all published networks, in fp32 and bf16
    python -m benchmarks.moved 2e99cf2 mnist_cnn vgg16 --rounds 0      some, and only the bits
    python -m benchmarks.moved 2e99cf2 --write          and write results/moved-<device>.md

Both sides run `train.py` as a user does, this checkout's and that of the other commit, for one
short epoch. What they leave is compared for equality: `metrics.csv` (the other's columns, but for
those of time), `predictions.npz` and the weights in `checkpoints/`. Then epochs of either side in
turn give the ratio of their seconds, ours over the other's, the median over the rounds. A precision
that the processor would have to emulate is compared, not timed.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from benchmarks.step import MODELS, ROOT, device_name, file_name_part
from mnist_bench.config.compose import compose
from mnist_bench.config.read import to_config
from mnist_bench.loggers.console import info
from mnist_bench.runs.records import provenance
from mnist_bench.training.device import find_placement

PRECISIONS = ("fp32", "bf16")
TIMES = {"seconds", "images_per_second"}
# Images to train, to validate and to test on: for the bits, and for the seconds.
FEW, MORE = 256, 1500


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """The files of a commit, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "-C", str(ROOT), "archive", commit], check=True, capture_output=True
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)


def train(side: Path, folder: Path, model: str, precision: str, images: int) -> None:
    """One epoch of a checkout's train.py, its run in `folder`."""
    root = to_config(compose([])[0]).data.root
    command = [sys.executable, str(side / "train.py"), f"model={model}", "trainer.epochs=1"]
    command += [f"trainer.precision={precision}", f"data.limit={images}"]
    command += [f"data.root={Path(ROOT, root).resolve()}", f"hydra.run.dir={folder}"]
    subprocess.run(command, cwd=folder.parent, check=True, stdout=subprocess.DEVNULL)


def differences(ours: Path, theirs: Path) -> list[str]:
    """What of two runs is not equal to the last bit."""
    found = []
    rows = [list(csv.DictReader((run / "metrics.csv").open())) for run in (ours, theirs)]
    for mine, other in zip(*rows, strict=True):
        found += [k for k in other.keys() - TIMES if mine.get(k) != other[k]]  # ours may have more
    arrays = [np.load(run / "predictions.npz") for run in (ours, theirs)]
    found += [k for k in arrays[0].files if arrays[0][k].tobytes() != arrays[1][k].tobytes()]
    for name in ("last.pt", "best.pt"):
        weights = [
            torch.load(run / "checkpoints" / name, weights_only=True)["network"]
            for run in (ours, theirs)
        ]
        assert weights[0].keys() == weights[1].keys()
        found += [
            f"{name}: {k}" for k, v in weights[0].items() if not torch.equal(v, weights[1][k])
        ]
    return found


def seconds_of(run: Path) -> float:
    return sum(float(row["seconds"]) for row in csv.DictReader((run / "metrics.csv").open()))


def compare(other: Path, model: str, precision: str, rounds: int) -> tuple[list[str], list[float]]:
    """What differs, and the ratio of the seconds of each round."""
    sides = {"ours": ROOT, "theirs": other}
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: Path(folder, name) for name in sides}
        for name, side in sides.items():
            train(side, runs[name], model, precision, FEW)
        different = differences(runs["ours"], runs["theirs"])
    ratios = []
    native = find_placement(to_config(compose([])[0]).trainer).precision.name
    for turn in range(rounds if precision in ("fp32", native) else 0):
        with tempfile.TemporaryDirectory() as folder:
            order = list(sides.items())[:: 1 if turn % 2 else -1]
            for name, side in order:
                train(side, Path(folder, name), model, precision, MORE)
            ratios.append(seconds_of(Path(folder, "ours")) / seconds_of(Path(folder, "theirs")))
    return different, ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("commit", help="the commit to compare with")
    parser.add_argument("models", nargs="*", default=MODELS, help="networks; all nine by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()

    origin = provenance()
    lines = [
        f"# Moved code beside commit {arguments.commit}, on {device_name()}",
        "",
        f"`python -m benchmarks.moved {arguments.commit} --rounds {arguments.rounds}` on "
        f"{origin['started'][:10]}, commit {origin['git_commit']}, torch "
        f"{origin['versions']['torch']}, Python {origin['versions']['python']}. One epoch of {FEW} "
        f"images for the bits; of {MORE} for the seconds, ours over theirs, median (and range) of "
        "rounds in turn; - where the processor would emulate the precision.",
        "",
        "| network | precision | what differs | seconds, ours / theirs |",
        "| --- | --- | --- | ---: |",
    ]
    info("\n".join(lines))
    with checkout(arguments.commit) as other:
        for model in arguments.models:
            for precision in PRECISIONS:
                different, ratios = compare(other, model, precision, arguments.rounds)
                times = "-"
                if ratios:
                    middle = statistics.median(ratios)
                    times = f"{middle:.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
                what = ", ".join(different) or "nothing"
                lines.append(f"| `{model}` | {precision} | {what} | {times} |")
                info(lines[-1])
    if arguments.write:
        path = ROOT / "benchmarks" / "results" / f"moved-{file_name_part(device_name())}.md"
        path.write_text("\n".join(lines) + "\n")
        info(f"Written to {path}")


if __name__ == "__main__":
    main()
