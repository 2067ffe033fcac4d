"""What tells runs apart, and which of them differ by their seed alone."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_bench.analysis.collect import FoundRun
from mnist_bench.config.identity import Role, role
from mnist_bench.config.parts import TARGET

# What a whole file of conf/ is chosen by, the strongest first: it decides settings of its own.
CHOICES = (*("experiment", "model", "data", "optimizer", "scheduler", "loss", "augmentation"),)
SEED = "seed"
# A fraction of more characters is one that nobody typed.
LONG = 8
# Of images and their split: with one of these different, test accuracies are of other images.
OF_THE_TEST_SET = (
    *("data", f"data.{TARGET}", "data.path", "data.test_fraction", "data.image_size", "data.grey"),
    *("data.limit", "data.split", "data.seed"),
)


def settings_of(runs: Sequence[FoundRun]) -> dict[str, list[Any]]:
    """Return what decides results, by key: the value of each run, None where it has no such key.

    A group such as `optimizer` stands for the file that was chosen of it.
    """
    columns: dict[str, list[Any]] = {}
    first = runs[0].settings if runs else {}
    for place, run in enumerate(runs):
        settings = run.settings
        # Nearly all are as in the first run.
        apart = {key for key, value in settings.items() if key not in first or first[key] != value}
        if len(settings) != len(first) or apart:
            apart |= first.keys() - settings.keys()
        for key in apart:
            values = columns.setdefault(key, [first.get(key)] * len(runs))
            values[place] = settings.get(key)
    for key, value in first.items():
        columns.setdefault(key, [value] * len(runs))
    columns["experiment"] = [run.summary.get("experiment") for run in runs]
    own_data = any(f"data.{TARGET}" in run.settings for run in runs)
    named = {key: _name_of(key, own_data) for key in columns}
    return {name: columns[key] for key, name in named.items() if name is not None}


def _name_of(key: str, own_data: bool) -> str | None:
    group, _, name = key.partition(".")
    if name == "name" and group in CHOICES:
        return group
    return None if role(key, own_data) is Role.ignored else key


def varying(columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return the keys whose values are not all the same."""
    return [key for key, values in columns.items() if any(v != values[0] for v in values)]


def differences(runs: Sequence[FoundRun], columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return the keys that tell runs apart, the seed among them, as a person would name them.

    What follows from the choice of a network, an optimizer or an experiment is left out, unless it
    was set on a command line.
    """
    different = varying(columns)
    ordered = [key for key in CHOICES if key in different]
    others = [key for key in different if key not in CHOICES]
    ordered += sorted(others, key=lambda key: (key == SEED, key))
    typed = {line.lstrip("+~").partition("=")[0] for run in runs for line in run.overrides}
    shown: list[str] = []
    for key in ordered:
        chosen = [columns[choice] for choice in shown if choice in CHOICES]
        if key in typed or not _follows(columns[key], chosen):
            shown.append(key)
    return shown


def told_apart(runs: Sequence[FoundRun]) -> list[str]:
    """Return `kernel_size=3 seed=0` of each run: what tells it from the others, if anything."""
    columns = settings_of(runs)
    short = short_keys(differences(runs, columns))
    told = [[f"{name}={v}" for v in short_values(columns[key])] for key, name in short.items()]
    return [" ".join(parts) for parts in zip(*told, strict=True)] if told else [""] * len(runs)


def _follows(values: Sequence[Any], chosen: Sequence[Sequence[Any]]) -> bool:
    """Return whether equal choices always come with an equal value."""
    seen: dict[tuple[str, ...], Any] = {}
    for place, value in enumerate(values):
        choice = tuple(str(column[place]) for column in chosen)
        if seen.setdefault(choice, value) != value:
            return False
    return True


def short_keys(keys: Iterable[str]) -> dict[str, str]:
    """Return keys as people read them: without their group where that leaves them apart."""
    short = {key: key.rpartition(".")[2] for key in keys}
    names = list(short.values())
    return {key: name if names.count(name) == 1 else key for key, name in short.items()}


def as_typed(value: Any) -> str:
    """Return a value as a command line has it: `0.25`, `[5,5]`, `null`."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(as_typed, value))}]"
    return str(value)


def short_values(values: Sequence[Any]) -> list[str]:
    """Return values as people read them: long fractions in as few digits as keep them apart."""
    typed = [as_typed(value) for value in values]
    for digits in range(3, LONG):
        short = [
            f"{value:.{digits}g}" if isinstance(value, float) and len(text) > LONG else text
            for value, text in zip(values, typed, strict=True)
        ]
        if len({*short}) == len({*typed}):
            return short
    return typed


def in_order(values: Iterable[Any]) -> list[Any]:
    """Return the different values of a key: numbers by size, then words, then others."""

    def rank(value: Any) -> tuple[int, float, str]:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return (0, float(value), "")
        return (1, 0.0, as_typed(value))

    distinct = {as_typed(value): value for value in values}
    return sorted(distinct.values(), key=rank)


# --- Runs that differ by their seed -----------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Setting:
    """Completed runs that differ by their seed alone; `values` are those of what is compared."""

    values: Mapping[str, Any]
    runs: tuple[FoundRun, ...]

    @property
    def n(self) -> int:
        return len(self.runs)

    @cached_property
    def seeds(self) -> list[int]:
        return [int(run.summary["seed"]) for run in self.runs]

    def figures(self, key: str) -> NDArray[np.float64]:
        """Return a figure of summary.json of each run; NaN where a run has none."""
        values = [run.summary.get(key) for run in self.runs]
        return np.array([np.nan if v is None else v for v in values], np.float64)

    def label(self, short: Mapping[str, str]) -> str:
        parts = [f"{short[key]}={as_typed(value)}" for key, value in self.values.items()]
        return " ".join(parts) or "all runs"


@dataclass
class Section:
    """Settings that may be compared: of one data set, and of one network unless a sweep varies it.

    `axes` are the keys that tell them apart, with their values in order.
    """

    dataset: str
    models: list[str]
    settings: list[Setting]
    axes: dict[str, list[Any]]
    short: dict[str, str]
    runs: list[FoundRun]  # those that are counted
    repeated: list[FoundRun]  # of a setting and seed that another run has, too
    unfinished: list[FoundRun] = field(default_factory=list)
    # What its test images are told by, if another section's are of the same dataset.
    images: str = ""

    @property
    def title(self) -> str:
        return f"{', '.join(self.models)} on {self.dataset}{self.images}"


def sections_of(
    completed: Sequence[FoundRun], unfinished: Sequence[FoundRun] = (), together: bool = False
) -> list[Section]:
    """Return runs in sections that may be compared, those with the most runs first.

    Runs of different test images are never in one. Those of different networks are if one sweep
    has both, or `together` asks for it.
    """
    network: dict[tuple[str, str], tuple[str, str]] = {}  # of each its section's, by union

    def find(key: tuple[str, str]) -> tuple[str, str]:
        while network.setdefault(key, key) != key:
            key = network[key]
        return key

    keys: list[tuple[str, str]] = []
    of_group: dict[tuple[str, str], tuple[str, str]] = {}
    for run in completed:
        test_set, model = _test_set(run), str(run.summary.get("model"))
        group = "together" if together else str(run.sweep or "")
        keys.append((test_set, model))
        if group:
            network[find(keys[-1])] = find(of_group.setdefault((test_set, group), keys[-1]))
    members: dict[tuple[str, str], list[FoundRun]] = defaultdict(list)
    for run, key in zip(completed, keys, strict=True):
        members[find(key)].append(run)
    made = [_section(own) for own in members.values()]
    for run in unfinished:
        _assign(run, made)
    _tell_test_sets_apart(made)
    return sorted(made, key=lambda section: -len(section.runs))


def _test_set(run: FoundRun) -> str:
    settings = {**run.settings, "data": run.summary.get("dataset")}
    decides = [settings.get(key) for key in OF_THE_TEST_SET]
    if f"data.{TARGET}" in settings:
        decides.append(settings.get("data.root"))
    return json.dumps([*decides, run.summary.get("test_images")])


def _tell_test_sets_apart(sections: Sequence[Section]) -> None:
    """Say of sections of one dataset which images of it theirs are, or how many."""
    for dataset in {section.dataset for section in sections}:
        own = [section for section in sections if section.dataset == dataset]
        first = [section.runs[0] for section in own]
        if len({_test_set(run) for run in first}) == 1:
            continue
        settings = [run.settings for run in first]
        keys = [key for key in OF_THE_TEST_SET if len({as_typed(s.get(key)) for s in settings}) > 1]
        for section, run in zip(own, first, strict=True):
            told = [f"{key}={as_typed(run.settings.get(key))}" for key in keys]
            section.images = f", {' '.join(told) or _images(run)}"


def _images(run: FoundRun) -> str:
    return f"{run.summary.get('test_images', 0):,} test images"


def _assign(run: FoundRun, sections: Sequence[Section]) -> None:
    """Put an unfinished run beside those that it belongs with."""
    for section in sections:
        if run.sweep and any(run.sweep == other.sweep for other in section.runs):
            section.unfinished.append(run)
            return


def _section(runs: list[FoundRun]) -> Section:
    """Group the runs of a section by all that varies but the seed; of a seed the newest counts."""
    columns = settings_of(runs)
    deciding = [key for key in varying(columns) if key != SEED]
    shown = [key for key in differences(runs, columns) if key != SEED]
    groups: dict[str, dict[Any, int]] = defaultdict(dict)
    repeated = []
    for place, run in enumerate(runs):
        own = json.dumps([columns[key][place] for key in deciding])
        seed = run.summary.get("seed")
        if (other := groups[own].get(seed)) is not None:
            place, other = sorted((place, other), key=lambda p: runs[p].started, reverse=True)
            repeated.append(runs[other])
        groups[own][seed] = place
    axes = {key: in_order(columns[key]) for key in shown}
    settings = []
    for places in groups.values():
        first = next(iter(places.values()))
        values = {key: columns[key][first] for key in shown}
        ordered = [runs[places[seed]] for seed in sorted(places)]
        settings.append(Setting(values, tuple(ordered)))
    rank = {key: [as_typed(v) for v in values] for key, values in axes.items()}
    settings.sort(key=lambda s: [rank[key].index(as_typed(s.values[key])) for key in shown])
    models = sorted({str(run.summary.get("model")) for run in runs})
    counted = [run for setting in settings for run in setting.runs]
    dataset = str(runs[0].summary.get("dataset"))
    return Section(dataset, models, settings, axes, short_keys(shown), counted, repeated)
