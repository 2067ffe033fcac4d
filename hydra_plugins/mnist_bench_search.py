"""The sweeper that `mnist-bench search` has Hydra use; its settings are that command's options."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import MISSING, DictConfig


@dataclass
class MnistBenchSearchConfig:
    _target_: str = "hydra_plugins.mnist_bench_search.MnistBenchSearch"
    space: str = MISSING
    trials: int = MISSING
    seeds: int = 1


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="mnist_bench_search",
    node=MnistBenchSearchConfig,
    provider="mnist_bench",
)


class MnistBenchSearch(Sweeper):
    """Trains what Optuna asks for, until there are so many trials."""

    def __init__(self, **options: Any):
        pass  # read where the configuration is

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.context = hydra_context
        self.config: DictConfig = config

    def sweep(self, arguments: list[str]) -> Any:
        # Imported late: Hydra loads this module for every command.
        from mnist_bench.launch.search.search import carry_out

        carry_out(self.config, self.context, arguments)
