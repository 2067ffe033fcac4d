"""The space of a search: a YAML file of keys, each with its range or its choices."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from mnist_bench.config.compose import CONF, as_given
from mnist_bench.config.identity import Role, role
from mnist_bench.config.ranges import is_number, is_whole
from mnist_bench.errors import ConfigError

RANGE = ("low", "high", "log", "step")


@dataclass(frozen=True)
class Space:
    """What is searched, by key: as the file has it, and as Optuna draws from it."""

    written: dict[str, Any]
    distributions: dict[str, BaseDistribution]

    def first(self) -> dict[str, Any]:
        """Return the first value of each key: its lowest, or its first choice."""
        return {key: _ends(drawn)[0] for key, drawn in self.distributions.items()}

    def ends(self) -> Iterator[dict[str, Any]]:
        """Yield values that reach all ends of the ranges and all choices, one key at a time."""
        first = self.first()
        yield first
        for key, drawn in self.distributions.items():
            yield from ({**first, key: value} for value in _ends(drawn)[1:])


def _ends(drawn: BaseDistribution) -> tuple[Any, ...]:
    if isinstance(drawn, CategoricalDistribution):
        return drawn.choices
    assert isinstance(drawn, FloatDistribution | IntDistribution)
    return drawn.low, drawn.high


def as_overrides(values: Mapping[str, Any]) -> list[str]:
    """Return the values of a trial as a command line has them."""
    return [f"{key}={as_given(value)}" for key, value in values.items()]


def find_space(given: str) -> Path:
    """Return the file of a space: a path, or the name of one in `conf/search/`.

    Raises:
        ConfigError: there is neither.
    """
    ready = CONF / "search"
    for path in (Path(given), ready / f"{given}.yaml"):
        if path.is_file():
            return path
    names = ", ".join(sorted(path.stem for path in ready.glob("*.yaml")))
    raise ConfigError(f"--space {given} is not there: give a YAML file, or one of {names}.")


def read_space(path: Path) -> Space:
    """Read a space.

    Raises:
        ConfigError: names what in the file cannot be.
    """
    try:
        # Numbers such as 1e-4 are text to plain YAML.
        written = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OSError, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(written, dict) or not written:
        raise ConfigError(
            f"{path} is not a space: it has to be a mapping of keys to ranges or choices, such as "
            f"model.dropout: {{low: 0.0, high: 0.6}}."
        )
    space = {str(key): value for key, value in written.items()}
    try:
        return Space(space, {key: _distribution(key, value) for key, value in space.items()})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _distribution(key: str, written: Any) -> BaseDistribution:
    if key == "seed":
        raise ConfigError("seed is not searched: give --seeds for trials of several seeds.")
    if role(key) is Role.ignored or key.startswith("hydra") or key in ("logger", "sweep"):
        raise ConfigError(f"{key} is not searched: it does not decide what a run computes.")
    match written:
        case list():
            return _choices(key, written)
        case dict():
            return _range(key, written)
        case _:
            raise ConfigError(
                f"{key}: {written} is neither a range, such as {{low: 0.0, high: 0.6}}, nor a list "
                f"of choices; one value belongs on the command line."
            )


def _choices(key: str, written: list[Any]) -> BaseDistribution:
    if not written:
        raise ConfigError(f"{key} has an empty list: give the values to choose from.")
    texts = [as_given(value) for value in written]
    if twice := [text for text in texts if texts.count(text) > 1]:
        raise ConfigError(f"{key} has {twice[0]} twice: give each choice once.")
    plain = (bool, int, float, str, type(None))
    # A list is kept as text, as a study holds plain values only.
    return CategoricalDistribution(
        [v if isinstance(v, plain) else t for v, t in zip(written, texts, strict=True)]
    )


def _range(key: str, written: dict[Any, Any]) -> BaseDistribution:
    if unknown := [str(word) for word in written if word not in RANGE]:
        raise ConfigError(f"{key} has {unknown[0]}, and a range takes {', '.join(RANGE)}.")
    low: Any = written.get("low")
    high: Any = written.get("high")
    step: Any = written.get("step")
    log = written.get("log", False)
    if not (is_number(low) and is_number(high)):
        raise ConfigError(f"{key} is no range: give two numbers, low and high.")
    if not low < high:
        raise ConfigError(f"{key} has low {low} and high {high}: low has to be below high.")
    if not isinstance(log, bool):
        raise ConfigError(f"{key} has log: {log}, which has to be true or false.")
    if log and low <= 0:
        raise ConfigError(f"{key} has log: true and low {low}: low has to be above 0.")
    if step is not None and not (is_number(step) and 0 < step <= high - low):
        raise ConfigError(f"{key} has step {step}: it has to be above 0, and within the range.")
    if log and step is not None:
        raise ConfigError(f"{key} has both log: true and a step: leave one of them out.")
    if all(map(is_whole, (low, high, 1 if step is None else step))):
        return IntDistribution(low, high, log=log, step=step or 1)
    return FloatDistribution(low, high, log=log, step=step)
