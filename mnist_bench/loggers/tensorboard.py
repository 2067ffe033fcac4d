"""The TensorBoard view of a run. The records are the plain files; this only shows them."""

from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from mnist_bench.config.schema import TrainConfig
from mnist_bench.data.splits import ImageSet
from mnist_bench.training.loop import EpochRecord

IMAGES_SHOWN = 64
IMAGES_IN_A_ROW = 16
GREY = 128

# What the HPARAMS page shows of every run, beside what its command line set. The page shows the
# first five of the alphabet unasked, so settings that hardly ever vary are left out.
HYPERPARAMETERS = {
    *("data.name", "loss", "model.dropout", "model.kernel_size", "model.name", "optimizer.lr"),
    *("optimizer.name", "scheduler.name", "seed", "trainer.batch_size", "trainer.epochs"),
}

# EpochRecord field -> tag.
SCALARS = {
    "train_loss": "loss/train",
    "val_loss": "loss/val",
    "train_accuracy": "accuracy/train",
    "val_accuracy": "accuracy/val",
    "train_binary_accuracy": "binary_accuracy/train",
    "val_binary_accuracy": "binary_accuracy/val",
    "learning_rate": "learning_rate",
    "images_per_second": "throughput/images_per_second",
}


class Board:
    """Writes the event files of one run into `folder`.

    A resumed run has a `history`: what was written since its last epoch is taken back, and that
    epoch is written again, as the run may have been killed before it was.
    """

    def __init__(self, folder: Path, history: Sequence[EpochRecord] = ()):
        purge_step = history[-1].epoch if history else None
        self.writer = SummaryWriter(str(folder), purge_step=purge_step)
        if history:
            self.show_epoch(history[-1])

    def close(self) -> None:
        self.writer.close()

    def show_start(self, configuration: str, model_summary: str, images: ImageSet) -> None:
        """The configuration (YAML), the layers, and the first training images."""
        self.writer.add_text("configuration", _verbatim(configuration))
        self.writer.add_text("model", _verbatim(model_summary))
        self.writer.add_image("images/train", _grid(images.images))

    def show_epoch(self, record: EpochRecord) -> None:
        values = asdict(record)
        for key, tag in SCALARS.items():
            if values[key] is not None:
                self.writer.add_scalar(tag, values[key], record.epoch)
        self.writer.flush()

    def show_end(
        self,
        config: TrainConfig,
        epoch: int,
        figures: dict[str, Any],
        test: ImageSet,
        wrong: Tensor,
    ) -> None:
        """Hyper-parameters with the final figures, and the first test images that went wrong."""
        metrics = {
            "accuracy/test": figures["test_accuracy"],
            "loss/test": figures["test_loss"],
        }
        if figures["val_accuracy"] is not None:
            metrics["accuracy/val"] = figures["val_accuracy"]
        for tag in ("accuracy/test", "loss/test"):
            self.writer.add_scalar(tag, metrics[tag], epoch)
        if len(wrong):
            self.writer.add_image("images/test_errors", _grid(test.images[wrong]), epoch)
        set_keys = {override.partition("=")[0].lstrip("+") for override in figures["overrides"]}
        settings = {
            key: value
            for key, value in _flatten(config).items()
            if key in HYPERPARAMETERS | set_keys
        }
        # `add_hparams` would open a second run; its three summaries belong to this one.
        for summary in hparams(settings, metrics):
            self.writer._get_file_writer().add_summary(summary)


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


def _flatten(config: Any, prefix: str = "") -> dict[str, bool | int | float | str]:
    """Every setting by its dotted key, as the command line names it."""
    flat: dict[str, bool | int | float | str] = {}
    for entry in fields(config):
        key, value = f"{prefix}{entry.name}", getattr(config, entry.name)
        if is_dataclass(value):
            flat.update(_flatten(value, f"{key}."))
        elif isinstance(value, Enum):
            flat[key] = value.name
        elif isinstance(value, bool | int | float | str):
            flat[key] = value
        else:
            flat[key] = str(value)
    return flat
