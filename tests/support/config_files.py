"""The files of `conf/`, by group."""

from pathlib import Path

CONF = Path(__file__).parents[2] / "conf"
GROUPS = ["model", "optimizer", "scheduler", "data", "augmentation", "loss"]
GROUPS += ["trainer", "logger", "experiment"]


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))
