"""Train one network, or with -m a sweep of them: `mnist-bench train` and `python train.py`."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from mnist_bench import __version__
from mnist_bench.config.compose import CONF
from mnist_bench.config.explain import explain
from mnist_bench.config.help import register_help
from mnist_bench.config.read import saved_choices, to_config
from mnist_bench.config.schema import register_schemas
from mnist_bench.errors import BenchError

register_schemas()
register_help()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train as the command line says; without `arguments`, that of this process.

    Raises:
        SystemExit: what was asked for cannot be, failed or was interrupted; the code is the
            command's, and a sentence goes to stderr.
    """
    if arguments is not None:
        sys.argv = [sys.argv[0], *arguments]  # where Hydra reads them
    if "--version" in sys.argv[1:]:
        print(f"mnist-bench {__version__}")  # Hydra would print its own
        return
    given = [a for a in sys.argv[1:] if a.partition("=")[0] in ("--config-dir", "-cd")]
    if len(given) > 1:  # of which Hydra would read the last
        sys.exit(f"{' '.join(given)}: give one folder, with the files of all of them in it.")
    # Errors come through to here, and leave as one sentence if they are the user's.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        _compose_and_run()
    except BenchError as error:
        sys.exit(str(error))
    except HydraException as error:
        sys.exit(explain(error))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def _compose_and_run(composed: DictConfig) -> None:
    from mnist_bench.loggers.console import print_error
    from mnist_bench.runs.session import carry_out  # PyTorch: seconds that --help need not wait for

    job = HydraConfig.get()
    try:
        resumed = composed.resume is not None
        choices = saved_choices(Path(composed.resume)) if resumed else job.runtime.choices
        carry_out(to_config(composed, choices), Path(job.runtime.output_dir))
    except Exception as error:
        if isinstance(error, BenchError):
            print_error(str(error))
            if job.mode is RunMode.RUN:
                sys.exit(1)
        elif job.mode is RunMode.MULTIRUN:
            print_error(f"{type(error).__name__}: {error}")
        raise  # the other runs of a sweep go on, and then it is told again
