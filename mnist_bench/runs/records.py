"""What a run leaves as plain text: metrics.csv, summary.json and .hydra/."""

import csv
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from importlib.metadata import version
from operator import getitem
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_omega_conf_dumper
from torch import Tensor

from mnist_bench import __version__
from mnist_bench.config.identity import computed, digest
from mnist_bench.config.read import SAVED, load_config, saved_choices, to_config
from mnist_bench.config.walk import flatten, leaves
from mnist_bench.errors import DataError, naming
from mnist_bench.runs.folder import RunFolder, atomic_write
from mnist_bench.runs.standing import read_summary as read_summary
from mnist_bench.training.loop import EpochRecord

# The columns of a run before its first epoch.
COLUMNS = [
    *("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy"),
    *("learning_rate", "seconds", "images_per_second"),
]


def write_metrics(folder: RunFolder, history: Sequence[EpochRecord]) -> None:
    """Write a row per epoch."""
    columns = list(history[0]) if history else COLUMNS
    with atomic_write(folder.metrics) as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for row in history:
            writer.writerow({k: f"{v:.7g}" if isinstance(v, float) else v for k, v in row.items()})


def write_summary(folder: RunFolder, summary: dict[str, Any]) -> None:
    """Write summary.json."""
    with atomic_write(folder.summary) as file:
        json.dump(summary, file, indent=2)
        file.write("\n")


def set_result_aside(folder: RunFolder) -> None:
    """Take away what tells of a run's end, as it goes on; a result is kept until the next one is.

    Killed in between, the run is still told completed, and its predictions are beside it.
    """
    has_result = read_summary(folder.path).get("status") in ("completed", "imported")
    for file in (folder.predictions, folder.summary):
        if has_result and file.exists():
            file.replace(previous_of(file))
        file.unlink(missing_ok=True)


def previous_of(file: Path) -> Path:
    """Return where a file of an earlier result is kept, such as summary.previous.json."""
    return file.with_name(f"{file.stem}.previous{file.suffix}")


def saved_digest(folder: Path) -> str | None:
    """Return the digest of the run in `folder`, also of one that was killed; None if it has none.

    Raises:
        DataError: its summary.json or its configuration is damaged.
    """
    known: str | None = read_summary(folder).get("digest")
    if known is None and (folder / SAVED).is_file():
        config = to_config(load_config(folder / SAVED), saved_choices(folder))
        known = digest(computed(flatten(config)))
    return known


# Written in C where that is installed: each run of a sweep writes and reads its own.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Dumper(getattr(yaml, "CDumper", yaml.Dumper)):  # type: ignore[misc]
    """Writes what OmegaConf.to_yaml writes."""


Dumper.add_representer(str, get_omega_conf_dumper().str_representer)


@dataclass(frozen=True)
class Command:
    """What a run was started with."""

    overrides: list[str]  # as they were given, `${...}` included
    choices: Mapping[str, Any]  # the file that was chosen of each group, or None

    @property
    def experiment(self) -> str | None:
        chosen: str | None = self.choices.get("experiment")
        return chosen


def write_command(folder: RunFolder, config: DictConfig, hydra: DictConfig) -> None:
    """Write `.hydra`: the configuration, Hydra's own, and the overrides of the command line.

    Hydra does so itself unless hydra.output_subdir is null, but not each file whole or not at all.
    `hydra` has its settings under that key.
    """
    files = {
        "config": _settled(config),
        "hydra": _to_plain(hydra),
        "overrides": _to_plain(hydra.hydra.overrides.task),
    }
    folder.hydra.parent.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        with atomic_write(folder.hydra.with_name(f"{name}.yaml")) as file:
            yaml.dump(content, file, Dumper, allow_unicode=True, sort_keys=False)


def _to_plain(config: Any, resolve: bool = False) -> Any:
    return OmegaConf.to_container(config, resolve=resolve, enum_to_str=True)


def _settled(config: DictConfig) -> Any:
    """Return the settings with values in place of references to others, and to this process.

    Else they would mean something else once those are changed. Those to the environment stay.
    """
    plain = _to_plain(config)
    for key, value, _ in list(leaves(plain)):
        if "${" in str(value) and "${oc.env:" not in str(value):
            found = OmegaConf.select(config, key)
            *above, name = key.split(".")
            group = reduce(getitem, above, plain)
            group[name] = _to_plain(found, resolve=True) if OmegaConf.is_config(found) else found
    return plain


def read_command(folder: RunFolder) -> Command:
    """Return what the run in a folder was first started with.

    Raises:
        OSError: `.hydra/hydra.yaml` cannot be read.
        DataError: it is damaged.
    """
    try:
        with naming(folder.hydra):
            hydra = yaml.load(folder.hydra.read_text(), Loader=LOADER)["hydra"]
        lines = hydra["overrides"]["task"]
        if not isinstance(lines, list):
            raise ValueError("its overrides are no list")
        choices = hydra["runtime"]["choices"]
        return Command([str(line) for line in lines], dict(choices))
    except (yaml.YAMLError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{folder.hydra} does not tell how this run was started: it is damaged; put back that "
            f"of this run, or start again."
        ) from error


def epoch_figures(record: EpochRecord) -> dict[str, float]:
    """Return the training and validation figures of one epoch, as summary.json names them."""
    return {key: value for key, value in record.items() if key.startswith(("train_", "val_"))}


def test_figures(
    figures: dict[str, float], logits_NK: Tensor, labels_N: Tensor
) -> dict[str, float | int]:
    """Return the test figures, as summary.json names them."""
    errors = int((logits_NK.argmax(1) != labels_N.cpu()).sum())
    return {**{f"test_{name}": value for name, value in figures.items()}, "test_errors": errors}


# A loss so many times that of a guess with even odds has gone astray.
ASTRAY = 10


def doubt(
    figures: Mapping[str, float], labels_N: Tensor, classes: int, bounded: bool, remedy: str
) -> str | None:
    """Return in a sentence that a test went as if nothing had been learnt; None if it did not.

    That is a loss far above ln(classes), which even odds have, or an accuracy that always naming
    the most common class has, too, within two standard errors. Not every loss is `bounded` so.
    """
    images, accuracy, loss = len(labels_N), figures["test_accuracy"], figures["test_loss"]
    share = int(labels_N.bincount().max()) / images
    even = math.log(classes)
    if bounded and not loss <= ASTRAY * even:
        found = f"test loss of {loss:.3g} is far above that of a guess, {even:.2f}"
    elif accuracy <= share + 2 * math.sqrt(share * (1 - share) / images):
        found = f"test accuracy of {accuracy:.2%} is that of a guess, {share:.2%}"
    else:
        return None
    return f"This network cannot be relied on: its {found}; {remedy}."


def provenance() -> dict[str, Any]:
    """Return versions and commit of the code in this process, and the time.

    Outside a git checkout the commit is what the environment variable GIT_COMMIT says, or null.
    """
    return {**_code(), "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}


@cache
def _code() -> dict[str, Any]:
    """Return them as when first asked for: the checkout may move on, code in memory does not."""
    packages = ("torch", "torchvision", "hydra-core", "omegaconf", "numpy")
    return {
        "versions": {
            "mnist-bench": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
        "git_commit": _git("rev-parse", "HEAD") or os.environ.get("GIT_COMMIT"),
        "git_changes": _git("status", "--porcelain", "--untracked-files=no"),
    }


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
