"""From paths to runs: the folders of runs, sweeps and searches, wherever they are."""

import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from mnist_bench.analysis.find import OUTPUTS, RUN, contents, find_folders
from mnist_bench.analysis.sweeps import FILE, SweepFolder
from mnist_bench.config.walk import flatten
from mnist_bench.errors import ConfigError
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.standing import Standing, State, standing

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class FoundRun:
    """A run by its folder; `sweep` is that of the sweep which was asked for as a whole."""

    path: Path
    standing: Standing
    sweep: Path | None = None

    @property
    def is_completed(self) -> bool:
        return self.standing.state is State.completed

    @property
    def summary(self) -> Mapping[str, Any]:
        return self.standing.summary

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """Its configuration by dotted keys; of one that has not ended, as it was started."""
        if config := self.summary.get("config"):
            found: Mapping[str, Any] = config
            return found
        saved = _read_yaml(RunFolder(self.path).config)
        return flatten(_resolved(saved)) if isinstance(saved, dict) else {}

    @cached_property
    def overrides(self) -> Sequence[str]:
        """What its command line set, also of one that has not ended."""
        if "overrides" in self.summary:
            return list(self.summary["overrides"])
        saved = _read_yaml(RunFolder(self.path).overrides)
        return [line for line in saved if isinstance(line, str)] if isinstance(saved, list) else []

    @cached_property
    def started(self) -> float:
        """When it was (last) started, in seconds of the epoch; 0 if nothing tells."""
        try:
            moment = datetime.fromisoformat(self.summary["started"])
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (KeyError, TypeError, ValueError):
            pass
        try:
            return self.path.stat().st_mtime
        except OSError:
            return 0.0


def _read_yaml(path: Path) -> Any:
    """Return what a file holds; None if there is none, or it is damaged."""
    try:
        return yaml.load(path.read_text(), Loader=LOADER)
    except (OSError, yaml.YAMLError, ValueError):
        return None


def _resolved(saved: dict[str, Any]) -> dict[str, Any]:
    """Return settings with what refers to others, or to the environment, in its place."""
    if "${" not in str(saved):
        return saved
    from omegaconf import OmegaConf  # which takes a while, and few need it
    from omegaconf.errors import OmegaConfBaseException

    try:
        found: Any = OmegaConf.to_container(OmegaConf.create(saved), resolve=True)
    except OmegaConfBaseException:
        return saved
    return {**found}


def collect(paths: Sequence[Path | str] = ()) -> list[FoundRun]:
    """Return the runs in folders of runs, sweeps, searches, or in any above them; each once.

    A path that is not there may be a glob, or the name of a sweep, a search or a run in outputs/.
    Without any, all of outputs/ is read. Of a sweep, the runs that were asked for and are not there
    yet are among them, too.

    Raises:
        ConfigError: there is no such path, or there are no runs.
        DataError: a sweep.json is damaged.
    """
    found: dict[str, FoundRun] = {}
    asked = [str(path) for path in paths] or [str(OUTPUTS)]
    with without_garbage_collection():
        for path in asked:
            for folder in find_folders(path):
                for run in _runs_in(folder):
                    found.setdefault(os.path.abspath(run.path), run)
    if not found:
        raise ConfigError(
            f"There are no runs in {', '.join(asked)}: name the folder of a run, of a sweep or of "
            f"a search, or one above them."
        )
    return list(found.values())


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Thousands of summaries that all stay would be searched for garbage again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _runs_in(folder: Path) -> Iterator[FoundRun]:
    """Yield the runs in a folder, of which it may be one itself."""
    inside = contents(folder)
    if FILE in inside:
        yield from _runs_of_sweep(folder, inside)
    elif RUN & inside.keys():
        yield FoundRun(folder, standing(folder))
    else:
        for name in sorted(name for name, is_folder in inside.items() if is_folder):
            yield from _runs_in(folder / name)


def _runs_of_sweep(folder: Path, inside: Mapping[str, bool]) -> Iterator[FoundRun]:
    asked_for = set()
    for digest, name in SweepFolder(folder).names().items():
        asked_for.add(name)
        path = folder / name
        yield FoundRun(path, standing(path, digest), folder)
    for name in sorted(name for name, is_folder in inside.items() if is_folder):
        if name not in asked_for:
            yield from _runs_in(folder / name)
