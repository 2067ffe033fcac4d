"""From the options of `mnist-bench search` to a command line of Hydra."""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from mnist_bench.config.compose import quoted
from mnist_bench.errors import ConfigError

SEARCHES = Path("outputs", "searches")


def begin(
    name: str,
    overrides: Sequence[str],
    space: str,
    trials: int,
    seeds: int,
    config_dir: Path | None = None,
) -> None:
    """Carry out a search in `outputs/searches/NAME`.

    Raises:
        ConfigError: the name cannot be that of a folder, or a package is missing.
        SystemExit: as `launch.main.main`.
    """
    from mnist_bench.launch.main import main

    if not re.fullmatch(r"\w[\w.+=-]*", name):
        raise ConfigError(
            f"{name} cannot be the name of a search: take letters, digits and . _ + = -."
        )
    if moved := [line for line in overrides if line.startswith("hydra.sweep.dir=")]:
        raise ConfigError(
            f"{moved[0]} cannot be given to a search, which lies in {SEARCHES / name}: leave it "
            f"out, and begin where that is to be."
        )
    if find_spec("optuna") is None:
        raise ConfigError(
            "A search takes optuna, which is not installed: pip install 'mnist-bench[search]'."
        )
    main(
        [
            *([] if config_dir is None else ["--config-dir", str(config_dir)]),
            "-m",
            "hydra/sweeper=mnist_bench_search",
            f"hydra.sweeper.space={quoted(space)}",
            f"hydra.sweeper.trials={trials}",
            f"hydra.sweeper.seeds={seeds}",
            f"hydra.sweep.dir={quoted(str(SEARCHES / name))}",
            *overrides,
        ]
    )
