"""From what is typed to folders of runs, sweeps and searches: by path, by name or by a glob."""

import glob
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from mnist_bench.analysis.sweeps import FILE as SWEEP
from mnist_bench.errors import ConfigError
from mnist_bench.runs.standing import State, best_of, standing

OUTPUTS = Path("outputs")
# Where what is not a path is looked for, as the name of something.
NAMED_IN = ("", "sweeps", "searches", "runs")
# A folder with one of these is that of a run, of a search.
RUN = {"summary.json", "metrics.csv", "checkpoints", ".hydra"}
JOURNAL = "journal.log"


def find_folder(given: str | Path) -> Path:
    """Return the folder that is meant by a path, or by the name of one in outputs/.

    One that has runs goes before others of the same name.

    Raises:
        ConfigError: there is none.
    """
    if not str(given):
        raise ConfigError("An empty name was given: name the folder of a run, a sweep or a search.")
    folders = [place for place in _places(given) if place.is_dir()]
    if not folders and Path(given).exists():
        raise ConfigError(f"{given} is a file: name the folder of a run, a sweep or a search.")
    if not folders:
        raise ConfigError(
            f"{given} is not there: name the folder of a run, of a sweep or of a search, or the "
            f"name of one in {OUTPUTS}/."
        )
    return next(filter(_has_runs, folders), folders[0])


def find_folders(given: str | Path) -> list[Path]:
    """Return the folders that are meant by a path, a name or a glob.

    A file beside runs, as a shell's * brings it, means none; a summary.json its run.

    Raises:
        ConfigError: there are none.
    """
    path = Path(given)
    if path.is_file():
        return [path.parent] if path.name == "summary.json" else []
    if glob.has_magic(str(given)) and not path.exists():
        for place in map(str, _places(given)):
            matches = sorted(Path(match) for match in glob.glob(place, recursive=True))
            if folders := [match for match in matches if match.is_dir()]:
                return folders
    return [find_folder(given)]


def find_run(given: str | Path, tell: Callable[[str], None]) -> Path:
    """Return the run that is meant; by a sweep or a search its best, which `tell` is told.

    The best is the completed one of lowest validation loss: what is tested has not chosen it.

    Raises:
        ConfigError: there is none, or there are several and none can be called the best.
    """
    folder = find_folder(given)
    inside = contents(folder)
    if RUN & inside.keys() or not _has_runs(folder):
        return folder
    if not {SWEEP, JOURNAL} & inside.keys():
        first = next(runs_below(folder))
        raise ConfigError(
            f"{given} is a folder of runs, and no sweep whose best could be taken: name one of "
            f"them, such as {first}; mnist-bench runs {given} lists them."
        )
    found = {run: standing(run) for run in runs_below(folder)}
    if (best := best_of(found.values())) is None:
        raise ConfigError(f"{given} has no completed run yet: mnist-bench status {given} tells.")
    completed = [s.summary for s in found.values() if s.state is State.completed]
    kinds = {(s.get("dataset"), s.get("config", {}).get("loss.name")) for s in completed}
    if len(kinds) > 1:
        raise ConfigError(
            f"{given} has runs on other data, or of other losses, than others, which cannot be "
            f"compared: name one of them; mnist-bench runs {given} lists them."
        )
    path = next(run for run, s in found.items() if s is best)
    tell(f"{path}: lowest validation loss of {len(completed)} runs, {best.summary['val_loss']:.4f}")
    return path


def runs_below(folder: Path) -> Iterator[Path]:
    """Yield the folders of runs at or below a folder, in order; none within another run."""
    inside = contents(folder)
    if RUN & inside.keys():
        yield folder
        return
    for name in sorted(name for name, is_folder in inside.items() if is_folder):
        if not name.startswith("."):
            yield from runs_below(folder / name)


def contents(folder: Path) -> dict[str, bool]:
    """Return the names in a folder, and which are folders; none of one that cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    except OSError:  # it is removed meanwhile, or may not be read
        return {}


def _places(given: str | Path) -> list[Path]:
    return [Path(given), *(OUTPUTS / where / given for where in NAMED_IN)]


def _has_runs(folder: Path) -> bool:
    return (folder / SWEEP).is_file() or next(runs_below(folder), None) is not None
