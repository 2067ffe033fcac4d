"""The columns of TensorBoard's HPARAMS page: one type each, the same whatever run they are of.

TensorBoard makes a table of what each run says for itself, and fails to sort a column that has
numbers and texts in it. So a column is of numbers only where the schema says that every run has a
number with decimals there. All others are texts that sort as their numbers do; as numbers, seed 3
would be shown as 3.0000.
"""

import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import numpy as np
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)

from mnist_bench.config.identity import computed
from mnist_bench.config.schema import GROUPS, SCHEMAS, TrainConfig

CHOSEN = ("model", "data", "optimizer", "scheduler", "loss", "augmentation", "experiment")
# What hardly ever varies has a column only where a command line sets it.
SELDOM = (
    *("augmentation.*", "data.split", "imported_from", "model.*initializer"),
    *("trainer.compile", "trainer.cuda_graphs", "trainer.deterministic", "trainer.fused_optimizer"),
)
# Digits before the point that a text has room for, so that 9 sorts before 10.
DIGITS = 10


def columns(
    settings: Mapping[str, Any], choices: Mapping[str, str | None], overrides: Sequence[str] = ()
) -> dict[str, float | str]:
    """Return a run's hyperparameters: its choice of each group, and all that decides its results.

    `settings` are those of the configuration by dotted keys, `overrides` those of the command line.
    A number that is null is left out.
    """
    given = {line.lstrip("+").partition("=")[0] for line in overrides}
    chosen: dict[str, float | str] = {group: as_text(choices.get(group)) for group in CHOSEN}
    numbers = _numbers()
    for key, value in computed(settings).items():
        is_seldom = key not in given and any(fnmatchcase(key, pattern) for pattern in SELDOM)
        if is_seldom or key.endswith(".name"):  # which the choice of the group says
            continue
        if key not in numbers:
            chosen[key] = as_text(value)
        elif isinstance(value, int | float):
            chosen[key] = float(value)
    return chosen


def as_text(value: Any) -> str:
    """Return a value as the command line has it, with spaces before a number, by which it sorts.

    A page shows none of the spaces. Characters that TensorBoard's filters do not find again are
    replaced.
    """
    if isinstance(value, list | tuple):
        text = f"[{','.join(as_text(v).strip() for v in value)}]"
    elif value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, int | float):
        whole, point, rest = np.format_float_positional(value, trim="-").partition(".")
        text = f"{whole:>{DIGITS}}{point}{rest}"
    else:
        text = str(value)
    return text.replace("\\", "/").replace('"', "'").encode("ascii", "replace").decode()


@cache
def _numbers() -> set[str]:
    """Return the keys that hold a number with decimals, or null, by every schema that has them."""
    schemas: list[tuple[str, type]] = [("", TrainConfig)]
    schemas += [(f"{group}.", schema) for group, schema in GROUPS.items()]
    schemas += [(f"{group}.", schema) for group, own in SCHEMAS.items() for schema in own.values()]
    found: dict[str, set[bool]] = {}
    for prefix, schema in schemas:
        for key, is_number in _decimals(schema, prefix):
            found.setdefault(key, set()).add(is_number)
    return {key for key, is_number in found.items() if is_number == {True}}


def _decimals(schema: Any, prefix: str) -> Iterator[tuple[str, bool]]:
    hints = typing.get_type_hints(schema)
    for entry in fields(schema):
        hint = hints[entry.name]
        if is_dataclass(hint):
            yield from _decimals(hint, f"{prefix}{entry.name}.")
        else:
            yield f"{prefix}{entry.name}", hint in (float, float | None)


# --- What is written --------------------------------------------------------------------------


def session_start(hyperparameters: Mapping[str, float | str]) -> Summary:
    """Return what puts a run into the table.

    It comes without the list of columns that `SummaryWriter.add_hparams` writes besides: of several
    runs' lists TensorBoard takes the first it finds, and without any makes one of all runs.
    """
    info = SessionStartInfo()
    for name, value in hyperparameters.items():
        if isinstance(value, str):
            info.hparams[name].string_value = value
        else:
            info.hparams[name].number_value = value
    return _summary(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=info))


def session_end() -> Summary:
    """Return what says that a run has ended well."""
    info = SessionEndInfo(status=Status.Value("STATUS_SUCCESS"))
    return _summary(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=info))


def _summary(tag: str, content: HParamsPluginData) -> Summary:
    content.version = metadata.PLUGIN_DATA_VERSION
    plugin = SummaryMetadata.PluginData(
        plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString()
    )
    value = Summary.Value(
        tag=tag, metadata=SummaryMetadata(plugin_data=plugin), tensor=metadata.NULL_TENSOR
    )
    return Summary(value=[value])
