"""A training step and a checkpoint with classes of the user's own, before a run begins.

N images, K classes.
"""

import io
import math
import pickle

import torch
from torch import Tensor, nn

from mnist_bench.config.parts import Part
from mnist_bench.config.read import OWN_GROUPS
from mnist_bench.config.schema import TrainConfig
from mnist_bench.data.splits import Splits
from mnist_bench.errors import ConfigError
from mnist_bench.training.losses import LossFunction, build_loss
from mnist_bench.training.optimizers import build_optimizer
from mnist_bench.training.schedulers import build_schedule

CPU = torch.device("cpu")


def has_own_parts(config: TrainConfig) -> bool:
    """Return whether a class of the user's own takes part in a training step."""
    return any(isinstance(getattr(config, group), Part) for group in OWN_GROUPS)


def try_own_parts(config: TrainConfig, splits: Splits, network: nn.Module) -> None:
    """Take one step with two images, save and read back; `network` is changed by it.

    Raises:
        ConfigError: names the part that fails, and what is expected of it.
    """
    images, labels = splits.scaling(splits.train[:2].images), splits.train.labels[:2]
    if isinstance(config.model, Part):
        _try_forward(config.model, network, images, splits.num_classes)
    loss = build_loss(config.loss, CPU)
    if isinstance(config.loss, Part):
        _try_loss(config.loss, loss, torch.zeros(2, splits.num_classes), labels)
    if isinstance(config.model, Part):
        _try_backward(config.model, network, images, loss, labels)
    _try_schedule(config)
    if isinstance(config.model, Part):
        _try_checkpoint(config.model, network)
    if isinstance(config.optimizer, Part):
        optimizer = build_optimizer(config.optimizer, network.parameters())
        for weight in network.parameters():
            weight.grad = torch.zeros_like(weight)
        with config.optimizer.blamed("fails in a step"):
            optimizer.step()
        _try_checkpoint(config.optimizer, optimizer)


def _try_forward(own: Part, network: nn.Module, images: Tensor, classes: int) -> None:
    target = f"model._target_={own.target}"
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in network.parameters()):
        raise ConfigError(
            f"{target} has a layer that learns its size from the first images, such as LazyLinear: "
            f"give the size, which image_shape in __init__ tells."
        )
    network.eval()
    with torch.inference_mode(), own.blamed(f"fails on images of {tuple(images.shape)}"):
        logits = network(images)
    expected = (len(images), classes)
    if not isinstance(logits, Tensor) or logits.shape != expected:
        what = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ConfigError(
            f"{target} returns {what} for images of {tuple(images.shape)}: its forward has to "
            f"return logits of shape {expected}, one for each class."
        )
    if not any(p.requires_grad for p in network.parameters()):
        raise ConfigError(f"{target} has no parameters to train.")


def _try_loss(own: Part, loss: LossFunction, logits_NK: Tensor, labels_N: Tensor) -> None:
    target = f"loss._target_={own.target}"
    if isinstance(loss, nn.Module) and list(loss.parameters()):
        raise ConfigError(
            f"{target} has parameters, which would not be trained: make them a part of the network."
        )
    with own.blamed("fails on logits (N, K) and labels (N,)"):
        value = loss(logits_NK, labels_N)
    if not isinstance(value, Tensor) or value.dim() > 0:
        raise ConfigError(
            f"{target} does not return one number: it is called with logits (N, K) and labels "
            f"(N,), and has to return their mean loss, a 0-d tensor."
        )


def _try_backward(
    own: Part, network: nn.Module, images: Tensor, loss: LossFunction, labels_N: Tensor
) -> None:
    fresh = network.state_dict().keys()
    with own.blamed("fails in a training step"):
        network.train()
        loss(network(images).float(), labels_N).backward()
    if network.state_dict().keys() != fresh:
        raise ConfigError(
            f"model._target_={own.target} makes layers or buffers in forward, which neither an "
            f"optimizer nor a checkpoint would know of: make them in __init__."
        )


def _try_schedule(config: TrainConfig) -> None:
    if not isinstance(config.scheduler, Part):
        return
    schedule = build_schedule(config.scheduler, 1.0, epochs=1, steps_per_epoch=1)
    with config.scheduler.blamed("fails in factor(0)"):
        factor = schedule(0)
    if not (isinstance(factor, float) and math.isfinite(factor)):
        raise ConfigError(
            f"scheduler._target_={config.scheduler.target} returns {factor} from factor(0): it has "
            f"to return the number that the learning rate is multiplied by."
        )


def _try_checkpoint(own: Part, made: nn.Module | torch.optim.Optimizer) -> None:
    """Save and read back what a part keeps, as a checkpoint does: without running any code."""
    file = io.BytesIO()
    try:
        with own.blamed("cannot be saved and read back, as a checkpoint has to be"):
            torch.save(made.state_dict(), file)
            file.seek(0)
            made.load_state_dict(torch.load(file, weights_only=True))
    except ConfigError as error:
        if not isinstance(error.__cause__, pickle.UnpicklingError):
            raise
        raise ConfigError(
            f"{own.group}._target_={own.target} has in its state_dict what a checkpoint cannot "
            f"hold: keep tensors, numbers, text, lists and dicts there, and no arrays of NumPy or "
            f"objects."
        ) from error
