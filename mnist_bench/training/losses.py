"""The two losses of the published recipes, from logits. N images, K classes."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mnist_bench.config.schema import Loss

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


def build_objective(loss: Loss, label_smoothing: float) -> LossFunction:
    return partial(cross_entropy, smoothing=label_smoothing) if label_smoothing else LOSSES[loss]


def count_correct(logits_NK: Tensor, labels_N: Tensor) -> Tensor:
    """How many images have their largest logit at their label: a 0-d integer tensor."""
    return (logits_NK.argmax(1) == labels_N).sum()


def count_binary_correct(logits_NK: Tensor, labels_N: Tensor) -> Tensor:
    """How many of the N x K softmax outputs lie on the right side of 0.5: a 0-d integer tensor.

    What Keras reports as accuracy when a network is compiled with binary cross-entropy.
    """
    targets_NK = F.one_hot(labels_N, logits_NK.shape[1]).bool()
    return ((logits_NK.float().softmax(1) > 0.5) == targets_NK).sum()
