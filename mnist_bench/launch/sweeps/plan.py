"""What the runs of a sweep are: from a command line to settings, names and digests.

Hydra composes a configuration in 0.1 s, so each combination of files is composed once, and each
swept value is set on it once; a run's settings are those of its combination with what its values
change.
"""

import copy
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Transformer
from hydra.errors import ConfigCompositionException, HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from mnist_bench.config.compose import as_given
from mnist_bench.config.identity import computed, digest
from mnist_bench.config.read import to_config
from mnist_bench.config.schema import TrainConfig
from mnist_bench.config.walk import flatten
from mnist_bench.errors import BenchError, ConfigError

# What a folder is called at most; file systems allow 255 bytes.
LONGEST_NAME = 120

Settings = dict[str, Any]
Files = tuple[str, ...]  # of groups that vary: GROUP=NAME of each, one combination


@dataclass(frozen=True)
class Axis:
    """A key that varies, and its values as a command line has them."""

    key: str
    sign: str  # + or ++ before the key, or nothing
    values: tuple[str, ...]
    parsed: tuple[Any, ...]  # the same as Hydra reads them
    is_group: bool  # whether the values are files, not settings

    @classmethod
    def of(cls, override: Override) -> "Axis":
        key = _key(override)
        return cls(
            key,
            "+" * (len(override.get_key_element()) - len(key)),
            tuple(map(str, override.sweep_string_iterator())),
            tuple(override.sweep_iterator(Transformer.identity)),
            _is_group(key),
        )

    def lines(self) -> list[str]:
        return [f"{self.sign}{self.key}={value}" for value in self.values]


@dataclass(frozen=True)
class Job:
    """One run of a sweep: what tells it from the others, and what it computes."""

    varied: tuple[str, ...]  # KEY=VALUE, in the order of the command line
    shared: tuple[str, ...]
    settings: Settings

    @cached_property
    def digest(self) -> str:
        return digest(computed(self.settings))

    @property
    def overrides(self) -> list[str]:
        return [*self.shared, *self.varied]

    def name(self, keys: Iterable[str] = ()) -> str:
        """Return the name of its folder, whatever the order of the command line.

        `keys` are those that vary elsewhere in the sweep, which it has as settings.
        """
        varied = [line.lstrip("+") for line in self.varied]
        given = {line.partition("=")[0] for line in varied}
        others = [f"{k}={self.settings[k]}" for k in keys if k in self.settings and k not in given]
        name = "--".join(sorted([*varied, *others])).replace("/", "_") or "run"
        if len(name.encode()) <= LONGEST_NAME:
            return name
        return f"{name.encode()[: LONGEST_NAME - 9].decode(errors='ignore')}~{self.digest[:8]}"


@dataclass(frozen=True)
class Plan:
    """All runs that a command line asks for.

    `bases` are the settings of each combination of files without the values that vary, by what the
    combination is called; `moved` the keys that vary, or follow from what does.
    """

    axes: tuple[Axis, ...]
    shared: tuple[str, ...]
    jobs: tuple[Job, ...]
    bases: Mapping[str, Settings]
    moved: frozenset[str]


def parse(lines: Sequence[str]) -> list[Override]:
    """Parse overrides of a command line.

    Raises:
        HydraException: one of them is none.
    """
    loader = GlobalHydra.instance().config_loader()
    overrides: list[Override] = OverridesParser.create(config_loader=loader).parse_overrides(
        list(lines)
    )
    return overrides


def refuse_twice(overrides: Sequence[Override]) -> None:
    """Refuse a key that is swept and given once more.

    Raises:
        ConfigError: names the key and what it was given as.
    """
    for key in sorted({_key(o) for o in overrides if o.is_sweep_override()}):
        given = [str(o.input_line) for o in overrides if _key(o) == key]
        if len(given) > 1:
            raise ConfigError(f"{key} is given twice, as {' and '.join(given)}: give it once.")


def refuse_imported_from(config: DictConfig) -> None:
    """Refuse what only `mnist-bench import-keras` may set.

    Raises:
        ConfigError: says so.
    """
    if config.imported_from is not None:
        raise ConfigError("imported_from= is set by mnist-bench import-keras: use that.")


def plan(config_name: str, lines: Sequence[str], hydra_lines: Sequence[str]) -> Plan:
    """Return the runs that a command line asks for, in its order.

    `lines` are the overrides of the task, `hydra_lines` those of Hydra itself.

    Raises:
        ConfigError: a value is out of range, or two runs would be the same.
        HydraException: Hydra refuses one of them.
    """
    overrides = parse(lines)
    _refuse_what_cannot_vary(overrides)
    refuse_twice(overrides)
    shared = tuple(str(o.input_line) for o in overrides if not o.is_sweep_override())
    axes = tuple(Axis.of(o) for o in overrides if o.is_sweep_override())
    if any("${" in line for line in lines):
        jobs = _compose_all(config_name, axes, shared, hydra_lines)
        base = jobs[0].settings
        moved = {key for job in jobs for key in _differences(base, job.settings)}
        return Plan(axes, shared, tuple(jobs), {}, frozenset(moved))
    bases, changes = _compose_once(config_name, axes, shared, hydra_lines)
    jobs = []
    for varied in itertools.product(*(axis.lines() for axis in axes)):
        files = tuple(line for line, axis in zip(varied, axes, strict=True) if axis.is_group)
        settings = dict(bases[files])
        for line, axis in zip(varied, axes, strict=True):
            if not axis.is_group:
                settings |= changes[files, line]
        jobs.append(Job(varied, shared, settings))
    _refuse_alike(jobs, config_name)
    moved = {axis.key for axis in axes} | {key for change in changes.values() for key in change}
    named = {" ".join(files): settings for files, settings in bases.items()}
    return Plan(axes, shared, tuple(jobs), named, frozenset(moved))


def _compose_once(
    config_name: str, axes: Sequence[Axis], shared: Sequence[str], hydra_lines: Sequence[str]
) -> tuple[dict[Files, Settings], dict[tuple[Files, str], Settings]]:
    """Return the settings of each combination of files, and what each value changes of them."""
    bases: dict[Files, Settings] = {}
    changes: dict[tuple[Files, str], Settings] = {}
    values = [axis for axis in axes if not axis.is_group]
    # With the first of the values that vary: they may have no default, or set what another moves.
    first = [axis.lines()[0] for axis in values]
    for files in itertools.product(*(axis.lines() for axis in axes if axis.is_group)):
        composed = _compose(config_name, [*shared, *files, *first, *hydra_lines])
        choices = composed.hydra.runtime.choices
        config = without_hydra(composed)
        bases[files] = flatten(to_config(config, choices))
        for axis in values:
            for line, change in _changes(config, choices, bases[files], axis):
                changes[files, line] = change
    return bases, changes


def _changes(
    config: DictConfig, choices: Mapping[str, str], base: Settings, axis: Axis
) -> Iterator[tuple[str, Settings]]:
    """Yield what each value of an axis changes of a combination's settings, which have the first.

    Where the last changes its own key alone, numbers before it do so, too, and are set without
    composing all.
    """

    def compose(line: str) -> Settings:
        changed = copy.deepcopy(config)
        _set(changed, line)
        return _differences(base, flatten(to_config(changed, choices)))

    lines, key = axis.lines(), axis.key
    ends: dict[str, Settings] = {lines[-1]: compose(lines[-1]), lines[0]: {}}
    alone = key in base and ends[lines[-1]].keys() <= {key}
    scratch = copy.deepcopy(config)
    for line, value in zip(lines, axis.parsed, strict=True):
        if line in ends:
            yield line, ends[line]
        elif alone and isinstance(value, int | float):
            OmegaConf.update(scratch, key, value)
            found = OmegaConf.select(scratch, key)
            yield line, {} if found == base[key] else {key: found}
        else:
            yield line, compose(line)


def _set(config: DictConfig, line: str) -> None:
    """Set a value on a composed configuration that has it already, as Hydra would."""
    (override,) = parse([line])
    try:
        OmegaConf.update(config, override.key_or_group, override.value())
    except OmegaConfBaseException as error:
        raise ConfigCompositionException(f"Error merging override {line}") from error


def compose_job(
    config_name: str, job: Job, hydra_lines: Sequence[str], number: int = 0
) -> TrainConfig:
    """Return the checked configuration of a job as Hydra composes it when it is launched.

    `number` is its place in the sweep, for those to whom it makes a difference.
    """
    composed = _compose(config_name, [*job.overrides, *hydra_lines])
    composed.hydra.job.num = number
    with known_to_hydra(composed):
        return to_config(without_hydra(composed), composed.hydra.runtime.choices)


@contextmanager
def known_to_hydra(composed: DictConfig) -> Iterator[None]:
    """Have `${hydra:...}` mean this configuration, as it does once Hydra has launched it."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(copy.deepcopy(composed))  # which may be changed no more
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def without_hydra(config: DictConfig) -> DictConfig:
    """Return a copy without Hydra's own settings."""
    job_config = copy.deepcopy(config)
    with read_write(job_config), open_dict(job_config):
        del job_config["hydra"]
    return job_config


def _compose(config_name: str, overrides: list[str]) -> DictConfig:
    composed = hydra.compose(config_name, overrides, return_hydra_config=True)
    if composed.resume is not None:
        raise ConfigError("resume= goes on with one run: give it without -m.")
    refuse_imported_from(composed)
    return composed


def _compose_all(
    config_name: str, axes: Sequence[Axis], shared: tuple[str, ...], hydra_lines: Sequence[str]
) -> list[Job]:
    """Return the jobs each composed for itself, as where a value may refer to another."""
    jobs = []
    for number, varied in enumerate(itertools.product(*(axis.lines() for axis in axes))):
        job = Job(varied, shared, {})
        settings = flatten(compose_job(config_name, job, hydra_lines, number))
        jobs.append(replace(job, settings=settings))
    _refuse_alike(jobs, config_name)
    return jobs


def _refuse_what_cannot_vary(overrides: Sequence[Override]) -> None:
    for override in overrides:
        if not override.is_sweep_override():
            continue
        if _key(override).startswith("sweep."):
            raise ConfigError(
                f"{override.input_line} varies what is one for a whole sweep: give one value."
            )
        if not override.is_discrete_sweep():
            raise ConfigError(
                f"{override.input_line} names no single values: give some, as in "
                f"{_key(override)}=0.1,0.2 or {_key(override)}=range(3)."
            )
        try:
            empty = not any(True for _ in override.sweep_iterator())
        except ValueError:  # of a range whose step is 0
            empty = True
        if empty:
            raise ConfigError(f"{override.input_line} has no values to vary: give one or more.")


def _key(override: Override) -> str:
    """Return its key without the sign that it is added by."""
    return str(override.get_key_element()).lstrip("+")


def _is_group(key: str) -> bool:
    return key in GlobalHydra.instance().config_loader().list_groups("")


def _differences(before: Settings, after: Settings) -> Settings:
    return {k: v for k, v in after.items() if k not in before or before[k] != v}


def _refuse_alike(jobs: Sequence[Job], config_name: str) -> None:
    seen: dict[str, Job] = {}
    for job in jobs:
        other = seen.setdefault(job.digest, job)
        if other is not job:
            first, second = " ".join(other.varied), " ".join(job.varied)
            both = first if first == second else f"{first} and {second}"
            raise ConfigError(
                f"Two runs of this sweep would be the same, {both}"
                f"{_why_alike(other, job, config_name)}: give every value once, and none that "
                f"changes nothing."
            )


def _why_alike(first: Job, second: Job, config_name: str) -> str:
    """Return why two runs compute the same though their values differ; nothing if none does."""
    pairs = [pair for pair in zip(first.varied, second.varied, strict=True) if len({*pair}) > 1]
    keys = [line.lstrip("+").partition("=")[0] for line, _ in pairs]
    files = [pair for pair, key in zip(pairs, keys, strict=True) if _is_group(key)]
    for key in keys:
        if first.settings.get(key) != second.settings.get(key):
            return f", as {key} changes nothing that they compute"
    if not files:
        return ""
    one, other = zip(*files, strict=True)
    named = f", as {' '.join(one)} and {' '.join(other)} differ in"
    try:
        alone = [_computed_by(config_name, lines) for lines in (one, other)]
    except (BenchError, HydraException):  # a part of the user's own has settings without a default
        return f"{named} nothing else than what this command sets"
    different = sorted({*_differences(*alone), *_differences(*reversed(alone))})
    if not different:
        return f"{named} nothing that is computed"
    told = different[:3]
    have = ", ".join(f"{key}={as_given(second.settings.get(key))}" for key in told)
    more = " and others" * (len(different) > len(told))
    return f"{named} {', '.join(told)}{more}, and here both have {have}{more}"


def _computed_by(config_name: str, lines: Sequence[str]) -> Settings:
    """Return what files that are chosen compute by themselves, without what else is given."""
    return computed(flatten(compose_job(config_name, Job((), tuple(lines), {}), ())))


def groups_of(jobs: Sequence[Job]) -> Iterator[Job]:
    """Yield one job for each set of settings that differ by more than the seed."""
    seen = set()
    for job in jobs:
        key = digest({k: v for k, v in computed(job.settings).items() if k != "seed"})
        if key not in seen:
            seen.add(key)
            yield job
