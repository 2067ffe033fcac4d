"""Whether another commit trains to the same bits, and as fast: for changes that only move code.

    python -m benchmarks.moved 2e99cf2                  all published networks, in fp32 and bf16
    python -m benchmarks.moved 2e99cf2 mnist_cnn vgg16 --rounds 0      some, and only the bits
    python -m benchmarks.moved 2e99cf2 --write          and write results/moved-<device>.md

Both sides run `train.py` as a user does, this checkout's and that of the other commit, for one
short epoch. What they leave is compared for equality: `metrics.csv` (the other's columns, but for
those of time), `predictions.npz` and the weights in `checkpoints/`. Then a process of each side
stands ready and they take training steps in turn, some tenths of a second each, so that what else
the machine does meets both: the ratio is ours over the other's, the median over the rounds, with
its 95 % interval (of a median, by the ranks of the sorted ratios). A precision that the processor
would have to emulate is compared, not timed.
"""

import argparse
import csv
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
# Images to train, to validate and to test on.
IMAGES = 256
ROUND_SECONDS = 0.3
# What a process of either side does: the steps of its own benchmarks.step, as many as it is told.
# Both commits have these names there, wherever in the package they come from.
STEPS = """
import sys
from benchmarks import step as of
config = of.to_config(of.compose(sys.argv[1:])[0])
prepared = of.prepare(config, lambda line: None)
take = of.build_steps(config, prepared)["ours"]
of.time_steps(take, 6, prepared.placement.synchronize)
for line in sys.stdin:
    take()
    print(of.time_steps(take, int(line), prepared.placement.synchronize), flush=True)
"""


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """The files of a commit, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "-C", str(ROOT), "archive", commit], check=True, capture_output=True
        )
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)


def overrides(model: str, precision: str) -> list[str]:
    root = Path(ROOT, to_config(compose([])[0]).data.root).resolve()
    return [f"model={model}", f"trainer.precision={precision}", f"data.root={root}"]


def train(side: Path, folder: Path, settings: list[str]) -> None:
    """One epoch of a checkout's train.py, its run in `folder`."""
    command = [sys.executable, str(side / "train.py"), "trainer.epochs=1", *settings]
    command += [f"data.limit={IMAGES}", f"hydra.run.dir={folder}"]
    subprocess.run(command, cwd=folder.parent, check=True, stdout=subprocess.DEVNULL)


def differences(ours: Path, theirs: Path) -> list[str]:
    """What of two runs is not equal to the last bit; one that was pruned has no predictions."""
    found = []
    rows = [list(csv.DictReader((run / "metrics.csv").open())) for run in (ours, theirs)]
    for mine, other in zip(*rows, strict=True):
        found += [k for k in other.keys() - TIMES if mine.get(k) != other[k]]  # ours may have more
    predictions = [run / "predictions.npz" for run in (ours, theirs)]
    if any(file.exists() for file in predictions):
        arrays = list(map(np.load, predictions))
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


class Steps:
    """A process that takes steps of a checkout when it is asked to."""

    def __init__(self, side: Path, settings: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", STEPS, *settings],
            cwd=side,
            env={**os.environ, "PYTHONPATH": str(side)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def seconds(self, count: int) -> float:
        """Per step."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def compare_bits(other: Path, settings: list[str]) -> list[str]:
    """What differs."""
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "ours"), Path(folder, "theirs")
        train(ROOT, ours, settings)
        train(other, theirs, settings)
        return differences(ours, theirs)


def compare_seconds(other: Path, settings: list[str], rounds: int) -> list[float]:
    """The ratio of the seconds of each round."""
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(Steps(side, settings)) for side in (ROOT, other))
        count = max(1, round(ROUND_SECONDS / max(ours.seconds(2), theirs.seconds(2))))
        ratios = []
        for turn in range(rounds):
            first, second = (ours, theirs) if turn % 2 else (theirs, ours)
            times = {first: first.seconds(count), second: second.seconds(count)}
            ratios.append(times[ours] / times[theirs])
        return ratios


def as_text(ratios: list[float]) -> str:
    """The median, and its 95 % interval: the ranks that a binomial of 1/2 leaves out."""
    if not ratios:
        return "-"
    ordered, n = sorted(ratios), len(ratios)
    cut = max(0, math.floor(n / 2 - 0.98 * math.sqrt(n)))
    return f"{statistics.median(ratios):.3f} ({ordered[cut]:.3f} to {ordered[-1 - cut]:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("commit", help="the commit to compare with")
    parser.add_argument("models", nargs="*", default=MODELS, help="networks; all nine by default")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()

    origin = provenance()
    native = find_placement(to_config(compose([])[0]).trainer).precision.name
    lines = [
        f"# Moved code beside commit {arguments.commit}, on {device_name()}",
        "",
        f"`python -m benchmarks.moved {arguments.commit} --rounds {arguments.rounds}` on "
        f"{origin['started'][:10]}, commit {origin['git_commit']}, torch "
        f"{origin['versions']['torch']}, Python {origin['versions']['python']}. For the bits one "
        f"epoch of {IMAGES} images; for the seconds training steps in turn, ours over theirs, the "
        "median of the rounds (and its 95 % interval); - where the processor would emulate the "
        "precision.",
        "",
        "| network | precision | what differs | step, ours / theirs |",
        "| --- | --- | --- | ---: |",
    ]
    info("\n".join(lines))
    with checkout(arguments.commit) as other:
        for model in arguments.models:
            for precision in PRECISIONS:
                settings = overrides(model, precision)
                what = ", ".join(compare_bits(other, settings)) or "nothing"
                timed = precision in ("fp32", native)
                ratios = compare_seconds(other, settings, arguments.rounds) if timed else []
                lines.append(f"| `{model}` | {precision} | {what} | {as_text(ratios)} |")
                info(lines[-1])
    if arguments.write:
        path = ROOT / "benchmarks" / "results" / f"moved-{file_name_part(device_name())}.md"
        path.write_text("\n".join(lines) + "\n")
        info(f"Written to {path}")


if __name__ == "__main__":
    main()
