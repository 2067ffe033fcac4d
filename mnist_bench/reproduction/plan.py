"""Which runs a reproduction consists of, where each has its folder, and how far it is there."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

from mnist_bench.config.compose import compose
from mnist_bench.config.identity import Role, role
from mnist_bench.config.read import read_saved, to_config
from mnist_bench.config.walk import flatten
from mnist_bench.errors import BenchError, ConfigError
from mnist_bench.reproduction.published import EXPERIMENTS, PUBLISHED
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.records import read_summary

FOLDER_NAME = re.compile(r"seed=(0|[1-9]\d*)(?:--precision=(bf16))?")
PRECISIONS = ("fp32", "bf16")

# How fast a run computes, up to rounding.
NOT_OF_THE_RECIPE = {
    "trainer.compile",
    "trainer.figures",
    "trainer.fused_optimizer",
    "trainer.kernels",
}

Recipe = dict[str, Any]


@dataclass(frozen=True)
class PlannedRun:
    experiment: str
    seed: int
    precision: str
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.experiment}/{self.folder.name}"


class State(Enum):
    absent = auto()
    leftover = auto()  # a folder with nothing that could be resumed
    resumable = auto()
    completed = auto()


def plan(names: Sequence[str], seeds: int, runs: Path, precision: str) -> list[PlannedRun]:
    """Seed 0 of all, then seed 1 of all ...; without names, of everything that was published.

    Raises:
        ConfigError: an experiment, a precision or a number of seeds that there is not.
    """
    for name in names:
        if name not in EXPERIMENTS:
            raise ConfigError(
                f"{name} is not an experiment: choose among {', '.join(EXPERIMENTS)}."
            )
    if seeds < 1:
        raise ConfigError(f"{seeds} seeds make no reproduction: give a whole number of at least 1.")
    if precision not in PRECISIONS:
        raise ConfigError(
            f"{precision} is not a precision of a reproduction: choose {' or '.join(PRECISIONS)}."
        )
    suffix = "" if precision == "fp32" else f"--precision={precision}"
    return [
        PlannedRun(name, seed, precision, runs / name / f"seed={seed}{suffix}")
        for seed in range(seeds)
        for name in dict.fromkeys(names or PUBLISHED)
    ]


def find_runs(runs: Path) -> Iterator[PlannedRun]:
    """Every folder that a plan could have named, whatever is in it."""
    for experiment in EXPERIMENTS:
        for folder in sorted((runs / experiment).glob("seed=*")):
            if match := FOLDER_NAME.fullmatch(folder.name):
                yield PlannedRun(experiment, int(match[1]), match[2] or "fp32", folder)


def state_of(folder: Path) -> State:
    if read_summary(folder).get("status") == "completed":
        return State.completed
    if RunFolder(folder).last.is_file():
        return State.resumable
    return State.leftover if folder.exists() else State.absent


def recipe(experiment: str, overrides: Sequence[str]) -> Recipe:
    """Every setting of an experiment by its key; `overrides` are the tests', who need it small."""
    settings = _compose_settings([f"experiment={experiment}", *overrides])
    return {
        key: value
        for key, value in settings.items()
        if (role(key) is not Role.ignored or key == "model.name") and key not in NOT_OF_THE_RECIPE
    }


def departure(run: PlannedRun, published: Recipe) -> str | None:
    """In what a run's folder is not a run of the published recipe, if in anything.

    Seed and precision have to be those that the folder's name says. A folder that came from another
    machine without its .hydra is judged by the overrides in its summary.json.
    """
    path = RunFolder(run.folder).config
    summary = read_summary(run.folder)
    if path.is_file():
        try:
            settings = flatten(read_saved(run.folder))
        except BenchError as error:
            return f"has a configuration that cannot be read ({error})"
    elif "overrides" in summary:
        try:
            settings = _compose_settings(summary["overrides"])
        except ConfigError as error:
            return f"has overrides that cannot be composed ({error})"
    else:
        return f"has no {path.relative_to(run.folder)}"
    expected = {**published, "seed": run.seed, "trainer.precision": run.precision}
    if settings.get("trainer.precision") == "auto" and summary.get("precision") == run.precision:
        settings["trainer.precision"] = run.precision
    for key, value in expected.items():
        # A setting that came after the run was made cannot have been another.
        if key in settings and settings[key] != value:
            return f"has {key}={settings[key]}, and the recipe {key}={value}"
    if summary.get("status") != "completed":
        return None
    for key, value in {"precision": run.precision, "epochs": expected["trainer.epochs"]}.items():
        if summary[key] != value:
            return f"completed with {key} {summary[key]} instead of {value}"
    return None


def _compose_settings(overrides: Sequence[str]) -> Recipe:
    config, _ = compose(overrides)
    return flatten(to_config(config))
