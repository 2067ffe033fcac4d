"""TensorBoard on the runs of a folder, each named by what tells it from the others."""

import contextlib
import io
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mnist_bench.analysis.find import runs_below
from mnist_bench.config.identity import computed
from mnist_bench.config.read import load_config, saved_choices, to_config
from mnist_bench.config.walk import flatten
from mnist_bench.errors import BenchError, ConfigError
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.records import read_summary

Settings = Mapping[str, Any]

# What a run may be told by first: others of its settings follow from these.
NAMES = ("experiment", "model.name", "data.name", "optimizer.name", "scheduler.name", "loss.name")
# A name of more differences, or more letters, says less than that of the folder.
MOST_DIFFERENCES, MOST_LETTERS = 5, 100
# How often new runs are looked for, in seconds.
LOOK_SECONDS = 3.0


# --- Names ------------------------------------------------------------------------------------


class Settled:
    """The settings of runs, each read once: they stay what they are."""

    def __init__(self) -> None:
        self._known: dict[Path, Settings] = {}

    def of(self, run: Path) -> Settings:
        """Return what decides what a run computes; nothing if that cannot be read (yet)."""
        if run not in self._known:
            with contextlib.suppress(BenchError, OSError):
                self._known[run] = _read(run)
        return self._known.get(run, {})


def _read(run: Path) -> Settings:
    summary = read_summary(run)
    if "config" in summary:
        settings, experiment = summary["config"], summary.get("experiment")
    else:
        choices = saved_choices(run)
        settings = flatten(to_config(load_config(RunFolder(run).config), choices))
        experiment = choices.get("experiment")
    named = {key: settings[key] for key in NAMES if key in settings}
    return {"experiment": experiment, **named, **computed(settings)}


def names_of(runs: Sequence[Path], root: Path, settled: Settled) -> dict[Path, str]:
    """Return what each run below `root` is called: by what differs among those beside it."""
    groups: dict[Path, list[Path]] = {}
    for run in runs:
        groups.setdefault(run.parent, []).append(run)
    alike = [parent.name for parent in groups]
    names = {}
    for parent, members in groups.items():
        prefix = ""
        if len(groups) > 1 and parent != root:
            short = alike.count(parent.name) == 1
            prefix = f"{parent.name if short else parent.relative_to(root)}/"
        called = differences([settled.of(run) for run in members])
        for run, name in zip(members, called, strict=True):
            plain = not name or len(name) > MOST_LETTERS
            if not plain and called.count(name) > 1:
                name = f"{run.name} {name}"
            names[run] = prefix + (run.resolve().name if plain else name)
    return names


def differences(settings: Sequence[Settings]) -> list[str]:
    """Return for each of several runs the settings that tell it from the others.

    Such as `kernel_size=3 seed=0`; nothing for all of them if these are too many.
    """
    kept: list[str] = []
    keys = {key for each in settings for key in each} - set(NAMES)
    for key in (*NAMES, *sorted(keys - {"seed"}), "seed"):
        values = [_shown(each.get(key)) for each in settings]
        chosen = [tuple(_shown(each.get(k)) for k in kept if k in NAMES) for each in settings]
        follows = len(set(zip(chosen, values, strict=True))) == len(set(chosen))
        if not follows:
            kept.append(key)
    if len(kept) > MOST_DIFFERENCES:
        return [""] * len(settings)
    short = [key.removesuffix(".name").rpartition(".")[2] for key in kept]
    told = [s if short.count(s) == 1 else key for key, s in zip(kept, short, strict=True)]
    return [
        " ".join(f"{t}={_shown(each.get(key))}" for t, key in zip(told, kept, strict=True))
        for each in settings
    ]


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_shown, value))}]"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace("/", "_")  # which TensorBoard takes for a folder


# --- The page ---------------------------------------------------------------------------------


class Links:
    """A folder of symbolic links, named as runs are called: TensorBoard names runs by paths."""

    def __init__(self, root: Path, folder: Path):
        self.root, self.folder = root, folder
        self.settled = Settled()
        self.made: dict[str, Path] = {}  # by their names

    def update(self) -> int:
        """Bring the links up to what there is now, and return how many runs that are."""
        runs = [run for run in runs_below(self.root) if RunFolder(run).tensorboard.is_dir()]
        wanted = {name: run for run, name in names_of(runs, self.root, self.settled).items()}
        for name in [name for name, run in self.made.items() if wanted.get(name) != run]:
            (self.folder / name).unlink(missing_ok=True)
            del self.made[name]
        for name in wanted.keys() - self.made.keys():
            link = self.folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(RunFolder(wanted[name]).tensorboard.resolve())
            self.made[name] = wanted[name]
        return len(runs)


@contextlib.contextmanager
def board(root: Path, port: int = 0) -> Iterator[tuple[str, Links]]:
    """Serve TensorBoard on the runs below a folder, on a port of this machine alone.

    Gives its address, and the links, which are to be updated for new runs. With `port` 0 it is a
    free one.

    Raises:
        ConfigError: the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="mnist-bench-board-") as folder:
        links = Links(root, Path(folder))
        links.update()
        yield _serve(folder, port), links


def _serve(folder: str, port: int) -> str:
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    with contextlib.redirect_stderr(io.StringIO()) as said:  # that it does without TensorFlow
        from tensorboard import default
        from tensorboard.program import TensorBoard, TensorBoardPortInUseError

        program = TensorBoard(default.get_plugins())
        program.configure(
            argv=[
                *("tensorboard", "--logdir", folder, "--host", "127.0.0.1", "--port", str(port)),
                *("--reload_interval", "2", "--window_title", "mnist-bench"),
            ]
        )
        try:
            return str(program.launch())
        except (TensorBoardPortInUseError, SystemExit) as error:
            reason = str(error) or said.getvalue().strip()
            raise ConfigError(f"TensorBoard cannot be served: {reason}.") from error


def keep_up(links: Links) -> None:
    """Look for new runs until Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(LOOK_SECONDS)
            with contextlib.suppress(OSError):
                links.update()


def can_show() -> bool:
    """Return whether a browser would have a screen: else one of text might take the terminal."""
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))
