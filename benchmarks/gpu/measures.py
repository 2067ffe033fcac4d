"""How a row is measured: a function for each kind of part, from a key to figures."""

import csv
import re
import shutil
import statistics
import subprocess
import sys
import time
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks import accuracy as record_of_accuracy
from benchmarks import speedrun as record_of_speed
from benchmarks.gpu.parts import Settings
from benchmarks.gpu.rows import Figures, Key
from benchmarks.step import ROOT, calibrate, our_step, plain_steps, time_steps
from mnist_bench.config.compose import compose
from mnist_bench.config.read import to_config
from mnist_bench.config.schema import TrainConfig
from mnist_bench.kernels.layers import Conv2d
from mnist_bench.launch.jobs import train_command
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.prepare import Prepared, prepare
from mnist_bench.runs.records import read_summary
from mnist_bench.training.device import keep_freed_memory

Step = Callable[[], None]

# What a variant of a step changes, beside `graph`: the step as `train.py` takes it, not compiled.
VARIANTS = {
    "without graph": "trainer.cuda_graphs=false",
    "compiled": "trainer.compile=true",
    "optimizer not fused": "trainer.fused_optimizer=false",
    "deterministic": "trainer.deterministic=true",
}
SAVE_EPOCHS = 6
OURS = (ROOT / "mnist_bench", ROOT / "benchmarks")


def step(folder: Path, settings: Settings, key: Key) -> Figures:
    """Time a variant of a step in turns with the step that it is a variant of."""
    *which, variant = key.values()
    graph = build_graph(*which)
    steps, built, words = {"graph": graph.step}, graph.seconds, graph.warnings
    if variant != "graph":
        steps[variant], built, words = noting(lambda: build_variant(variant, *which))
    counts = {
        name: calibrate(one, graph.synchronize, settings.round_seconds)
        for name, one in steps.items()
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(settings.rounds):
        for name, one in steps.items():
            times[name].append(time_steps(one, counts[name], graph.synchronize))
    ms = {name: statistics.median(seconds) * 1e3 for name, seconds in times.items()}
    figures: Figures = {"ms": ms[variant], "seconds_before": built}
    if variant != "graph":
        figures |= {"graph_ms": ms["graph"], "graph_seconds_before": graph.seconds}
    figures |= {"warnings": words} if words else {}
    return figures | {"batch_size": graph.batch_size, "optimizer": graph.optimizer}


def noting(build: Callable[[], Step]) -> tuple[Step, float, list[str]]:
    """What is built, the seconds that it took, and what this project warned of meanwhile.

    A step that goes on without its graph, or an optimizer without its kernel, says so.
    """
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        step = build()
    seconds = time.perf_counter() - start
    words = []
    for warning in caught:
        print(warning.message, flush=True)
        if any(Path(warning.filename).is_relative_to(folder) for folder in OURS):
            words.append(str(warning.message).splitlines()[0])
    return step, seconds, list(dict.fromkeys(words))


@dataclass(frozen=True)
class Graph:
    """The step that the variants of one network are held against."""

    step: Step
    synchronize: Step
    seconds: float  # to build it
    warnings: list[str]
    batch_size: int
    optimizer: str


@lru_cache(maxsize=1)
def build_graph(network: str, recipe: str, precision: str) -> Graph:
    """Build it once for all variants of a network."""
    torch._dynamo.reset()  # which compiles one function for a few networks only
    keep_freed_memory()
    prepared, config = prepare_step(network, recipe, precision)
    placement, splits = prepared.placement, prepared.splits.to(prepared.placement.device)
    step, seconds, words = noting(lambda: our_step(config, placement, splits))
    batch_size, optimizer = config.trainer.batch_size, config.optimizer.name
    return Graph(step, placement.synchronize, seconds, words, batch_size, optimizer)


@cache
def prepare_step(
    network: str, recipe: str, precision: str, *overrides: str
) -> tuple[Prepared, TrainConfig]:
    which = f"experiment={network}" if recipe == "own" else f"model={network}"
    settings = [f"trainer.precision={precision}", "trainer.gpus=1", "trainer.compile=false"]
    config = to_config(compose([which, *settings, *overrides])[0])
    return prepare(config, print), config


def build_variant(variant: str, *of: str) -> Step:
    prepared, config = prepare_step(*of, *([VARIANTS[variant]] if variant in VARIANTS else []))
    placement, splits = prepared.placement, prepared.splits.to(prepared.placement.device)
    if variant == "plain PyTorch":
        return plain_steps(config, placement, splits)["plain"]
    if variant != "without centre tap":
        return our_step(config, placement, splits)
    Conv2d.centre_tap = False
    try:
        return our_step(config, placement, splits)
    finally:
        Conv2d.centre_tap = True


def tests(folder: Path, settings: Settings, key: Key) -> Figures:
    """Run the tests of one file that need CUDA."""
    report = folder / "logs" / f"{Path(key['file']).stem}.xml"
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "needs_cuda", key["file"]]
    code = run_python(*command, f"--junitxml={report}").returncode
    if code not in (0, 1):  # 1: tests have failed
        raise RuntimeError(f"pytest ended with code {code}")
    return read_junit(report)


def read_junit(path: Path) -> Figures:
    (suite,) = ElementTree.parse(path).getroot().iter("testsuite")
    failed = [case for case in suite.iter("testcase") if {"failure", "error"} & _tags(case)]
    skipped = [case for case in suite.iter("testcase") if "skipped" in _tags(case)]
    return {
        "passed": len(list(suite.iter("testcase"))) - len(failed) - len(skipped),
        "failed": len(failed),
        "skipped": len(skipped),
        "failures": [case.get("name") for case in failed],
    }


def _tags(case: ElementTree.Element) -> set[str]:
    return {child.tag for child in case}


def training(folder: Path, settings: Settings, key: Key) -> Figures:
    """Train a published recipe where `mnist-bench reproduce --runs FOLDER/reproduction` looks."""
    name = key["experiment"]
    run = folder / "reproduction" / name / f"seed={key['seed']}--precision=bf16"
    of_run = [f"experiment={name}", f"seed={key['seed']}", "trainer.precision=bf16"]
    return train(run, [*of_run, *settings.overrides])


def save(folder: Path, settings: Settings, key: Key) -> Figures:
    """Train vgg16, of 119 MB, for a few epochs."""
    every = f"trainer.save_every={key['save_every']}"
    length = f"trainer.epochs={SAVE_EPOCHS}"
    run = folder / "runs" / f"save_every={key['save_every']}"
    of_run = ["experiment=vgg16", "trainer.precision=bf16", every, length]
    return train(run, [*of_run, *settings.overrides])


def accuracy(folder: Path, settings: Settings, key: Key) -> Figures:
    """Train a network of the accuracy record."""
    network, seed = key["network"], key["seed"]
    run = record_of_accuracy.run_folders(folder / "accuracy", network)[seed]
    of_run = ["experiment=accuracy", f"model={network}", f"seed={seed}"]
    return train(run, [*of_run, *settings.overrides])


def train(run: Path, arguments: Sequence[str]) -> Figures:
    """Train from the beginning, whatever an attempt that was cut off has left."""
    shutil.rmtree(run, ignore_errors=True)
    start = time.perf_counter()
    own = ("trainer.gpus=1", "trainer.figures=false", f'hydra.run.dir="{run}"')
    command = train_command(*arguments, *own)
    subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=True)
    seconds = time.perf_counter() - start
    more = [one for one in arguments if not one.startswith(("experiment=", "model=", "seed="))]
    return {"wall_seconds": seconds, **read_run(run), "settings": more}


def read_run(run: Path) -> Figures:
    """What a run's files say of it; seconds of epochs are those of their training steps."""
    summary = read_summary(run)
    names = ["epochs", "train_seconds", "warm_up_seconds", "compiled", "precision"]
    for of in ("test", "val", "train"):
        names += [f"{of}_accuracy", f"{of}_binary_accuracy"]
    figures: Figures = {name: summary[name] for name in names if name in summary}
    with RunFolder(run).metrics.open(newline="") as file:
        first, *later = [float(epoch["seconds"]) for epoch in csv.DictReader(file)]
    whole = epoch_seconds((run / "train.log").read_text())
    return figures | {
        "first_epoch_seconds": first,
        "later_epoch_seconds": statistics.median(later) if later else None,
        # With validation, and whatever saving holds up.
        "whole_epoch_seconds": statistics.median(whole) if whole else None,
    }


EPOCH_LINE = re.compile(r"^\[([\d-]+ [\d:]+),(\d{3})\] epoch +\d+/", re.MULTILINE)


def epoch_seconds(log: str) -> list[float]:
    """From the end of each epoch to that of the next, by the times in train.log."""
    ends = [
        datetime.fromisoformat(f"{when}.{milliseconds}")
        for when, milliseconds in EPOCH_LINE.findall(log)
    ]
    return [(b - a).total_seconds() for a, b in pairwise(ends)]


def speedrun(folder: Path, settings: Settings, key: Key) -> Figures:
    records, _ = record_of_speed.measure(key["seeds"], ["trainer.gpus=1"])
    ours, study = (summarise(one.seconds, one.accuracies) for one in records.values())
    return {"ours": ours, "study": study}


def summarise(seconds: Sequence[float], accuracies: Sequence[float]) -> dict[str, Any]:
    return {
        "median_seconds": statistics.median(seconds),
        "lowest_seconds": min(seconds),
        "highest_seconds": max(seconds),
        "mean_accuracy": statistics.mean(accuracies),
        "accuracy_deviation": statistics.stdev(accuracies),
        "lowest_accuracy": min(accuracies),
        "highest_accuracy": max(accuracies),
        "seconds": list(seconds),
        "accuracies": list(accuracies),
    }


def run_python(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run Python in the project's folder; the output goes where this process's does."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL)
