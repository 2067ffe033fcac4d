"""One training step, and one evaluation. N images, H rows, W columns, K classes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mnist_bench.config.schema import Precision, TrainConfig, TrainerConfig
from mnist_bench.data.augmentation import Augmentation, build_augmentation
from mnist_bench.data.splits import ImageSet, PixelScaling, Splits
from mnist_bench.kernels import accelerate, describe, resolve
from mnist_bench.models import build_network, summarise
from mnist_bench.training.averaging import WeightAverage
from mnist_bench.training.device import Placement, set_up_torch
from mnist_bench.training.losses import LossFunction, build_loss, build_objective
from mnist_bench.training.metrics import Metric, Totals, measure_all, metrics_for
from mnist_bench.training.optimizers import build_optimizer, learning_rate
from mnist_bench.training.optimizers.state import is_recordable, set_learning_rate
from mnist_bench.training.schedulers import Schedule, build_schedule

# Images per forward pass of an evaluation: enough to fill a device, few enough for its memory.
EVALUATION_BATCH = {"cpu": 500, "cuda": 5000}


@dataclass
class Learner:
    """A network and everything that a training step needs to change it."""

    network: nn.Module
    loss: LossFunction
    # What training makes small: the loss, unless labels are smoothed.
    objective: LossFunction
    metrics: dict[str, Metric]
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    placement: Placement
    scaling: PixelScaling
    batch_size: int  # of all steps but an epoch's last, which takes what is left
    # The network as torch.compile makes it, for batches of the full size: one step of an epoch is
    # not worth another compilation.
    compiled: Callable[[Tensor], Tensor] | None = None
    cuda_graphs: bool = True
    augmentation: Augmentation | None = None
    average: WeightAverage | None = None
    clip_norm: float | None = None
    kernels: str = "off"  # what computes the layers, as summary.json says it
    steps: int = 0  # taken so far
    rate: float | None = None  # the learning rate that the optimizer has been given

    def new_totals(self) -> Totals:
        return Totals(self.placement.device, self.metrics)

    @property
    def recordable(self) -> bool:
        """Whether CUDA graphs are wanted, and nothing in a step waits for the device.

        Loss scaling, which fp16 needs, looks at the gradients on the host unless the optimizer's
        kernel does it.
        """
        return (
            self.cuda_graphs
            and self.placement.device.type == "cuda"
            and is_recordable(self.optimizer)
            and (
                self.placement.precision is not Precision.fp16
                or getattr(self.optimizer, "_step_supports_amp_scaling", False)
            )
        )

    @property
    def tested(self) -> nn.Module:
        """The network that is validated and tested: the mean one, if there is one."""
        return self.network if self.average is None else self.average.network

    def begin_step(self) -> None:
        """Give the optimizer its learning rate, and count the step."""
        rate = self.schedule(self.steps)
        if rate != self.rate:
            set_learning_rate(self.optimizer, rate)
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
        full = len(batch_N) == self.batch_size
        forward = self.compiled if self.compiled is not None and full else self.network
        pixels = self.augmentation(batch.images) if self.augmentation else batch.images
        with self.placement.autocast():
            logits_NK = forward(self.scaling(pixels))
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

    def evaluate(self, images: ImageSet, part: str) -> tuple[dict[str, float], Tensor]:
        """Return loss and metrics of a set of images, and its logits; see `evaluate`."""
        return evaluate(
            self.tested, images, part, self.loss, self.metrics, self.placement, self.scaling
        )


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    images: ImageSet,
    part: str,
    loss: LossFunction,
    metrics: dict[str, Metric],
    placement: Placement,
    scaling: PixelScaling,
) -> tuple[dict[str, float], Tensor]:
    """Return loss and metrics of a set of images, and its logits, float32 (N, K) on the CPU.

    `part` is "val" or "test": which metrics of the table belong to it. Network and images are on
    the device of `placement`.
    """
    was_training = network.training
    network.eval()
    totals = Totals(placement.device, metrics)
    logits = []
    size = EVALUATION_BATCH[placement.device.type]
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        with placement.autocast():
            logits_NK = network(scaling(batch.images))
        totals.add(loss(logits_NK, batch.labels), logits_NK, batch.labels)
        totals.images += len(batch.labels)
        logits.append(logits_NK.float())
    network.train(was_training)
    logits_NK = torch.cat(logits).cpu()
    whole = measure_all(metrics, part, logits_NK, images.labels.cpu())
    return totals.averages() | whole, logits_NK


def build_learner(config: TrainConfig, placement: Placement, splits: Splits) -> Learner:
    """Seed PyTorch, and build a fresh network with its optimizer.

    Weights are drawn on the CPU, alike for every device.
    """
    trainer = config.trainer
    set_up_torch(config.seed, placement.precision, trainer.deterministic)
    network = placement.place(build_network(config.model, splits.num_classes, splits.image_shape))
    accelerate(network, placement.device, trainer.kernels.name)
    steps = count_steps(len(splits.train), trainer.batch_size)
    images = trainer.epochs * len(splits.train)
    compiled = None
    if compiles(trainer, placement, network, images, splits.image_shape):
        torch._dynamo.reset()  # which compiles no more than eight networks in a process
        compiled = torch.compile(network)
    decay = trainer.ema_decay
    loss = build_loss(config.loss, placement.device)
    return Learner(
        network=network,
        loss=loss,
        objective=build_objective(loss, config.label_smoothing),
        metrics=metrics_for(config.loss),
        optimizer=build_optimizer(config.optimizer, network.parameters(), trainer.fused_optimizer),
        schedule=build_schedule(
            config.scheduler, learning_rate(config.optimizer), trainer.epochs, steps
        ),
        scaler=placement.scaler(),
        placement=placement,
        scaling=splits.scaling,
        batch_size=trainer.batch_size,
        compiled=compiled,
        cuda_graphs=trainer.cuda_graphs,
        augmentation=build_augmentation(config.augmentation),
        average=None if decay is None else WeightAverage(network, decay),
        clip_norm=trainer.clip_norm,
        kernels=describe(resolve(trainer.kernels.name, placement.device)),
    )


# Seconds that compiling a network takes, and that it saves for each value of each layer's output
# and each training image: 1.3 to 6 s, and 1.1e-11 to 1.9e-11 s, for three networks in bf16 on an
# NVIDIA H200 in batches of 128 (`benchmarks/results/`, "compiled"). `conv3_dense7744`, in batches
# of 32, saves 5.2e-11 s for 2.4 s, and its published training is too short for that as well.
COMPILE_SECONDS = 6.0
COMPILE_SAVES = 1.5e-11


def compiles(
    trainer: TrainerConfig,
    placement: Placement,
    network: nn.Module,
    images: int,
    image_shape: tuple[int, int, int],
) -> bool:
    """Whether a training on so many images, all epochs together, goes through torch.compile.

    `auto` compiles on CUDA where that is expected to save more time than it takes. It does not
    measure: the same configuration has to compute the same way each time.
    """
    if isinstance(trainer.compile, bool):
        return trainer.compile
    if placement.device.type != "cuda":
        return False
    values = sum(math.prod(layer.output_shape) for layer in summarise(network, image_shape))
    return images * values * COMPILE_SAVES > COMPILE_SECONDS


def count_steps(images: int, batch_size: int) -> int:
    """Steps of an epoch; the last one takes what is left."""
    return math.ceil(images / batch_size)


def batch_sizes(images: int, batch_size: int) -> list[int]:
    """The sizes of an epoch's batches: the full one, and what is left for the last, if any is."""
    whole, rest = divmod(images, batch_size)
    return [batch_size] * (whole > 0) + [rest] * (rest > 0)
