"""What curves and figures cost a training: with them against without, in turns.

    python -m benchmarks.figures                    6 pairs of sweeps of 3 runs
    python -m benchmarks.figures --pairs 2 --quick  a look at it, on few images
    python -m benchmarks.figures --write            and write benchmarks/results/figures-<device>.md

Of a sweep, the figures of a run are drawn while the next one trains. The network is the quickest of
the nine, and the training short: what is beside the steps weighs most there. Each pair is the same
sweep with `logger=tensorboard trainer.figures=true` and with `logger=none trainer.figures=false`,
one after the other, in an order that changes from pair to pair.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.step import ROOT, device_name, file_name_part
from benchmarks.sweeps import finish, start, summaries
from mnist_bench.loggers.console import info
from mnist_bench.runs.records import provenance

NETWORK = ("model=cnn5x5_single", "trainer.epochs=2")
QUICK = ("model=cnn5x5_single", "trainer.epochs=2", "data.limit=2000")
SEEDS = 3
WITH = ("logger=tensorboard", "trainer.figures=true")
WITHOUT = ("logger=none", "trainer.figures=false")


@dataclass(frozen=True)
class Seconds:
    """Of a sweep's second run and those after it, beside which figures are drawn."""

    steps: float  # of their training steps
    runs: float  # from the end of the first run to the end of the last
    command: float  # of the whole command, what it waits for at its end included


def measure(settings: Sequence[str]) -> Seconds:
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        names = ("-m", "sweep.name=sweep", f"seed=range({SEEDS})")
        finish(start(Path(folder), *names, *settings))
        whole = time.perf_counter() - begun
        paths = summaries(Path(folder, "outputs", "sweeps", "sweep"))
        ends = [path.stat().st_mtime for path in paths]
        steps = [json.loads(path.read_text())["train_seconds"] for path in paths]
    return Seconds(sum(steps[1:]), ends[-1] - ends[0], whole)


def told(name: str, ratios: Sequence[float]) -> str:
    low, high = min(ratios), max(ratios)
    return f"| {name} | {statistics.median(ratios):.3f} | {low:.3f} to {high:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    settings = QUICK if arguments.quick else NETWORK
    ratios: dict[str, list[float]] = {"steps": [], "runs": [], "command": []}
    extra = []
    for pair in range(arguments.pairs):
        found = {}
        for own in (WITH, WITHOUT) if pair % 2 else (WITHOUT, WITH):
            found[own] = measure([*settings, *own])
        for name, values in ratios.items():
            values.append(getattr(found[WITH], name) / getattr(found[WITHOUT], name))
        extra.append((found[WITH].runs - found[WITHOUT].runs) / (SEEDS - 1))
        info(f"pair {pair + 1}: {', '.join(f'{n} {v[-1]:.3f}' for n, v in ratios.items())}")
    origin = provenance()
    lines = [
        f"# What curves and figures cost, on {device_name()}",
        "",
        f"`python -m benchmarks.figures --pairs {arguments.pairs}"
        f"{' --quick' * arguments.quick}` on {origin['started'][:10]}, commit "
        f"{origin['git_commit']}, torch {origin['versions']['torch']}: sweeps of {SEEDS} runs of "
        f"`{' '.join(settings)}`, with over without.",
        "",
        "| seconds of | median ratio | range |",
        "| --- | ---: | ---: |",
        told("training steps, of the runs beside which figures are drawn", ratios["steps"]),
        told("the same runs, all that they do", ratios["runs"]),
        told("the whole command, with the wait at its end", ratios["command"]),
        "",
        f"A run took {statistics.median(extra):.3f} s more (median; {min(extra):.3f} to "
        f"{max(extra):.3f}).",
    ]
    info("\n".join(["", *lines]))
    if arguments.write:
        path = ROOT / "benchmarks" / "results" / f"figures-{file_name_part(device_name())}.md"
        path.write_text("\n".join(lines) + "\n")
        info(f"Written to {path}")


if __name__ == "__main__":
    main()
