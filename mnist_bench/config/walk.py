"""The one walk through a configuration: its settings by dotted keys, as command lines name them."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, NamedTuple

from mnist_bench.config.parts import TARGET, Part


class Leaf(NamedTuple):
    """One setting; `metadata` is that of its field, which has its range (`ranges.py`)."""

    key: str
    value: Any
    metadata: Mapping[str, Any] = {}


def leaves(config: Any, prefix: str = "") -> Iterator[Leaf]:
    """Yield the settings of a dataclass, of a part, or of a mapping, in their order."""
    if isinstance(config, Part):
        plain = {TARGET: config.target, "name": config.name, **config.arguments}
        yield from leaves(plain, f"{config.group}.")
    elif is_dataclass(config):
        for entry in fields(config):
            value, key = getattr(config, entry.name), f"{prefix}{entry.name}"
            if _branches(value):
                yield from leaves(value, f"{key}.")
            else:
                yield Leaf(key, value, entry.metadata)
    else:
        for name, value in config.items():
            if _branches(value):
                yield from leaves(value, f"{prefix}{name}.")
            else:
                yield Leaf(f"{prefix}{name}", value)


def _branches(value: Any) -> bool:
    return isinstance(value, Mapping | Part) or (
        is_dataclass(value) and not isinstance(value, type)
    )


def flatten(config: Any) -> dict[str, Any]:
    """Return every setting by its dotted key, with plain values that JSON can hold."""
    return {leaf.key: _plain(leaf.value) for leaf in leaves(config)}


def _plain(value: Any) -> Any:
    match value:
        case Enum():
            return value.name
        case list() | tuple():
            return [_plain(v) for v in value]
        case _:
            return value
