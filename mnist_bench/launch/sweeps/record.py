"""What a sweep's folder remembers: what was asked for in sweep.json, and how its runs stand."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from filelock import FileLock

from mnist_bench.config.compose import as_given
from mnist_bench.config.identity import Role, computed, role
from mnist_bench.errors import BenchError, ConfigError, DataError, explain_file_error, naming
from mnist_bench.launch.sweeps.plan import Plan, Settings
from mnist_bench.runs.folder import RunFolder, atomic_write
from mnist_bench.runs.records import read_summary, saved_digest

FILE = "sweep.json"
KINDS = {"shared": list, "varied": list, "moved": list, "bases": dict, "jobs": dict}


class State(Enum):
    """How a run of a sweep stands; the values are what tables say."""

    completed = "completed"
    running = "running"
    interrupted = "stopped"  # it goes on from its checkpoint
    failed = "failed"
    waiting = "waiting"


@dataclass(frozen=True)
class Standing:
    """A run of a sweep as its folder tells it; `summary` is empty until it has ended."""

    name: str
    state: State
    summary: Mapping[str, Any]
    epochs: int = 0  # done so far, of one that has not ended well
    damage: str = ""  # why it cannot be told, nor gone on with


# Of a completed run, the figures without which its summary.json is not whole.
NEEDED = ("val_loss", "train_accuracy", "val_accuracy", "test_accuracy", "train_seconds")


def standing(path: Path, digest: str) -> Standing:
    """Return how the run of a digest stands, whose folder need not be there.

    One that is damaged, or holds another run, has failed, and hides no other.
    """
    try:
        return _standing(RunFolder(path), read_summary(path, digest))
    except DataError as error:
        return Standing(path.name, State.failed, {}, damage=str(error))
    except OSError as error:
        return Standing(path.name, State.failed, {}, damage=f"{explain_file_error(error)}.")


def _standing(folder: RunFolder, summary: dict[str, Any]) -> Standing:
    status = summary.get("status")
    if status == "completed":
        for key in NEEDED:
            if not isinstance(summary.get(key), float):
                raise DataError(
                    f"{folder.summary} is damaged (it has no {key}): move {folder} away."
                )
    if status == "completed":
        state = State.completed
    elif folder.is_in_use():
        state = State.running
    elif status == "failed":
        state = State.failed
    elif folder.can_go_on:
        state = State.interrupted
    else:
        state = State.waiting
    epochs = 0
    if state in (State.running, State.interrupted) and folder.metrics.is_file():
        epochs = len(folder.metrics.read_text().splitlines()) - 1
    return Standing(folder.path.name, state, summary, epochs)


class SweepRecord:
    """The folder of a sweep."""

    def __init__(self, path: Path):
        self.path = path
        self.file = path / FILE

    def names(self) -> dict[str, str]:
        """Return the folder of every run that is planned or there, by digest."""
        return dict(self._read().get("jobs", {}))

    def varied(self) -> list[str]:
        """Return the keys that vary among the runs that were asked for."""
        return list(self._read().get("varied", []))

    def standings(self) -> Iterator[Standing]:
        """Yield how each run that was asked for stands, in the order of asking."""
        for own, name in self.names().items():
            yield standing(self.path / name, own)

    def command(self) -> str:
        """Return the command line that was given last; nothing if none is known."""
        return str(self._read().get("command", ""))

    def extend(self, plan: Plan, command: str = "") -> dict[str, str]:
        """Take a plan's runs among those of this sweep; return all their folders by digest.

        `command` is the one that asks for them.

        Raises:
            ConfigError: as `refuse_another`.
        """
        with FileLock(self.path / ".sweep.lock"):
            known = self._read()
            self.refuse_another(plan)
            names = dict(known.get("jobs", {})) or self._found()
            taken = set(names.values())
            for job in plan.jobs:
                if job.digest not in names:
                    name = job.name(known.get("varied", ()))
                    name = name if name not in taken else f"{name}~{job.digest[:8]}"
                    names[job.digest] = name
                    taken.add(name)
            content = {
                "shared": [*plan.shared],
                "varied": sorted({*known.get("varied", ()), *(axis.key for axis in plan.axes)}),
                "moved": sorted({*known.get("moved", ()), *plan.moved}),
                "bases": {**known.get("bases", {}), **plan.bases},
                "jobs": names,
                "command": command,
            }
            if content != known:
                with atomic_write(self.file) as file:
                    json.dump(content, file, indent=1)
        return names

    def _read(self) -> dict[str, Any]:
        try:
            with naming(self.file):
                content = json.loads(self.file.read_text())
            for key, kind in KINDS.items():
                if not isinstance(content[key], kind):
                    raise ValueError(f"its {key} are no {kind.__name__}")
            if any(Path(name).name != name for name in content["jobs"].values()):
                raise ValueError("a run is not in its folder")
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.file} is damaged ({error}): remove it, and the runs beside it are found "
                f"again."
            ) from error
        assert isinstance(content, dict)
        return content

    def _found(self) -> dict[str, str]:
        """Return the runs that lie in the folder, of which no record tells."""
        names = {}
        for path in sorted(self.path.iterdir()):
            if not path.is_dir():
                continue
            try:
                known = saved_digest(path)
            except BenchError:
                continue  # no run, or one whose folder cannot be used
            if known is not None:
                names[known] = path.name
        return names

    def refuse_another(self, plan: Plan) -> None:
        """Refuse runs that differ from those that are there by more than what varies.

        Raises:
            ConfigError: names what differs.
        """
        known = self._read()
        if not known:
            return
        free = {*known["moved"], *plan.moved, *known["varied"], *(a.key for a in plan.axes)}
        both = known["bases"].keys() & plan.bases.keys()
        for name in sorted(both):
            then, now = computed(known["bases"][name]), computed(plan.bases[name])
            self._refuse_difference(then, now, free)
        if not both:
            then, now = _assigned(known["shared"]), _assigned(plan.shared)
            self._refuse_difference(then, now, free)

    def _refuse_difference(self, then: Settings, now: Settings, free: set[str]) -> None:
        different = [
            key
            for key in sorted(then.keys() | now.keys())
            if key not in free and role(key) is not Role.ignored and then.get(key) != now.get(key)
        ]
        if different:
            made, given = (
                ", ".join(f"{key}={as_given(has.get(key, 'its default'))}" for key in different)
                for has in (then, now)
            )
            again = f": {command}" if (command := self.command()) else "."
            raise ConfigError(
                f"The sweep {self.path.name} was made with {made}, and this has {given}: give it "
                f"another sweep.name, or what it was made with{again}"
            )


def _assigned(lines: list[str] | tuple[str, ...]) -> dict[str, str]:
    pairs = (line.lstrip("+").partition("=") for line in lines)
    return {key: value for key, _, value in pairs if not key.startswith(("hydra", "sweep"))}
