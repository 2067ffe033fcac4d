"""Train one network, or with -m a sweep of them: `mnist-bench train` and `python train.py`."""

import atexit
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mnist_bench import __version__
from mnist_bench.config.compose import CONF
from mnist_bench.config.help import register_help
from mnist_bench.config.read import saved_choices, to_config
from mnist_bench.config.schema import register_schemas
from mnist_bench.config.sources import register_sources
from mnist_bench.errors import leave
from mnist_bench.launch.arguments import arrange, as_typed
from mnist_bench.launch.edge import as_sentence, guard_streams
from mnist_bench.launch.jobs import end_with_parent, is_in_turn
from mnist_bench.loggers.artist import ARTIST, awaited
from mnist_bench.runs.folder import InUse, RunFolder
from mnist_bench.training.interrupt import OutOfTime, StopRequest

register_schemas()
register_sources()
register_help()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the command line says; without `arguments`, that of this process.

    Raises:
        SystemExit: what was asked for cannot be, failed or was interrupted; the code is the
            command's, and a sentence goes to stderr.
    """
    guard_streams()
    if arguments is not None:
        sys.argv = [sys.argv[0], *arguments]  # where Hydra reads them
    if "--version" in sys.argv[1:]:
        print(f"mnist-bench {__version__}")  # Hydra would print its own
        return
    given = [a for a in sys.argv[1:] if a.partition("=")[0] in ("--config-dir", "-cd")]
    if len(given) > 1:  # of which Hydra would read the last
        leave(f"{' '.join(given)}: give one folder, with the files of all of them in it.")
    # Errors come through to here, and leave as one sentence if they are the user's.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        sys.argv[1:] = arrange(list(map(as_typed, sys.argv[1:])))
        with awaited(ARTIST), StopRequest() as stop, stop.at_once():
            _compose_and_run()
    except Exception as error:
        if (told := as_sentence(error)) is None:
            raise
        leave(told)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def _compose_and_run(composed: DictConfig) -> float | None:
    """Return the validation loss, which sweepers make small; None if the run has not ended."""
    from mnist_bench.loggers.console import print_error
    from mnist_bench.runs import session  # PyTorch: seconds that --help need not wait for

    guard_streams()  # also where a launcher has started this process
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir)
    if job.mode is RunMode.MULTIRUN:
        return _run_of_a_sweep(composed, folder)
    try:
        if composed.resume is not None:  # .hydra stays as the run's first start has left it
            choices = saved_choices(Path(composed.resume))
            return session.carry_out(to_config(composed, choices), folder)
        config = to_config(composed, job.runtime.choices)
        return session.carry_out(config, folder, composed=composed)
    except Exception as error:
        if (told := as_sentence(error)) is None:
            raise
        print_error(told)
        sys.exit(1)


def _run_of_a_sweep(composed: DictConfig, folder: Path) -> float | None:
    """Do what is missing of a run, and say at once if it fails: the others go on."""
    from mnist_bench.loggers.console import Screen, info, print_error
    from mnist_bench.runs import session

    if not is_in_turn(HydraConfig.get().launcher):
        Screen.beside = folder.name
        end_with_parent()
        atexit.unregister(ARTIST.wait)
        atexit.register(ARTIST.wait)  # when the last run of this process has ended
    config = to_config(composed, HydraConfig.get().runtime.choices)
    try:
        return session.do_what_is_missing(config, folder, composed=composed)
    except (InUse, OutOfTime) as error:  # the same command goes on with it
        info(str(error))
        return None
    except Exception as error:
        told = as_sentence(error) or f"{type(error).__name__}: {error}"
        log = RunFolder(folder).log
        see = f" See {os.path.relpath(log)}." if log.exists() else ""
        print_error(f"{folder.name} failed: {told}{see}")
        for cause in (error, error.__cause__):
            if cause is not None:  # the next run may need the memory that its frames hold
                traceback.clear_frames(cause.__traceback__)
        raise
