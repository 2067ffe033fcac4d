"""From OmegaConf to checked dataclasses, of a command line or of a saved run."""

import io
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from mnist_bench.config.explain import unknown_key
from mnist_bench.config.parts import TARGET, Part, refuse_unknown_source
from mnist_bench.config.schema import (
    GROUPS,
    SCHEMAS,
    DataConfig,
    Loss,
    OwnDataConfig,
    SGDConfig,
    TestWeights,
    TrainConfig,
    Validation,
)
from mnist_bench.config.walk import leaves
from mnist_bench.errors import ConfigError, DataError, naming

# Where Hydra leaves a run's configuration in its folder.
SAVED = Path(".hydra", "config.yaml")
# The groups in which a class of one's own may stand in place of ours.
OWN_GROUPS = ("model", "optimizer", "scheduler", "loss")
# What is configured of all data, whoever reads them; other keys beside a `_target_` are its own.
OF_ALL_DATA = {entry.name for entry in fields(DataConfig)} - {"root", "split"}


def to_config(composed: DictConfig, choices: Mapping[str, str] | None = None) -> TrainConfig:
    """Return the composed configuration as checked dataclasses.

    `choices` are the files that were chosen of each group, after which a part of the user's own is
    called if it has no `name`.

    Raises:
        ConfigError: a value is out of range, or a key is unknown.
    """
    names = choices or {}
    _refuse_unknown_keys(composed)
    try:
        config = OmegaConf.to_object(composed)
        assert isinstance(config, TrainConfig)
        for group in OWN_GROUPS:
            value = getattr(config, group)
            if not isinstance(value, _schemas(group)):
                setattr(config, group, _part(group, value, names.get(group)))
        if not isinstance(config.data, DataConfig):
            config.data = _own_data(config.data, names.get("data"))
        config.logger = _loggers(config.logger, names.get("logger"))
    except MissingMandatoryValue as error:
        raise ConfigError(f"{error.full_key} has no default: give {error.full_key}=....") from error
    except (OmegaConfBaseException, ValueError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(f"The configuration is not complete: {reason}.") from error
    check(config)
    return config


def _schemas(group: str) -> tuple[type, ...]:
    return (GROUPS[group],) if group in GROUPS else tuple(SCHEMAS[group].values())


def _part(group: str, value: Any, name: str | None) -> Part:
    if not isinstance(value, Mapping) or TARGET not in value:
        raise ConfigError(
            f"{group}={value} is neither one of ours (--help lists them) nor a class of your own, "
            f"a file conf/{group}/NAME.yaml with a {TARGET}."
        )
    return Part.of(group, value, name)


def _own_data(value: Any, name: str | None) -> DataConfig:
    source = _part("data", value, name)
    common = {key: source.arguments.pop(key) for key in OF_ALL_DATA & source.arguments.keys()}
    settings = {**common, "name": source.name, "root": ""}
    try:
        data = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataConfig), settings))
    except OmegaConfBaseException as error:
        raise ConfigError(f"data: {str(error).splitlines()[0]}.") from error
    return OwnDataConfig(**vars(data), source=source)


def _loggers(value: Mapping[str, Any], name: str | None) -> dict[str, Part]:
    """Each by its name; a file with a `_target_` of its own is one that is called as the file."""
    if TARGET in value:
        if name is not None and name.startswith("["):
            raise ConfigError(
                f"logger={name}: to be chosen with others, a logger's file needs a key of its own "
                f"above {TARGET}, which names it."
            )
        named = name or "logger"
        rest = {k: v for k, v in value.items() if isinstance(v, Mapping) and TARGET in v}
        own = {k: v for k, v in value.items() if k not in rest}
        value = {named: own, **rest}
    return {key: _part(f"logger.{key}", node, key) for key, node in value.items()}


def _refuse_unknown_keys(node: DictConfig, prefix: str = "") -> None:
    """Refuse keys that `+key=value` has put beside those that a schema has."""
    schema: Any = OmegaConf.get_type(node)
    typed = is_dataclass(schema)
    known = {entry.name for entry in fields(schema)} if typed else set()
    for key in map(str, node):
        if typed and key not in known:
            raise ConfigError(unknown_key(f"{prefix}{key}", node))
        if not OmegaConf.is_missing(node, key) and OmegaConf.is_dict(value := node._get_node(key)):
            assert isinstance(value, DictConfig)
            if not value._is_none():
                _refuse_unknown_keys(value, f"{prefix}{key}.")


# --- Saved runs -------------------------------------------------------------------------------


def load_config(path: Path) -> DictConfig:
    """Read a run's saved configuration (`.hydra/config.yaml`) back under its schema.

    Raises:
        OSError: the file cannot be read.
        DataError: it does not hold the configuration of a run.
    """
    with naming(path):
        return parse_config(path.read_bytes(), str(path))


def parse_config(content: bytes, source: str) -> DictConfig:
    """Return a saved configuration (YAML) under its schema; `source` is what errors call it.

    Raises:
        DataError: it is not the configuration of a run.
    """
    try:
        saved = OmegaConf.load(io.BytesIO(content))
        if not isinstance(saved, DictConfig):
            raise ValueError("it is not a mapping")
        _bring_up_to_date(saved)
        schema = OmegaConf.structured(TrainConfig)
        for group in (*OWN_GROUPS, "data"):
            if group in GROUPS and TARGET not in saved[group]:
                schema[group] = GROUPS[group]
            elif TARGET not in saved[group]:
                schema[group] = SCHEMAS[group][saved[group].name]
        merged = OmegaConf.merge(schema, saved)
    except (
        *(OmegaConfBaseException, yaml.YAMLError),
        *(ValueError, KeyError, TypeError, AttributeError),
    ) as error:
        raise DataError(
            f"{source} is not the configuration of a run ({str(error).splitlines()[0]}): it is "
            f"damaged, or of another version of mnist-bench."
        ) from error
    assert isinstance(merged, DictConfig)
    return merged


def _bring_up_to_date(saved: DictConfig) -> None:
    """Change what earlier versions saved in another way."""
    saved.trainer.pop("replicas", None)  # it changed nothing in each run that had it
    if isinstance(saved.loss, str):
        saved.loss = {"name": saved.loss}
    if "logger" not in saved:
        saved.logger = {"tensorboard": {TARGET: "mnist_bench.loggers.tensorboard.TensorBoard"}}


def saved_choices(folder: Path) -> Mapping[str, str]:
    """Return the files that were chosen when the run in `folder` began; nothing if none tells.

    Raises:
        OSError: the file that tells is there, and cannot be read.
    """
    path = folder / SAVED.with_name("hydra.yaml")
    try:
        with naming(path):
            choices = OmegaConf.load(path).hydra.runtime.choices
    except (FileNotFoundError, OmegaConfBaseException, yaml.YAMLError, AttributeError):
        return {}
    return choices if isinstance(choices, DictConfig) else {}


def own_parts(config: TrainConfig) -> list[Part]:
    """Return the parts of a configuration that are not described by a schema of ours."""
    places = [getattr(config, group) for group in OWN_GROUPS]
    if isinstance(config.data, OwnDataConfig):
        places.append(config.data.source)
    return [part for part in [*places, *config.logger.values()] if isinstance(part, Part)]


def read_saved(folder: Path, vouched: Iterable[Path] = ()) -> TrainConfig:
    """Return the configuration of the run in `folder`.

    `vouched` are the folders, beside the installed packages, from which its own parts may come.

    Raises:
        ConfigError: a part of it is from elsewhere.
        DataError: the file does not hold the configuration of a run.
    """
    return vouched_config(load_config(folder / SAVED), saved_choices(folder), vouched)


def vouched_config(
    saved: DictConfig, choices: Mapping[str, str], vouched: Iterable[Path]
) -> TrainConfig:
    """Return a saved configuration; `choices` as for `to_config`, `vouched` as for `read_saved`.

    Raises:
        ConfigError: a part of it is from elsewhere.
    """
    config = to_config(saved, choices)
    for part in own_parts(config):
        refuse_unknown_source(part, vouched)
    return config


# --- What goes together -----------------------------------------------------------------------


def check(config: TrainConfig) -> None:
    """Refuse the first value that is out of range or contradicts another.

    Raises:
        ConfigError: names the key, the value and what is allowed.
    """
    for key, value, metadata in leaves(config):
        try:
            holds = metadata["test"](value) if "test" in metadata else True
        except TypeError:
            holds = False
        if not holds:
            raise ConfigError(f"{key}={value} is not allowed: it must be {metadata['text']}.")
    for group in SCHEMAS:
        value = getattr(config, group)
        if isinstance(value, Part):
            continue
        name, own = value.name, type(value).name
        if name != own:
            raise ConfigError(
                f"{group}.name={name} does not fit the settings of {own}: choose {group}={name}."
            )
    data = config.data
    if data.validation is Validation.test and config.trainer.test_weights is TestWeights.best:
        raise ConfigError(
            "trainer.test_weights=best with data.validation=test would choose weights on the test "
            "set: validate on held-out images, or set trainer.test_weights=last."
        )
    if config.label_smoothing > 0 and (
        isinstance(config.loss, Part) or config.loss.name is not Loss.cross_entropy
    ):
        name = config.loss.name if isinstance(config.loss, Part) else config.loss.name.name
        raise ConfigError(
            f"label_smoothing={config.label_smoothing} belongs to loss=cross_entropy: set it to 0 "
            f"with loss={name}."
        )
    sgd = config.optimizer
    if isinstance(sgd, SGDConfig) and sgd.nesterov and sgd.momentum == 0:
        raise ConfigError("optimizer.nesterov=true needs a momentum: set optimizer.momentum.")
