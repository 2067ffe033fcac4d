"""Hydra's refusals of a command line, each in one sentence."""

import difflib
import re
import shlex
from typing import Any

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

from mnist_bench.config.habits import HABITS, NEEDLESS
from mnist_bench.config.schema import GROUPS, SCHEMAS, TrainConfig
from mnist_bench.config.walk import leaves

# What a command line or a file of the user's can be refused by, before anything of ours is called.
REFUSALS = (HydraException, yaml.YAMLError)

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
# Plugins of Hydra, by the choice that needs one.
PLUGINS = {
    "hydra/launcher=joblib": "'mnist-bench[joblib]'",
    "hydra/launcher=submitit_local": "hydra-submitit-launcher",
    "hydra/launcher=submitit_slurm": "hydra-submitit-launcher",
    "hydra/launcher=ray": "hydra-ray-launcher",
    "hydra/sweeper=optuna": "hydra-optuna-sweeper",
    "hydra/sweeper=ax": "hydra-ax-sweeper",
    "hydra/sweeper=nevergrad": "hydra-nevergrad-sweeper",
}


# Lines of Hydra's messages that tell nobody what to do.
LEFT_OUT = ("See https://hydra.cc/", "Config search path", "Search path", "\t")


def explain(error: Exception) -> str:
    """What Hydra has against a command line, or YAML against a file, in one sentence."""
    if isinstance(error, yaml.YAMLError):
        return _unreadable_file(error)
    if isinstance(error, OverrideParseException) and "while evaluating" not in str(error):
        return _unreadable(error.override)
    lines = [line.rstrip(".") for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(LEFT_OUT)] or [""]
    if ambiguous := re.match(r"Ambiguous value for argument '(.+?)'$", lines[0]):
        return (
            f"{ambiguous[1]} are several values: add -m to sweep over them, or give a list, [...]."
        )
    if alone := re.match(r"Sweep parameters '(.+)' requires? --multirun", lines[0]):
        return f"{alone[1]} is a sweep: add -m."
    if unknown := re.match(r"Could not override '([^']+)'", lines[0]):
        return unknown_key(unknown[1], getattr(error.__cause__, "parent_node", None))
    if isinstance(error, MissingConfigException) and error.options:
        return _unknown_choice(str(error.missing_cfg_file), error.options)
    if deleted := re.match(r"Error merging override (~.+)$", lines[0]):
        return f"{deleted[1]}: every run has it, give another value."
    cause = [line.rstrip(".") for line in str(error.__cause__ or "").splitlines() if line.strip()]
    if cause:
        return f"{lines[0].removeprefix('Error merging override ')} is refused: {cause[0]}."
    return f"{' '.join(lines)}."


def _unknown_choice(file: str, options: Any) -> str:
    depth = 2 if file.startswith("hydra/") else 1
    parts = file.split("/")
    choice = f"{'/'.join(parts[:depth])}={'/'.join(parts[depth:])}"
    if choice in REMOVED_CHOICES:
        return f"{choice} is not a choice any more: give {REMOVED_CHOICES[choice]}."
    if choice in PLUGINS:
        return f"{choice} needs a plugin that is not installed: pip install {PLUGINS[choice]}"
    own = ", or give --config-dir for your own" if depth == 1 else ""
    return f"{choice} is not there: choose one of {', '.join(options)}{own}."


# --- Keys that there are not ------------------------------------------------------------------


def unknown_key(key: str, place: DictConfig | None) -> str:
    """Return that a key is none, and which was meant.

    `place` is the part of the composed configuration that should have it, if that is known.
    """
    group, _, name = key.rpartition(".")
    if key in REMOVED:
        return f"{key} is not a key any more: {REMOVED[key]}."
    if group.partition(".")[0] == "hydra":
        return f"{key} is not there: to add it to what Hydra has, give it as +{key}=VALUE."
    if having := _having(group, name):
        chosen = place.get("name") if place is not None else None
        whose = chosen or f"the {group} that was chosen"
        has = "has" if len(having) == 1 else "have"
        return f"{key} is not a key of {whose}: {_listed(having)} {has} it."
    if name in HABITS and (ours := HABITS[name]).partition("=")[0] != key:
        having = _having(*ours.split(".", 1)) if ours not in _keys(place) else []
        which = f", which {_listed(having)} have" if having else ""
        return f"{key} is not a key of this configuration: give {ours}{which}."
    if name in NEEDLESS:
        return f"{key} is not a key of this configuration: {NEEDLESS[name]}."
    known = _keys(place) - {key}
    if near := _nearest(key, known):
        return f"{key} is not a key of this configuration: did you mean {near}?"
    own = sorted({_name(k) for k in known if _group(k) == group} - {"name", "_target_"})
    if group and len(own) in range(1, 9):
        return f"{key} is not a key of this configuration: {group} has {_listed(own)}."
    return f"{key} is not a key of this configuration: --cfg job lists them all."


def _having(group: str, name: str = "") -> list[str]:
    """Return the choices of a group that have a key, where choices differ in that."""
    return [choice for choice, schema in SCHEMAS.get(group, {}).items() if hasattr(schema, name)]


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _group(key: str) -> str:
    return key.rpartition(".")[0]


def _name(key: str) -> str:
    return key.rpartition(".")[2]


def _nearest(key: str, known: set[str]) -> str | None:
    """Return the key that was meant: of the same group, of that name in another, or like it."""

    def like(word: str, words: set[str], cutoff: float) -> list[str]:
        return difflib.get_close_matches(word, sorted(words), 1, cutoff)

    beside = {other for other in known if _group(other) == _group(key)}
    if near := like(_name(key), set(map(_name, beside)), 0.6):
        return ".".join(filter(None, (_group(key), near[0])))
    if near := like(_name(key), set(map(_name, known)), 0.8):
        return like(key, {other for other in known if _name(other) == near[0]}, 0.0)[0]
    return next(iter(like(key, {other for other in known if _group(other)}, 0.75)), None)


def _keys(place: DictConfig | None) -> set[str]:
    """Return the keys of the configuration that `place` is part of, groups among them."""
    if place is None:
        return {*_keys_of_schemas(), *SCHEMAS, *GROUPS}
    whole: Any = OmegaConf.to_container(place._get_root(), resolve=False)
    whole.pop("hydra", None)
    return {*(leaf.key for leaf in leaves(whole)), *whole, "experiment"}


def _keys_of_schemas() -> list[str]:
    schemas = [TrainConfig(), *(s() for group in SCHEMAS.values() for s in group.values())]
    prefixes = ["", *(f"{group}." for group in SCHEMAS for _ in SCHEMAS[group])]
    schemas += [schema() for schema in GROUPS.values()]
    prefixes += [f"{group}." for group in GROUPS]
    return [
        leaf.key
        for schema, prefix in zip(schemas, prefixes, strict=True)
        for leaf in leaves(schema, prefix)
    ]


# --- What cannot be read ----------------------------------------------------------------------


def _unreadable(line: str) -> str:
    key, equals, value = line.partition("=")
    if not equals:
        return f"{line} is not a setting: give KEY=VALUE, in quotes if there are spaces in it."
    for pair in ("[]", "{}", "()"):
        if value.count(pair[0]) != value.count(pair[1]):
            return (
                f"{line} has {pair[0]} and {pair[1]} that do not match: close them, or put the "
                f"value in both kinds of quotes, as in {_in_quotes(key, value)}"
            )
    return f"{line} cannot be read: put the value in both kinds of quotes, {_in_quotes(key, value)}"


def _in_quotes(key: str, value: str) -> str:
    """Return KEY=VALUE as it is typed: a pair of quotes for the shell, another for Hydra."""
    bare = value.strip("'\"")
    if set(bare) & set("'\"\\"):
        bare = "VALUE"
    return shlex.quote(f'{key}="{bare}"')


def _unreadable_file(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return f"A file of the configuration is not YAML: {' '.join(str(error).split())}."
    hint = ": YAML wants spaces there" if "'\\t'" in problem else ""
    return f"{mark.name}, line {mark.line + 1}, is not YAML that can be used: {problem}{hint}."
