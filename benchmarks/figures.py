"""What curves and figures cost a training, as a share of it.

    python -m benchmarks.figures                    20 rounds of some ten seconds
    python -m benchmarks.figures --rounds 3         a look at it
    python -m benchmarks.figures --write            and write benchmarks/results/figures-<device>.md

Costs of a run are timed, on the quickest of the nine networks, where they weigh most:

- its figures are drawn by a process of the lowest priority while the next run of a sweep trains:
  as many steps with that beside them and without take turns, in an order that changes;
- what is not drawn at the end is waited for: in the worst case all, as long as drawing takes alone;
- they are chosen of its images and answers and handed over;
- TensorBoard is told of its start, of each epoch and of its end.

The share is of the steps of the published recipe (`experiment=cnn5x5_single`).
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.step import ROOT, calibrate, device_name, file_name_part, our_step, time_steps
from benchmarks.sweeps import finish, start
from mnist_bench.config.compose import compose
from mnist_bench.config.read import to_config
from mnist_bench.loggers.artist import ARTIST
from mnist_bench.loggers.base import RunInfo
from mnist_bench.loggers.console import info
from mnist_bench.loggers.tensorboard import TensorBoard
from mnist_bench.runs.figures import choose_pictures, read_history
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.load import load
from mnist_bench.runs.prepare import Prepared, prepare
from mnist_bench.runs.records import provenance, read_summary
from mnist_bench.training.device import set_up_torch

EXPERIMENT = "experiment=cnn5x5_single"
TURN_SECONDS = 4.0


@dataclass(frozen=True)
class Costs:
    """Of a run, in seconds but for `beside`: of each round, steps beside drawing over others."""

    beside: list[float]
    drawing: float
    handing_over: float
    logging: float
    steps: float  # all of the recipe


def train_one(folder: Path) -> RunFolder:
    """Train a run whose figures are to be drawn."""
    one = (EXPERIMENT, "trainer.epochs=1", "trainer.figures=false", "logger=none")
    finish(start(folder, *one, "hydra.run.dir=run"))
    return RunFolder(folder / "run")


def measure(rounds: int) -> Costs:
    config = to_config(compose([EXPERIMENT])[0])
    prepared = prepare(config, info)
    placement = prepared.placement
    set_up_torch(config.seed, placement.precision, config.trainer.deterministic)
    with tempfile.TemporaryDirectory() as scratch:
        run = train_one(Path(scratch))
        logging = time_logging(run, prepared, config.trainer.epochs)
        step = our_step(config, placement, prepared.splits.to(placement.device))
        count = calibrate(step, placement.synchronize, TURN_SECONDS)

        def turn() -> float:
            return time_steps(step, count, placement.synchronize)

        trained = load(run.path)
        summary, history = read_summary(run.path), read_history(run)
        weights = trained.network.state_dict()
        beside, alone, handing, usual = [], [], [], []
        for number in range(rounds + 1):
            if number % 2:
                usual.append(turn())
            begun = time.perf_counter()
            pictures = choose_pictures(run, summary, history, prepared.splits, weights)
            ARTIST.draw(pictures, run.figures, run.tensorboard)
            handing.append(time.perf_counter() - begun)
            if not number:  # it waits for imports
                wait_until_drawn()
                continue
            with_it = turn()
            wait_until_drawn()
            if not number % 2:
                usual.append(turn())
            beside.append(with_it / usual[-1])
            begun = time.perf_counter()
            ARTIST.draw(pictures, run.figures, run.tensorboard)
            wait_until_drawn()
            alone.append(time.perf_counter() - begun)
            info(f"round {number}: steps {beside[-1]:.3f}, drawn alone in {alone[-1]:.3f} s")
        ARTIST.wait()
    per_epoch = -(-len(prepared.splits.train) // config.trainer.batch_size)
    whole = statistics.median(usual) * per_epoch * config.trainer.epochs
    median = statistics.median
    return Costs(beside, median(alone), median(handing), logging, whole)


def wait_until_drawn() -> None:
    while ARTIST.waiting():
        time.sleep(0.005)


def time_logging(run: RunFolder, prepared: Prepared, epochs: int) -> float:
    """Seconds in which TensorBoard is told of a run of so many epochs."""
    summary, (record,) = read_summary(run.path), read_history(run)
    logger = TensorBoard()
    begun = time.perf_counter()
    logger.start(
        RunInfo(
            *(run.path, run.path.name, summary["config"], summary["overrides"], {}, "layers"),
            splits=prepared.splits,
            history=[],
            is_resumed=False,
        )
    )
    for epoch in range(1, epochs + 1):
        logger.epoch({**record, "epoch": epoch})
    logger.end(summary)
    logger.close()
    return time.perf_counter() - begun


def as_lines(costs: Costs, command: str, device: str) -> list[str]:
    ratios = sorted(costs.beside)
    low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
    total = costs.drawing + costs.handing_over + costs.logging
    origin = provenance()
    return [
        f"# What curves and figures cost, on {device}",
        "",
        f"`{command}` on {origin['started'][:10]}, commit {origin['git_commit']}, "
        f"torch {origin['versions']['torch']}. What is timed is said in `benchmarks/figures.py`.",
        "",
        "| of a run | seconds |",
        "| --- | ---: |",
        f"| drawing its figures, alone | {costs.drawing:.3f} |",
        f"| choosing them, and handing them over | {costs.handing_over:.3f} |",
        f"| telling TensorBoard | {costs.logging:.3f} |",
        f"| all steps of `{EXPERIMENT}` | {costs.steps:.1f} |",
        "",
        f"Together at most {total:.3f} s, {total / costs.steps:.2%} of the steps. These take "
        f"{statistics.median(ratios):.3f} times as long while figures wait to be drawn beside them "
        f"(median of {len(ratios)}; half are {low:.3f} to {high:.3f}).",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    command = f"python -m benchmarks.figures --rounds {arguments.rounds}"
    device = device_name()
    lines = as_lines(measure(arguments.rounds), command, device)
    info("\n".join(["", *lines]))
    if arguments.write:
        path = ROOT / "benchmarks" / "results" / f"figures-{file_name_part(device)}.md"
        path.write_text("\n".join(lines) + "\n")
        info(f"Written to {path}")


if __name__ == "__main__":
    main()
