"""One training step, and one evaluation. N images, H rows, W columns, K classes."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mnist_bench.augmentation import Augmentation, build_augmentation
from mnist_bench.averaging import WeightAverage
from mnist_bench.config import TrainConfig
from mnist_bench.data.splits import ImageSet, PixelScaling, Splits
from mnist_bench.graphs import can_record
from mnist_bench.losses import (
    LOSSES,
    LossFunction,
    binary_cross_entropy,
    build_objective,
    count_binary_correct,
    count_correct,
)
from mnist_bench.models import ConvNet
from mnist_bench.optimizers import build_optimizer
from mnist_bench.placement import Placement
from mnist_bench.schedulers import Schedule, build_schedule

# Images per forward pass of an evaluation: enough to fill a device, few enough for its memory.
EVALUATION_BATCH = {"cpu": 500, "cuda": 5000}


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

    def reset(self) -> None:
        self.sums.zero_()
        self.images = 0

    def add(self, loss: Tensor, logits_NK: Tensor, labels_N: Tensor) -> None:
        """Add a batch to the sums; `images` is for the caller to count."""
        count, self.outputs_per_image = logits_NK.shape
        loss_sum, correct, binary_correct = self.sums.unbind()
        loss_sum.add_(loss, alpha=count)
        correct.add_(count_correct(logits_NK, labels_N))
        if self.binary:
            binary_correct.add_(count_binary_correct(logits_NK, labels_N))

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
        self.sums.copy_(torch.as_tensor(state["sums"]))
        self.outputs_per_image = int(state["outputs_per_image"])
        self.images = int(state["images"])


@dataclass
class Learner:
    """A network and everything that a training step needs to change it."""

    network: nn.Module
    # The network, compiled if that was asked for; training steps go through it.
    forward: Callable[[Tensor], Tensor]
    loss: LossFunction
    # What training makes small: the loss, unless labels are smoothed.
    objective: LossFunction
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    placement: Placement
    scaling: PixelScaling
    augmentation: Augmentation | None = None
    average: WeightAverage | None = None
    clip_norm: float | None = None
    steps: int = 0  # taken so far
    rate: float | None = None  # the learning rate that the optimizer has been given
    # Where a step draws its random numbers from; PyTorch's generators, unless others use them too.
    randomness: AbstractContextManager[object] = field(default_factory=nullcontext)

    def new_totals(self) -> Totals:
        return Totals(self.placement.device, binary=self.loss is binary_cross_entropy)

    @property
    def recordable(self) -> bool:
        """Whether its optimizer leaves out the host, so that a CUDA graph can hold a step."""
        return all(isinstance(group["lr"], Tensor) for group in self.optimizer.param_groups)

    @property
    def tested(self) -> nn.Module:
        """The network that is validated and tested: the mean one, if there is one."""
        return self.network if self.average is None else self.average.network

    def begin_step(self) -> None:
        """Give the optimizer its learning rate, and count the step."""
        rate = self.schedule(self.steps)
        if rate != self.rate:
            for group in self.optimizer.param_groups:
                if isinstance(group["lr"], Tensor):  # on the device, where a graph reads it
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate
        self.rate = rate
        if self.average is not None:
            self.average.begin_step(self.steps)
        self.steps += 1

    def compute(self, images: ImageSet, totals: Totals, batch_N: Tensor) -> None:
        """All that a step does on the device; nothing in it waits for it.

        Trains on the images that `batch_N` (int64, on the device) picks, and adds to the sums of
        `totals`.
        """
        batch = images[batch_N]
        with self.randomness:
            pixels = self.augmentation(batch.images) if self.augmentation else batch.images
            with self.placement.autocast():
                logits_NK = self.forward(self.scaling(pixels))
        loss = self.objective(logits_NK, batch.labels)
        for group in self.optimizer.param_groups:
            for weight in group["params"]:
                weight.grad = None  # `zero_grad`, with its hooks, takes 0.1 ms here
        self.scaler.scale(loss).backward()
        if self.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update()
        totals.add(loss.detach(), logits_NK.detach(), batch.labels)

    @torch.inference_mode()
    def evaluate(self, images: ImageSet) -> tuple[Averages, Tensor]:
        """Loss and accuracy on a set of images, and its logits, float32 (N, K) on the CPU."""
        network = self.tested
        was_training = network.training
        network.eval()
        totals = self.new_totals()
        logits = []
        size = EVALUATION_BATCH[self.placement.device.type]
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            with self.placement.autocast():
                logits_NK = network(self.scaling(batch.images))
            totals.add(self.loss(logits_NK, batch.labels), logits_NK, batch.labels)
            totals.images += len(batch.labels)
            logits.append(logits_NK.float())
        network.train(was_training)
        return totals.averages(), torch.cat(logits).cpu()


def build_learner(config: TrainConfig, placement: Placement, splits: Splits) -> Learner:
    """A fresh network with its optimizer; weights are drawn on the CPU, alike for every device."""
    network = placement.place(ConvNet(config.model, splits.num_classes))
    optimizer = build_optimizer(
        config.optimizer, network.parameters(), can_record(config.trainer, placement)
    )
    steps = count_steps(len(splits.train), config.trainer.batch_size)
    decay = config.trainer.ema_decay
    return Learner(
        network=network,
        forward=torch.compile(network) if config.trainer.compile else network,
        loss=LOSSES[config.loss],
        objective=build_objective(config.loss, config.label_smoothing),
        optimizer=optimizer,
        schedule=build_schedule(
            config.scheduler, config.optimizer.lr, config.trainer.epochs, steps
        ),
        scaler=placement.scaler(),
        placement=placement,
        scaling=splits.scaling,
        augmentation=build_augmentation(config.augmentation),
        average=None if decay is None else WeightAverage(network, decay),
        clip_norm=config.trainer.clip_norm,
    )


def count_steps(images: int, batch_size: int) -> int:
    """Steps of an epoch; the last one takes what is left."""
    return math.ceil(images / batch_size)
