"""`resume=auto`: the same command, given again, goes on with the run that it began."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from mnist_bench.config.identity import computed, digest
from mnist_bench.config.read import load_config, saved_choices, to_config
from mnist_bench.config.schema import TrainConfig
from mnist_bench.config.walk import flatten
from mnist_bench.errors import BenchError, ConfigError
from mnist_bench.runs.folder import InUse, RunFolder
from mnist_bench.runs.records import read_summary, saved_digest


def newest_unfinished(runs: Path, config: TrainConfig, kept: ExitStack) -> RunFolder | None:
    """Return the run in `runs` that computes what `config` says and was saved last, if any.

    Completed ones do not count, nor those that another process works on. This process owns it from
    then on, as long as `kept`.
    """
    wanted = digest(computed(flatten(config)))
    for folder in _newest_first(runs):
        with suppress(InUse), ExitStack() as owned:
            if _goes_on(folder, wanted) and not folder.is_in_use():
                owned.enter_context(folder.owned())
                if _goes_on(folder, wanted):
                    kept.push(owned.pop_all())
                    return folder
    return None


def _newest_first(runs: Path) -> Iterator[RunFolder]:
    """Yield the folders in `runs` that have a checkpoint, by its time."""
    times = {}
    for path in runs.iterdir() if runs.is_dir() else ():
        for checkpoint in (RunFolder(path).previous, RunFolder(path).last):
            with suppress(OSError):
                times[path] = checkpoint.stat().st_mtime
    for path in sorted(times, key=times.__getitem__, reverse=True):
        yield RunFolder(path)


def _goes_on(folder: RunFolder, wanted: str) -> bool:
    """Return whether a run of this digest has been saved and not been completed.

    Nearly all are told by their summary.json; a configuration, which takes much longer to read, is
    looked at only of those that were killed.
    """
    try:
        summary = read_summary(folder.path)
        if summary.get("status") == "completed" or summary.get("digest", wanted) != wanted:
            return False
        return saved_digest(folder.path) == wanted
    except BenchError:  # damaged
        return False


def refuse_another(folder: RunFolder, config: TrainConfig) -> None:
    """Refuse to go on in a folder whose run computes something else.

    Raises:
        ConfigError: names the first settings that differ.
        DataError: the folder's files do not tell what it computes.
    """
    now = computed(flatten(config))
    if not folder.holds_a_run or saved_digest(folder.path) == digest(now):
        return
    then = {}
    if folder.config.is_file():
        then = computed(flatten(to_config(load_config(folder.config), saved_choices(folder.path))))
    different = [key for key in sorted(then.keys() & now.keys()) if then[key] != now[key]]
    told = ", ".join(f"{key}={then[key]}" for key in different[:3]) or "other settings"
    raise ConfigError(
        f"hydra.run.dir={folder} holds another run, with {told}: give this one another folder, or "
        f"go on with that one by resume={folder}."
    )
