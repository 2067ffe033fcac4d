"""Weights & Biases: the same figures as the plain files have. Needs the extra `wandb`."""

from collections.abc import Mapping
from typing import Any

from mnist_bench.errors import ConfigError
from mnist_bench.loggers.base import Logger, RunInfo
from mnist_bench.training.loop import EpochRecord
from mnist_bench.training.metrics import tag


class WandB(Logger):
    """One run there for one run here; `mode` is online, offline or disabled.

    Offline, what would be sent is in the run's `wandb/`, for `wandb sync`.
    """

    run: Any = None

    def __init__(self, project: str = "mnist-bench", mode: str = "online", **settings: Any):
        try:
            import wandb
        except ImportError as error:
            raise ConfigError(
                "logger=wandb needs the package wandb: pip install 'mnist-bench[wandb]'."
            ) from error
        self.wandb = wandb
        self.settings = {"project": project, "mode": mode, **settings}

    def start(self, run: RunInfo) -> None:
        self.run = self.wandb.init(
            dir=str(run.folder),
            name=run.name,
            config=dict(run.settings),
            reinit="create_new",
            **self.settings,
        )
        if run.is_resumed and run.history:
            self.epoch(run.history[-1])

    def epoch(self, record: EpochRecord) -> None:
        figures = {tag(column): value for column, value in record.items()}
        self.run.log(figures, step=record["epoch"])

    def end(self, summary: Mapping[str, Any]) -> None:
        plain = {key: value for key, value in summary.items() if key != "config"}
        self.run.summary.update(plain)

    def close(self) -> None:
        if self.run is not None:
            self.run.finish()
