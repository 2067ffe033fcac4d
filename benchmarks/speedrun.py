"""The time to 99 % beside the record of 2021: `python -m benchmarks.speedrun [--seeds 20]`.

    python -m benchmarks.speedrun --write                 and write a table

The clock runs from uint8 images in the device's memory to final weights: statistics of the pixels,
first weights, every step. It stands still while weights are tested, on the 10,000 test images.
`experiment=speedrun` and the study's network train in turns, a seed each; before the first seed
either has trained once outside the record, which is where CUDA compiles and records.

The study is "Training a NN to 99% accuracy on MNIST in 0.76 seconds" (2021), written anew from its
description in plain PyTorch: fp32, images in the order of the file. Its maps are channels_last,
which it does not say: on a CPU that takes six tenths of the time.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.step import ROOT, file_name_part
from mnist_bench.config.compose import compose
from mnist_bench.config.read import to_config
from mnist_bench.config.schema import TrainConfig
from mnist_bench.data.images import Images
from mnist_bench.data.splits import epoch_order, split_images
from mnist_bench.errors import ConfigError
from mnist_bench.loggers.console import info
from mnist_bench.runs.prepare import read_images
from mnist_bench.runs.records import provenance
from mnist_bench.training.device import Placement, find_placement, keep_freed_memory
from mnist_bench.training.graphs import Stepper
from mnist_bench.training.learner import Learner, batch_sizes, build_learner, count_steps
from mnist_bench.training.optimizers.state import restore_state

# Trains with a seed; returns what tells the logits of uint8 images (N, H, W).
Contender = Callable[[int], Callable[[Tensor], Tensor]]


@dataclass(frozen=True)
class Record:
    seconds: list[float]
    accuracies: list[float]  # on the test images

    def __str__(self) -> str:
        return (
            f"{statistics.median(self.seconds):.3f} s, "
            f"{statistics.mean(self.accuracies):.3%} of the test images"
        )


class Ours:
    """`experiment=speedrun`; every seed begins anew in the memory that a CUDA graph reads."""

    def __init__(self, config: TrainConfig, images: Images, placement: Placement):
        self.config, self.images, self.placement = config, images, placement
        self.stepper: Stepper | None = None

    def __call__(self, seed: int) -> Callable[[Tensor], Tensor]:
        splits = split_images(self.images, self.config.data)
        self.config.seed = seed
        learner = build_learner(self.config, self.placement, splits)
        size = self.config.trainer.batch_size
        if self.stepper is None:
            self.stepper = Stepper(learner, splits.train, learner.new_totals())
            self.stepper.warm_up(batch_sizes(len(splits.train), size))
        trained = self.stepper.learner
        if trained is not learner:
            begin_anew(trained, learner)
        order = epoch_order(len(splits.train), seed, epoch=1).to(self.placement.device)
        for batch_N in order.split(size):
            self.stepper.step(batch_N)

        def logits(images_NHW: Tensor) -> Tensor:
            with self.placement.autocast():
                logits_NK: Tensor = trained.tested.eval()(trained.scaling(images_NHW.unsqueeze(1)))
            return logits_NK

        return logits


def begin_anew(learner: Learner, fresh: Learner) -> None:
    """Put a learner where a fresh one is, in its own memory."""
    learner.network.load_state_dict(fresh.network.state_dict())
    learner.network.train()
    if learner.average is not None:
        learner.average.begin_anew(fresh.network)
    learner.steps = 0
    restore_state(learner.optimizer, {})


class Study:
    """Its network and recipe: one epoch, batch 256, Adam with a one-cycle rate."""

    def __init__(self, images: Images):
        self.images, self.labels = images.train_images, images.train_labels

    def __call__(self, seed: int) -> Callable[[Tensor], Tensor]:
        torch.manual_seed(seed)
        network = build_study_network().to(self.images.device)
        network = network.to(memory_format=torch.channels_last)
        steps = count_steps(len(self.images), 256)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01, betas=(0.7, 0.9))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=0.01, total_steps=steps, cycle_momentum=False
        )
        inputs = normalise(self.images)
        for images, labels in zip(inputs.split(256), self.labels.split(256), strict=True):
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()
            schedule.step()
        return lambda images: network.eval()(normalise(images))


def build_study_network() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 24, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(24, 32, 3), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(800, 256), nn.ReLU(), nn.Linear(256, 10)),
    )


def normalise(images_NHW: Tensor) -> Tensor:
    """With the well-known statistics of MNIST."""
    return (images_NHW.unsqueeze(1).float() / 255 - 0.1307) / 0.3081


def take_turns(
    contenders: dict[str, Contender], images: Images, seeds: int, placement: Placement
) -> dict[str, Record]:
    records = {name: Record([], []) for name in contenders}
    for seed in range(-1, seeds):  # -1 to warm up
        for name, train in contenders.items():
            placement.synchronize()
            start = time.perf_counter()
            network = train(max(seed, 0))
            placement.synchronize()
            seconds = time.perf_counter() - start
            if seed < 0:
                info(f"{name}: {seconds:.2f} s to warm up")
                continue
            records[name].seconds.append(seconds)
            records[name].accuracies.append(test(network, images))
    return records


@torch.inference_mode()
def test(network: Callable[[Tensor], Tensor], images: Images) -> float:
    logits_NK = torch.cat([network(part) for part in images.test_images.split(1000)])
    return (logits_NK.argmax(1) == images.test_labels).double().mean().item()


def as_markdown(records: dict[str, Record], placement: Placement, command: str) -> str:
    versions = provenance()
    ours, study = records.values()
    ratio = statistics.median(a / b for a, b in zip(ours.seconds, study.seconds, strict=True))
    lines = [
        f"# The time to 99 % on {placement.device_name}",
        "",
        f"`{command}` on {versions['started'][:10]}, commit {versions['git_commit']}, "
        f"torch {versions['versions']['torch']}. {len(ours.seconds)} seeds, in turns; "
        f"{placement.precision.name} for ours and fp32 for the study. The median of the seeds' "
        f"ratios of time, ours / study, is {ratio:.3f}.",
        "",
        "| | median, s | from | to | test accuracy, mean | standard deviation | lowest | highest |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, record in records.items():
        seconds, accuracies = record.seconds, record.accuracies
        lines.append(
            f"| {name} | {statistics.median(seconds):.3f} | {min(seconds):.3f} "
            f"| {max(seconds):.3f} | {statistics.mean(accuracies):.3%} "
            f"| {statistics.stdev(accuracies):.3%} | {min(accuracies):.2%} "
            f"| {max(accuracies):.2%} |"
        )
    return "\n".join(lines) + "\n"


def measure(seeds: int, overrides: list[str]) -> tuple[dict[str, Record], Placement]:
    """Train both with so many seeds, in turns."""
    config = to_config(compose(["experiment=speedrun", *overrides])[0])
    if seeds < 2 or config.trainer.epochs != 1 or config.data.name != "mnist":
        raise ConfigError("It takes two seeds or more, trainer.epochs=1 and data=mnist.")
    placement = find_placement(config.trainer)
    keep_freed_memory()
    images = read_images(config.data, info).to(placement.device)
    contenders: dict[str, Contender] = {
        "`experiment=speedrun`": Ours(config, images, placement),
        "study of 2021": Study(images),
    }
    return take_turns(contenders, images, seeds, placement), placement


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("overrides", nargs="*", help="of experiment=speedrun")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--write", type=Path, nargs="?", const=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    try:
        records, placement = measure(arguments.seeds, arguments.overrides)
    except ConfigError as error:
        parser.error(str(error))
    for name, record in records.items():
        info(f"{name}: {record}")
    if arguments.write:
        command = " ".join(["python -m benchmarks.speedrun", *arguments.overrides])
        path = arguments.write / f"speedrun-{file_name_part(placement.device_name)}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_markdown(records, placement, command))
        info(f"Written to {path}")


if __name__ == "__main__":
    main()
