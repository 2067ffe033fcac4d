"""The results of a sweep side by side, on the screen when it ends."""

import json
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class SweepTable(Callback):
    """Hydra calls this when all runs of a sweep have ended well."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        # Imported late, as everything of weight: this module is loaded for every command.
        from mnist_bench.loggers.console import Screen, sweep_table

        folder = Path(config.hydra.sweep.dir)
        summaries = {
            str(path.parent.relative_to(folder)): json.loads(path.read_text())
            for path in sorted(folder.rglob("summary.json"))
        }
        summaries = {n: s for n, s in summaries.items() if s["status"] == "completed"}
        Screen().console.print(sweep_table(str(folder), summaries))
