"""A saved run's settings, but for those that say which images it is tested on, and where."""

from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_bench.config.compose import compose, quoted
from mnist_bench.config.parts import beside, refuse_unknown_source
from mnist_bench.config.read import SAVED, load_config, own_parts, saved_choices, to_config
from mnist_bench.config.schema import TrainConfig
from mnist_bench.errors import ConfigError

# What can be given besides the images: where and how is computed.
PLACES = ("trainer.gpus", "trainer.precision", "trainer.kernels")


def change_settings(
    run: Path, saved: TrainConfig, overrides: Sequence[str], config_dir: str | Path | None
) -> TrainConfig:
    """Return the settings of a saved run with `data`, `data.*` and PLACES as the overrides say.

    Other data are brought to the size and made grey as the run's own were, unless that is given.
    A run that was on a GPU goes to the CPU where there is none.

    Raises:
        ConfigError: an override is not one of those, or cannot be.
    """
    lines = [_checked(line) for line in overrides]
    values = {key: line for key, line in lines if key != "data"}
    choices = [line for key, line in lines if key == "data"]
    content = load_config(run / SAVED)
    names = dict(saved_choices(run))
    if choices:
        name = choices[-1].partition("=")[2]
        content, names["data"] = _with_data(content, name, values, config_dir), name
    _merge(content, [line for key, line in values.items() if not choices or key in PLACES])
    gone = isinstance(saved.trainer.gpus, int) and saved.trainer.gpus > torch.cuda.device_count()
    if gone and "trainer.gpus" not in values:
        content.trainer.gpus = "auto"
    config = to_config(content, names)
    for part in own_parts(config):
        refuse_unknown_source(part, beside(config_dir))
    return config


def _checked(line: str) -> tuple[str, str]:
    key, equals, value = line.lstrip("+").partition("=")
    if not equals:
        raise ConfigError(f"{line} is not a setting: give KEY=VALUE, such as data=fashion_mnist.")
    if not (key == "data" or key.startswith("data.") or key in PLACES):
        raise ConfigError(
            f"{key} cannot be given to evaluate, which takes data, data.* and {', '.join(PLACES)}: "
            f"the rest is as the run was trained."
        )
    return key, f"{key}={value}"


def _with_data(
    content: DictConfig, name: str, values: dict[str, str], config_dir: str | Path | None
) -> DictConfig:
    """Return the saved settings with other data, composed as train.py does."""
    own = [f"data={name}", *(line for key, line in values.items() if key not in PLACES)]
    if config_dir is not None:
        folder = quoted(f"file://{Path(config_dir).resolve()}")
        own = [f"hydra.searchpath=[{folder}]", *own]
    data = compose(own)[0].data
    for key in ("image_size", "grey"):
        if f"data.{key}" not in values:
            data[key] = content.data.get(key, data[key])
    content.data = data
    return content


def _merge(content: DictConfig, lines: list[str]) -> None:
    """Set values, as YAML reads them."""
    for line in lines:
        key, _, text = line.partition("=")
        try:
            OmegaConf.update(content, key, yaml.safe_load(text), merge=False)
        except (OmegaConfBaseException, yaml.YAMLError) as error:
            raise ConfigError(f"{line} is refused: {str(error).splitlines()[0]}.") from error
