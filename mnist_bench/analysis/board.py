"""TensorBoard on the runs of a folder, each named by what tells it from the others."""

import contextlib
import io
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from mnist_bench.analysis.collect import FoundRun
from mnist_bench.analysis.find import runs_below
from mnist_bench.analysis.settings import told_apart
from mnist_bench.errors import ConfigError
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.standing import standing

# A name of more differences, or more letters, says less than that of the folder.
MOST_DIFFERENCES, MOST_LETTERS = 5, 100
# How often new runs are looked for, in seconds.
LOOK_SECONDS = 3.0


# --- Names ------------------------------------------------------------------------------------


def names_of(runs: Sequence[FoundRun], root: Path) -> dict[str, Path]:
    """Return each run below `root` by its name: by what differs among those beside it."""
    groups: dict[Path, list[FoundRun]] = {}
    for run in runs:
        groups.setdefault(run.path.parent, []).append(run)
    alike = [parent.name for parent in groups]
    names = {}
    for parent, members in groups.items():
        prefix = ""
        if len(groups) > 1 and parent != root:
            short = alike.count(parent.name) == 1
            prefix = f"{parent.name if short else parent.relative_to(root)}/"
        called = [told.replace("/", "_") for told in told_apart(members)]  # else a folder's end
        for run, name in zip(members, called, strict=True):
            plain = not name or name.count("=") > MOST_DIFFERENCES or len(name) > MOST_LETTERS
            if not plain and called.count(name) > 1:
                name = f"{run.path.name} {name}"
            names[prefix + (run.path.resolve().name if plain else name)] = run.path
    return names


# --- The page ---------------------------------------------------------------------------------


class Links:
    """A folder of symbolic links, named as runs are called: TensorBoard names runs by paths."""

    def __init__(self, root: Path, folder: Path):
        self.root, self.folder = root, folder
        self.known: dict[Path, FoundRun] = {}  # each read once: settings stay what they are
        self.made: dict[str, Path] = {}  # by their names

    def update(self) -> int:
        """Bring the links up to what there is now, and return how many runs that are."""
        paths = [run for run in runs_below(self.root) if RunFolder(run).tensorboard.is_dir()]
        for path in paths:
            if path not in self.known or not self.known[path].settings:
                self.known[path] = FoundRun(path, standing(path))
        wanted = names_of([self.known[path] for path in paths], self.root)
        for name in [name for name, run in self.made.items() if wanted.get(name) != run]:
            (self.folder / name).unlink(missing_ok=True)
            del self.made[name]
        for name in wanted.keys() - self.made.keys():
            link = self.folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(RunFolder(wanted[name]).tensorboard.resolve())
            self.made[name] = wanted[name]
        return len(paths)


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
