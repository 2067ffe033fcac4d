"""The two losses of the published recipes, from logits. N images, K classes."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnist_bench.config.parts import Part
from mnist_bench.config.schema import Loss, LossConfig

LossFunction = Callable[[Tensor, Tensor], Tensor]

# Keras clips probabilities to [1e-7, 1 - 1e-7] (`keras.backend.epsilon()`).
KERAS_EPSILON = 1e-7


def cross_entropy(logits_NK: Tensor, labels_N: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean over the images of -log softmax(logits)[label], in float32.

    With `smoothing` s the target is 1 - s at the label plus s / K everywhere, as in Keras.
    """
    return F.cross_entropy(logits_NK.float(), labels_N, label_smoothing=smoothing)


def binary_cross_entropy(logits_NK: Tensor, labels_N: Tensor) -> Tensor:
    """Keras's `binary_crossentropy` on the softmax output: each output is its own yes or no.

    Mean over all N x K outputs, in float32, with probabilities clipped as Keras clips them.
    """
    probabilities_NK = logits_NK.float().softmax(1).clamp(KERAS_EPSILON, 1 - KERAS_EPSILON)
    targets_NK = F.one_hot(labels_N, logits_NK.shape[1])
    right_NK = torch.where(targets_NK.bool(), probabilities_NK, 1 - probabilities_NK)
    return -right_NK.log().mean()


LOSSES: dict[Loss, LossFunction] = {
    Loss.cross_entropy: cross_entropy,
    Loss.binary_cross_entropy: binary_cross_entropy,
}


def build_loss(config: LossConfig | Part, device: torch.device) -> LossFunction:
    """Return the loss of logits (N, K) and labels (int64, N): a mean over the images, 0-d.

    Raises:
        ConfigError: a class of the user's own is not an `nn.Module` that can be called so.
    """
    if isinstance(config, Part):
        return config.build(nn.Module, {}, {}).to(device)
    return LOSSES[config.name]


def build_objective(loss: LossFunction, label_smoothing: float) -> LossFunction:
    """Return what training makes small: the loss, unless labels are smoothed."""
    return partial(cross_entropy, smoothing=label_smoothing) if label_smoothing else loss
