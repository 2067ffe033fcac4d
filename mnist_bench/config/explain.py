"""Hydra's refusals of a command line, each in one sentence."""

import difflib
import re

from hydra.errors import MissingConfigException

from mnist_bench.config.schema import GROUPS, SCHEMAS, TrainConfig
from mnist_bench.config.walk import leaves

# Keys of earlier versions, and what to give instead.
REMOVED = {"trainer.replicas": "train the seeds one after the other, with -m 'seed=range(16)'"}
# Choices of earlier versions, likewise.
REMOVED_CHOICES = {
    "optimizer=adam_1e-4": "optimizer=adam optimizer.lr=1e-4",
    "optimizer=adam_3e-3": "optimizer=adam optimizer.lr=3e-3",
    "optimizer=keras_rmsprop_1e-4": "optimizer=keras_rmsprop optimizer.lr=1e-4",
    "optimizer=muon_short": "optimizer=muon optimizer.weight_decay=0.1 optimizer.iterations=3",
    "scheduler=onecycle_short": "scheduler=onecycle scheduler.warmup_fraction=0.15",
}


def explain(error: Exception) -> str:
    """What Hydra has against a command line, in one sentence."""
    lines = [line.rstrip(".") for line in str(error).splitlines() if line.strip()]
    if ambiguous := re.match(r"Ambiguous value for argument '(.+?)'$", lines[0]):
        return (
            f"{ambiguous[1]} are several values: add -m to sweep over them, or give a list, [...]."
        )
    if alone := re.match(r"Sweep parameters '(.+)' requires? --multirun", lines[0]):
        return f"{alone[1]} is a sweep: add -m."
    if unknown := re.match(r"Could not override '([^']+)'", lines[0]):
        key, known = unknown[1], _known_keys()
        if key in REMOVED:
            return f"{key} is not a key any more: {REMOVED[key]}."
        near = difflib.get_close_matches(key, set(known) - {key}, n=1)
        if key in known:
            return f"{key} is not a key of the {key.partition('.')[0]} that was chosen."
        hint = f"did you mean {near[0]}?" if near else "--cfg job lists them all."
        return f"{key} is not a key of this configuration: {hint}"
    if isinstance(error, MissingConfigException) and error.options:
        choice = str(error.missing_cfg_file).replace("/", "=")
        if choice in REMOVED_CHOICES:
            return f"{choice} is not a choice any more: give {REMOVED_CHOICES[choice]}."
        options = ", ".join(error.options)
        return f"{choice} is not there: choose one of {options}, or give --config-dir for your own."
    cause = [line.rstrip(".") for line in str(error.__cause__ or "").splitlines() if line.strip()]
    if cause:
        return f"{lines[0].removeprefix('Error merging override ')} is refused: {cause[0]}."
    return f"{' '.join(lines)}."


def _known_keys() -> list[str]:
    schemas = [TrainConfig(), *(s() for group in SCHEMAS.values() for s in group.values())]
    prefixes = ["", *(f"{group}." for group in SCHEMAS for _ in SCHEMAS[group])]
    schemas += [schema() for schema in GROUPS.values()]
    prefixes += [f"{group}." for group in GROUPS]
    return [
        leaf.key
        for schema, prefix in zip(schemas, prefixes, strict=True)
        for leaf in leaves(schema, prefix)
    ]
