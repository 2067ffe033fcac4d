"""The TensorBoard view of a run. The records are the plain files; this only shows them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, from_numpy
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from mnist_bench.config.read import SAVED
from mnist_bench.loggers.base import Logger, RunInfo
from mnist_bench.training.loop import EpochRecord
from mnist_bench.training.metrics import tag

IMAGES_SHOWN = 64
IMAGES_IN_A_ROW = 16
GREY = 128

# What the HPARAMS page shows of every run, beside what its command line set. The page shows the
# first five of the alphabet unasked, so settings that hardly ever vary are left out.
HYPERPARAMETERS = {
    *("data.name", "loss.name", "model.dropout", "model.kernel_size", "model.name"),
    *("optimizer.lr", "optimizer.name", "scheduler.name", "seed", "trainer.batch_size"),
    "trainer.epochs",
}
# Columns of metrics.csv that have a place of their own, or none.
TAGS = {
    "images_per_second": "throughput/images_per_second",
    "epoch": None,
    "seconds": None,
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
        if run.history:
            self.epoch(run.history[-1])
        if not run.is_resumed:
            settings = (run.folder / SAVED).read_text("utf-8")
            self.writer.add_text("configuration", _verbatim(settings))
            self.writer.add_text("model", _verbatim(run.layers))
            self.writer.add_image("images/train", _grid(run.splits.train.images))

    def epoch(self, record: EpochRecord) -> None:
        assert self.writer is not None
        for column, value in record.items():
            name = TAGS.get(column, tag(column))
            if name is not None:
                self.writer.add_scalar(name, value, record["epoch"])
        self.writer.flush()

    def end(self, summary: Mapping[str, Any]) -> None:
        assert self.writer is not None
        epoch = summary["tested_epoch"] or 0
        tested = {
            tag(key): value
            for key, value in summary.items()
            if key.startswith("test_") and isinstance(value, float)
        }
        for name, value in tested.items():
            self.writer.add_scalar(name, value, epoch)
        with np.load(self.run.folder / "predictions.npz") as saved:
            wrong = from_numpy((saved["logits"].argmax(1) != saved["labels"]).nonzero()[0])
        if len(wrong):
            test = self.run.splits.test.images
            self.writer.add_image("images/test_errors", _grid(test[wrong.to(test.device)]), epoch)
        set_keys = {override.partition("=")[0].lstrip("+") for override in self.run.overrides}
        settings = {
            key: value if isinstance(value, bool | int | float | str) else str(value)
            for key, value in self.run.settings.items()
            if key in HYPERPARAMETERS | set_keys
        }
        metrics = {name: tested[name] for name in ("accuracy/test", "loss/test")}
        if summary["val_accuracy"] is not None:
            metrics["accuracy/val"] = summary["val_accuracy"]
        # `add_hparams` would open a second run; its three summaries belong to this one.
        for part in hparams(settings, metrics):
            self.writer._get_file_writer().add_summary(part)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def _verbatim(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return "\n".join("    " + line for line in text.splitlines())


def _grid(images_NCHW: Tensor) -> Tensor:
    """Images in rows with grey between, uint8 (C, H, W); torchvision's takes seconds to load."""
    framed_NCHW = F.pad(images_NCHW[:IMAGES_SHOWN].cpu(), (1, 1, 1, 1), value=GREY)
    missing = -len(framed_NCHW) % IMAGES_IN_A_ROW
    whole_NCHW = F.pad(framed_NCHW, (0, 0, 0, 0, 0, 0, 0, missing), value=GREY)
    rows_RnCHW: Tensor = whole_NCHW.unflatten(0, (-1, IMAGES_IN_A_ROW))
    return rows_RnCHW.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
