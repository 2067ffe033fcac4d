"""The files of `conf/`, by group."""

from mnist_bench.config.compose import CONF

GROUPS = ["model", "optimizer", "scheduler", "data", "augmentation", "loss"]
GROUPS += ["trainer", "logger", "experiment", "sweep"]


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))
