"""What K seeds side by side cost beside one alone: `python -m benchmarks.replicas [NETWORK...]`.

    python -m benchmarks.replicas mnist_cnn --replicas 1 16 --write     and write a table

Steps of `trainer.replicas=K` as `train.py` takes them, each network with a batch of its own. Rounds
of K and of one alternate; times are medians over the rounds.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.step import ROOT, ROUND_SECONDS, calibrate, device_name, file_name_part, time_steps
from mnist_bench.compose import compose
from mnist_bench.config import to_config
from mnist_bench.folders import replica_configs
from mnist_bench.placement import Placement, find_placement, keep_freed_memory
from mnist_bench.prepare import prepare
from mnist_bench.records import provenance
from mnist_bench.replicas import Replicas, build_learners
from mnist_bench.screen import say

NETWORKS = ["mnist_cnn", "cnn5x5_single", "wide5x7_bn"]
REPLICAS = [1, 2, 4, 8, 16, 32, 64]
ROUNDS = 5


@dataclass(frozen=True)
class Measurement:
    network: str
    replicas: int
    ms_per_step: float  # of all of them
    ms_alone: float  # of one, in the same minute

    @property
    def share(self) -> float:
        """Of the time that as many steps of one alone take."""
        return self.ms_per_step / (self.replicas * self.ms_alone)


def measure(network: str, precision: str, counts: list[int]) -> list[Measurement]:
    """Each count beside one alone, and freed before the next."""
    placement = find_placement(to_config(compose([])[0]).trainer)
    return [measure_count(network, precision, count, placement) for count in counts]


def measure_count(network: str, precision: str, count: int, placement: Placement) -> Measurement:
    wait, seconds = placement.synchronize, ROUND_SECONDS[placement.device.type]
    contenders = [build_step(network, precision, n) for n in (count, 1)]
    steps = [calibrate(step, wait, seconds) for step in contenders]
    times: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for which, step in enumerate(contenders):
            times[which].append(time_steps(step, steps[which], wait))
    together, alone = (statistics.median(values) * 1e3 for values in times)
    return Measurement(network, count, together, alone)


def build_step(network: str, precision: str, count: int) -> Callable[[], None]:
    """A function that takes a step of all."""
    overrides = [f"model={network}", f"trainer.precision={precision}", f"trainer.replicas={count}"]
    config = to_config(compose(overrides)[0])
    prepared = prepare(config, say)
    placement, splits = prepared.placement, prepared.splits.to(prepared.placement.device)
    keep_freed_memory()
    learners = build_learners(replica_configs(config), placement, splits)
    totals = [learner.new_totals() for learner in learners]
    size = config.trainer.batch_size
    replicas = Replicas(learners, size)
    order = torch.randperm(len(splits.train), device=placement.device)
    batches_RN = torch.stack([order.roll(size * i)[:size] for i in range(count)])
    return lambda: replicas.step(splits.train, batches_RN, totals)


def as_markdown(measurements: list[Measurement], precision: str) -> str:
    versions = provenance()
    trainer = to_config(compose([f"trainer.precision={precision}"])[0]).trainer
    lines = [
        f"# Seeds side by side on {device_name()}",
        "",
        f"`python -m benchmarks.replicas` on {versions['started'][:10]}, commit "
        f"{versions['git_commit']}, torch {versions['versions']['torch']}. Batch 128, Adam, "
        f"{find_placement(trainer).precision.name}; medians of {ROUNDS} rounds in turns.",
        "",
        "| network | replicas | ms per step of all | share of the time of as many alone |",
        "| --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| `{m.network}` | {m.replicas} | {m.ms_per_step:.2f} | {m.share:.3f} |"
        for m in measurements
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--replicas", type=int, nargs="*", default=REPLICAS)
    parser.add_argument("--write", type=Path, nargs="?", const=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    measurements = []
    for network in arguments.networks:
        for m in measure(network, arguments.precision, arguments.replicas):
            measurements.append(m)
            say(f"{m.network} x {m.replicas}: {m.ms_per_step:.2f} ms, {m.share:.3f} of alone")
    if arguments.write:
        path = arguments.write / f"replicas-{file_name_part(device_name())}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_markdown(measurements, arguments.precision))
        say(f"Written to {path}")


if __name__ == "__main__":
    main()
