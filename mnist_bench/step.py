"""One training step, and one evaluation. N images, H rows, W columns, K classes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from mnist_bench.config import TrainConfig
from mnist_bench.data.splits import ImageSet, PixelScaling, Splits
from mnist_bench.losses import (
    LOSSES,
    LossFunction,
    binary_cross_entropy,
    count_binary_correct,
    count_correct,
)
from mnist_bench.models import ConvNet
from mnist_bench.optimizers import build_optimizer
from mnist_bench.placement import Placement
from mnist_bench.schedulers import build_scheduler

# Images per forward pass of an evaluation: enough to fill a device, few enough for its memory.
EVALUATION_BATCH = 500


@dataclass(frozen=True)
class Averages:
    """Means over the images seen. `binary_accuracy` is None unless the loss is binary."""

    loss: float
    accuracy: float
    binary_accuracy: float | None


class Totals:
    """Running sums of loss and right answers, kept on the device so that no step waits for it."""

    def __init__(self, device: torch.device, binary: bool):
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        self.outputs_per_image = 0
        self.images = 0
        self.binary = binary

    def add(self, loss: Tensor, logits_NK: Tensor, labels_N: Tensor) -> None:
        count, self.outputs_per_image = logits_NK.shape
        correct = count_correct(logits_NK, labels_N)
        binary = count_binary_correct(logits_NK, labels_N) if self.binary else correct
        self.sums += torch.stack([loss * count, correct, binary])
        self.images += count

    def averages(self) -> Averages:
        """Waits for the device."""
        loss, correct, binary_correct = (self.sums / self.images).tolist()
        binary_accuracy = binary_correct / self.outputs_per_image if self.binary else None
        return Averages(loss, correct, binary_accuracy)

    def state_dict(self) -> dict[str, Tensor | int]:
        return {
            "sums": self.sums,
            "outputs_per_image": self.outputs_per_image,
            "images": self.images,
        }

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        self.sums = torch.as_tensor(state["sums"], device=self.sums.device)
        self.outputs_per_image = int(state["outputs_per_image"])
        self.images = int(state["images"])


@dataclass
class Learner:
    """A network and everything that a training step needs to change it."""

    network: nn.Module
    # The network, compiled if that was asked for; training steps go through it.
    forward: Callable[[Tensor], Tensor]
    loss: LossFunction
    optimizer: torch.optim.Optimizer
    scheduler: LambdaLR
    scaler: torch.amp.GradScaler
    placement: Placement
    scaling: PixelScaling
    clip_norm: float | None = None
    last_learning_rate: float = 0.0

    def new_totals(self) -> Totals:
        return Totals(self.placement.device, binary=self.loss is binary_cross_entropy)

    def step(self, images_NHW: Tensor, labels_N: Tensor, totals: Totals) -> None:
        """Train on a batch, uint8 (N, H, W) and int64 (N,) on the device; add it to `totals`."""
        with self.placement.autocast():
            logits_NK = self.forward(self.scaling(images_NHW))
        loss = self.loss(logits_NK, labels_N)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.last_learning_rate = self.optimizer.param_groups[0]["lr"]
        self.scheduler.step()
        totals.add(loss.detach(), logits_NK.detach(), labels_N)

    @torch.inference_mode()
    def evaluate(self, images: ImageSet) -> tuple[Averages, Tensor]:
        """Loss and accuracy on a set of images, and its logits, float32 (N, K) on the CPU."""
        was_training = self.network.training
        self.network.eval()
        totals = self.new_totals()
        logits = []
        for start in range(0, len(images), EVALUATION_BATCH):
            batch = images[start : start + EVALUATION_BATCH]
            with self.placement.autocast():
                logits_NK = self.network(self.scaling(batch.images))
            totals.add(self.loss(logits_NK, batch.labels), logits_NK, batch.labels)
            logits.append(logits_NK.float())
        self.network.train(was_training)
        return totals.averages(), torch.cat(logits).cpu()


def build_learner(config: TrainConfig, placement: Placement, splits: Splits) -> Learner:
    """A fresh network with its optimizer; weights are drawn on the CPU, alike for every device."""
    network = placement.place(ConvNet(config.model, splits.num_classes))
    optimizer = build_optimizer(config.optimizer, network.parameters())
    steps = count_steps(len(splits.train), config.trainer.batch_size)
    return Learner(
        network=network,
        forward=torch.compile(network) if config.trainer.compile else network,
        loss=LOSSES[config.loss],
        optimizer=optimizer,
        scheduler=build_scheduler(config.scheduler, optimizer, config.trainer.epochs, steps),
        scaler=placement.scaler(),
        placement=placement,
        scaling=splits.scaling,
        clip_norm=config.trainer.clip_norm,
    )


def count_steps(images: int, batch_size: int) -> int:
    """Steps of an epoch; the last one takes what is left."""
    return math.ceil(images / batch_size)
