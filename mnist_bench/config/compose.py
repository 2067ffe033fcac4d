"""A configuration as `python train.py OVERRIDES` composes it, for other commands."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, open_dict

from mnist_bench.config.explain import REFUSALS, explain
from mnist_bench.config.schema import register_schemas
from mnist_bench.config.sources import register_sources
from mnist_bench.errors import ConfigError


def find_conf() -> Path:
    """Return the folder of the configuration files.

    A wheel installs them within the package; in a checkout they lie beside it.
    """
    package = Path(__file__).resolve().parents[1]
    inside = package / "conf"
    return inside if inside.is_dir() else package.with_name("conf")


CONF = find_conf()


def quoted(text: str) -> str:
    """Return text as Hydra reads it in quotes: a backslash counts before a quote only."""
    escaped = re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + (m[2] and "\\'"), text)
    return f"'{escaped}'"


def as_given(value: Any) -> str:
    """Return a value as a command line has it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list():
            return f"[{','.join(map(as_given, value))}]"
        case _:
            return str(value)


def compose(overrides: Sequence[str]) -> tuple[DictConfig, DictConfig]:
    """The configuration and Hydra's own part of it.

    Raises:
        ConfigError: Hydra refuses an override, or the configuration files are not there.
    """
    if not CONF.is_dir():
        raise ConfigError(f"{CONF} is not there: install mnist-bench again.")
    register_schemas()
    register_sources()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            config = hydra.compose("train", list(overrides), return_hydra_config=True)
    except REFUSALS as error:
        raise ConfigError(explain(error)) from error
    with open_dict(config):
        own = config.pop("hydra")
    return config, own
