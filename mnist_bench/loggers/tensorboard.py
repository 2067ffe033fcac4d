"""The TensorBoard view of a run. The records are the plain files; this only shows them.

The pictures in it are drawn when the run has ended, by `artist.py`.
"""

from collections.abc import Mapping
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import custom_scalars

from mnist_bench.config.read import SAVED
from mnist_bench.loggers.base import Logger, RunInfo
from mnist_bench.loggers.hyperparameters import columns, session_end, session_start
from mnist_bench.training.loop import EpochRecord
from mnist_bench.training.metrics import tag

# Columns of metrics.csv that have a place of their own, or none.
TAGS = {
    "images_per_second": "throughput/images_per_second",
    "epoch": None,
    "seconds": None,
}
# Charts that have several curves of each run.
LAYOUT = {
    "training and validation": {
        "loss": ["Multiline", [r"^loss/(train|val)$"]],
        "accuracy": ["Multiline", [r"^accuracy/(train|val)$"]],
    }
}


class TensorBoard(Logger):
    """Writes event files into the run's `tensorboard/`.

    Of a run that goes on, what was written since its last epoch is taken back, and that epoch is
    written again, as the run may have been killed before it was.
    """

    writer: SummaryWriter | None = None

    def start(self, run: RunInfo) -> None:
        self.run = run
        purge_step = run.history[-1]["epoch"] if run.history else None
        self.writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=purge_step)
        file = self.writer._get_file_writer()  # for what it has no method of its own for
        if not run.is_resumed:
            file.add_summary(session_start(columns(run.settings, run.choices, run.overrides)))
            file.add_summary(custom_scalars(LAYOUT))
            settings = (run.folder / SAVED).read_text("utf-8")
            self.writer.add_text("configuration", _verbatim(settings))
            self.writer.add_text("model", _verbatim(run.layers))
        if run.history:
            self.epoch(run.history[-1])

    def epoch(self, record: EpochRecord) -> None:
        assert self.writer is not None
        for column, value in record.items():
            name = TAGS.get(column, tag(column))
            if name is not None:
                self.writer.add_scalar(name, value, record["epoch"])
        self.writer.flush()

    def end(self, summary: Mapping[str, Any]) -> None:
        assert self.writer is not None
        for key, value in summary.items():
            if key.startswith("test_") and isinstance(value, float):
                self.writer.add_scalar(tag(key), value, summary["tested_epoch"] or 0)
        self.writer._get_file_writer().add_summary(session_end())

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def _verbatim(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return "\n".join("    " + line for line in text.splitlines())
