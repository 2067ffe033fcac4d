"""The nine networks against the same ones in Keras: layers, logits, losses and gradients, in fp32.

N images, C channels, H rows, W columns, K classes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import keras
import numpy as np
import pytest
import torch

from mnist_bench.config.schema import Loss, TrainConfig
from mnist_bench.data.images import Images
from mnist_bench.kernels import accelerate
from mnist_bench.models import ConvNet, count_parameters, summarise
from mnist_bench.training.losses import LOSSES
from tests.support import keras_reference
from tests.support.keras_reference import (
    NETWORKS,
    double_precision,
    in_our_layout,
    relative_error,
    steady_images,
    to_logits,
)

Compose = Callable[..., TrainConfig]

KERAS_LOSSES = {
    Loss.cross_entropy: keras.losses.CategoricalCrossentropy(),
    Loss.binary_cross_entropy: keras.losses.BinaryCrossentropy(),
}
# Tolerance of fp32. The largest errors found are 1.3e-6 in logits and 5.1e-6 in gradients.
CLOSE = 1e-5
# How far from tipping, relative to the largest value of a map: some times its rounding error.
STEADY = 2e-6


@dataclass(frozen=True)
class Batch:
    """Real images, from 0 to 1, and their labels.

    For us images (N, 1, H, W) and labels (N,), for Keras (N, H, W, 1) and one-hot (N, K).
    """

    images: torch.Tensor
    labels: torch.Tensor

    @property
    def keras_images(self) -> np.ndarray:
        return self.images.permute(0, 2, 3, 1).numpy()

    @property
    def keras_labels(self) -> np.ndarray:
        return np.eye(10, dtype=np.float32)[self.labels.numpy()]


@pytest.fixture(scope="module")
def many(images: Images) -> Batch:
    return Batch(images.train_images[:128, None].float() / 255, images.train_labels[:128])


@pytest.fixture(scope="module")
def batch(many: Batch) -> Batch:
    return Batch(many.images[:32], many.labels[:32])


@dataclass(frozen=True)
class Pair:
    """A network of ours and of Keras's, without dropout, with the same weights."""

    name: str
    ours: ConvNet
    keras: keras.Sequential


@pytest.fixture(scope="module", params=NETWORKS)
def pair(request: pytest.FixtureRequest, compose: Compose) -> Pair:
    model = keras_reference.trained_reference(request.param, seed=0, dropout=False)
    network = ConvNet(compose(f"model={request.param}", "model.dropout=0").model)
    network.load_state_dict(in_our_layout(model, network), strict=False)
    accelerate(network, torch.device("cpu"))
    return Pair(request.param, network, model)


# --- Layers -----------------------------------------------------------------------------------

KINDS = {
    "Conv2D": "Conv2d",
    "MaxPooling2D": "MaxPool2d",
    "Dropout": "Dropout",
    "Dense": "Linear",
    "BatchNormalization": "BatchNorm1d",
}


def channels_first(layer: keras.Layer) -> tuple[int, ...]:
    """The layer's output shape as ours has it; our dropout on the features sees them flattened."""
    shape = layer.output.shape[1:]
    if isinstance(layer, keras.layers.Dropout):
        return (math.prod(shape),)
    return (shape[-1], *shape[:-1])


def test_layers_have_the_shapes_and_parameters_of_keras(pair: Pair, compose: Compose) -> None:
    with torch.device("meta"):
        network = ConvNet(compose(f"model={pair.name}").model)  # with dropout
    rows = summarise(network, (1, 28, 28))
    assert [(row.kind, row.output_shape, row.parameters) for row in rows] == [
        (KINDS[type(layer).__name__], channels_first(layer), layer.count_params())
        for layer in pair.keras.layers
        if type(layer).__name__ in KINDS
    ]
    assert count_parameters(network) == pair.keras.count_params()


# --- Logits -----------------------------------------------------------------------------------


def test_logits_equal_those_of_keras(pair: Pair, batch: Batch) -> None:
    """From the same weights, none of them 0 or 1, with batch norm's running statistics."""
    expected_NK = np.asarray(to_logits(pair.keras)(batch.keras_images, training=False))
    with torch.inference_mode():
        logits_NK = pair.ours.eval()(batch.images)
    assert relative_error(logits_NK, expected_NK) < CLOSE


# --- Losses and gradients ---------------------------------------------------------------------


def keras_losses_and_gradients(
    model: keras.Sequential, batch: Batch
) -> dict[Loss, tuple[float, dict[str, np.ndarray]]]:
    """Of a training step: each loss, and its gradient with respect to each variable, by path."""
    running = [variable.value for variable in model.non_trainable_variables]

    def objective(weights: list[jax.Array], loss: Loss) -> jax.Array:
        outputs, _ = model.stateless_call(weights, running, batch.keras_images, training=True)
        return KERAS_LOSSES[loss](batch.keras_labels, outputs)

    @jax.jit
    def each_loss(weights: list[jax.Array]) -> list[tuple[jax.Array, list[jax.Array]]]:
        return [jax.value_and_grad(objective)(weights, loss) for loss in KERAS_LOSSES]

    results = {}
    found = each_loss([variable.value for variable in model.trainable_variables])
    for loss, (value, gradients) in zip(KERAS_LOSSES, found, strict=True):
        by_path = {variable.path: np.zeros(variable.shape) for variable in model.weights}
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
            by_path[variable.path] = np.array(gradient)
        results[loss] = float(value), by_path
    return results


def test_losses_and_gradients_equal_those_of_keras(pair: Pair, many: Batch) -> None:
    """In training, where gradients flow through the statistics of the batch in batch norm."""
    steady = steady_images(pair.ours, many.images, STEADY).nonzero().flatten()[:14]
    assert len(steady) == 14
    batch = Batch(many.images[steady], many.labels[steady])
    pair.ours.train()
    for loss, (expected_loss, gradients) in keras_losses_and_gradients(pair.keras, batch).items():
        expected = in_our_layout(pair.keras, pair.ours, gradients)
        pair.ours.zero_grad()
        found_loss = LOSSES[loss](pair.ours(batch.images), batch.labels)
        found_loss.backward()

        assert found_loss.item() == pytest.approx(expected_loss, rel=CLOSE)
        for name, weight in pair.ours.named_parameters():
            assert weight.grad is not None and expected[name].any(), name
            assert relative_error(weight.grad, expected[name]) < CLOSE, (loss, name)


@pytest.mark.parametrize("scale", [1, 10, 30])
@pytest.mark.parametrize(
    ("loss", "reference"),
    [
        (Loss.cross_entropy, partial(keras.losses.CategoricalCrossentropy, from_logits=True)),
        (Loss.binary_cross_entropy, keras.losses.BinaryCrossentropy),
    ],
)
def test_losses_equal_those_of_keras_however_sure_the_network_is(
    loss: Loss, reference: Callable[[], keras.Loss], scale: float
) -> None:
    """Past 1 - 1e-7 Keras's binary loss is clipped, and so is its gradient.

    Keras's categorical loss is computed from logits here, as Keras on TensorFlow does for a softmax
    output; on JAX it would clip those probabilities too, and pass no gradient for a sure mistake.
    In float64, where no probability lies on the clipping's edge, and 1 - p has nine digits there.
    """
    rng = np.random.default_rng(0)
    logits_NK, labels_N = rng.normal(0, scale, (200, 10)), rng.integers(0, 10, 200)

    def objective(logits_NK: jax.Array) -> jax.Array:
        sure = logits_NK if loss is Loss.cross_entropy else keras.ops.softmax(logits_NK)
        return reference()(np.eye(10)[labels_N], sure)

    with double_precision():
        expected, gradient_NK = jax.value_and_grad(objective)(jax.numpy.array(logits_NK))
        variable = torch.from_numpy(logits_NK).requires_grad_()
        found = LOSSES[loss](variable, torch.from_numpy(labels_N))
        found.backward()
    assert found.item() == pytest.approx(float(expected), rel=1e-8)
    assert variable.grad is not None
    assert relative_error(variable.grad, gradient_NK) < 1e-8
