"""The sweeper that Hydra uses for `-m`; Hydra looks for plugins in `hydra_plugins` only."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class MnistBenchSweeperConfig:
    _target_: str = "hydra_plugins.mnist_bench_sweeper.MnistBenchSweeper"
    # Axes of the sweep as KEY: VALUES; a key of the command line takes the place of one.
    params: dict[str, str] = field(default_factory=dict)


ConfigStore.instance().store(
    group="hydra/sweeper", name="mnist_bench", node=MnistBenchSweeperConfig, provider="mnist_bench"
)


class MnistBenchSweeper(Sweeper):
    """Does what is missing of a sweep, and hands it to the launcher that is configured."""

    def __init__(self, params: dict[str, str] | None = None):
        self.params = dict(params or {})

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        # Imported late, as below: Hydra loads this module for every command.
        from mnist_bench.launch.sweeps.compose import find_launcher

        self.config: DictConfig = config
        self.launcher: Launcher = find_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """Return the validation loss of every run, by the name of its folder."""
        from mnist_bench.launch.sweeps.sweep import carry_out

        given = {argument.lstrip("+~").partition("=")[0] for argument in arguments}
        lines = [f"{key}={value}" for key, value in self.params.items() if key not in given]
        return carry_out(self.config, self.launcher, [*lines, *arguments])
