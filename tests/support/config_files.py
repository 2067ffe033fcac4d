"""The files of `conf/`, by group."""

from pathlib import Path

from omegaconf import DictConfig

from mnist_bench.config.compose import CONF
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.records import write_command

GROUPS = ["model", "optimizer", "scheduler", "data", "augmentation", "loss"]
GROUPS += ["trainer", "logger", "experiment", "sweep"]


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def write_hydra_folder(folder: Path, config: DictConfig, own: DictConfig) -> None:
    """Leave the `.hydra` that a run leaves; `config` and `own` are what `compose` returns."""
    write_command(RunFolder(folder), config, DictConfig({"hydra": own}))
