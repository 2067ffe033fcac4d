"""What is drawn, against Keras's own draws: initial weights and dropout.

Two samples of a distribution never agree exactly: tolerances are given in standard errors, and the
seeds are fixed, so that a test that passes always passes.
"""

import math
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from mnist_bench.config.schema import Initializer, TrainConfig
from mnist_bench.data.datasets import MNIST
from mnist_bench.data.published import load_images
from mnist_bench.exchange.keras.layers import to_keras
from mnist_bench.kernels import accelerate
from mnist_bench.models import ConvNet
from mnist_bench.models.initializers import initialise
from tests.support import keras_reference
from tests.support.keras_reference import NETWORKS

Compose = Callable[..., TrainConfig]
# Deviations from the expected value that pass: one draw in 1.7 million lies beyond.
SIGMAS = 5
# Smallest probability of a difference between two samples that passes as chance.
CHANCE = 1e-4
DRAWS = 100_000


# --- Initial weights --------------------------------------------------------------------------


def gap_to_bound(count: int) -> float:
    """How far below the bound the largest of `count` sizes may lie, as a share of the bound.

    Of all that Keras draws, a normal truncated at two deviations is rarest at its bound. The gap to
    the nearest draw is exponential, and beyond eight times its mean once in 3,000 samples.
    """
    density = 2 * stats.norm.pdf(2) / (stats.norm.cdf(2) - stats.norm.cdf(-2))
    return 8 / (count * density) / 2


def assert_same_distribution(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Same shape (Kolmogorov-Smirnov), mean, variance and bound, by the first 1e5 draws of each."""
    assert ours.shape == theirs.shape
    ours, theirs = (draws.ravel()[:DRAWS].astype(np.float64) for draws in (ours, theirs))
    count, variance = theirs.size, theirs.var()
    assert stats.ks_2samp(ours, theirs).pvalue > CHANCE
    assert abs(ours.mean() - theirs.mean()) < SIGMAS * math.sqrt(2 * variance / count)
    # The standard error of a variance is at most that of a normal's, variance * √(2 / count).
    assert abs(ours.var() / variance - 1) < SIGMAS * math.sqrt(2 * 2 / count)
    assert np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=gap_to_bound(count))


KERAS_INITIALIZERS = {
    Initializer.glorot_uniform: keras.initializers.GlorotUniform,
    Initializer.glorot_normal: keras.initializers.GlorotNormal,
    Initializer.he_uniform: keras.initializers.HeUniform,
    Initializer.he_normal: keras.initializers.HeNormal,
}


@pytest.mark.parametrize("shape", [(250, 400), (5, 5, 50, 80)], ids=["dense", "convolution"])
@pytest.mark.parametrize("initializer", Initializer)
def test_initialisers_draw_as_those_of_keras(
    initializer: Initializer, shape: tuple[int, ...]
) -> None:
    """`shape` is Keras's, with another fan-in than fan-out; ours is the reverse."""
    theirs = np.array(KERAS_INITIALIZERS[initializer](seed=0)(shape))
    torch.manual_seed(0)
    weight = torch.empty(shape[::-1])
    initialise(weight, initializer)
    assert weight.numel() >= DRAWS
    assert_same_distribution(weight.numpy().T, theirs)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_start_as_in_keras(compose: Compose, name: str) -> None:
    """Kernels come from Keras's distributions; everything else starts at exactly Keras's values."""
    model = keras_reference.fresh_reference(name, seed=0)
    torch.manual_seed(0)
    ours = [layer for layer in to_keras(ConvNet(compose(f"model={name}").model)) if layer.variables]
    for layer, theirs in zip(ours, keras_reference.keras_layers(model), strict=True):
        assert layer.kind == theirs.kind
        drawn = layer.kind != "BatchNormalization"
        if drawn:
            assert_same_distribution(layer.variables[0], theirs.variables[0])
        for found, expected in zip(layer.variables[drawn:], theirs.variables[drawn:], strict=True):
            np.testing.assert_array_equal(found, expected)


# --- Dropout ----------------------------------------------------------------------------------


def dropouts(network: nn.Module) -> list[nn.Module]:
    return [m for name, m in network.named_modules() if "dropout" in name.rpartition(".")[2]]


def masked(values: np.ndarray, inputs: np.ndarray) -> tuple[float, np.ndarray]:
    """The share of the values that were dropped, and by how much the others were multiplied."""
    kept = values != 0
    return 1 - kept.mean(), values[kept] / inputs[kept]


@pytest.mark.parametrize("name", NETWORKS)
def test_dropout_drops_and_scales_as_in_keras(
    compose: Compose, mnist_root: Path, name: str
) -> None:
    """Layer by layer, in training, on real pixels that are not 0 already."""
    pixels = load_images(MNIST, mnist_root).train_images[:2000]
    inputs = (pixels[pixels > 0].float() / 255)[None]
    theirs = [layer for layer in NETWORKS[name]() if isinstance(layer, keras.layers.Dropout)]
    network = ConvNet(compose(f"model={name}").model)
    ours = dropouts(accelerate(network, torch.device("cpu")))
    torch.manual_seed(0)
    keras.utils.set_random_seed(0)
    for layer, reference in zip(ours, theirs, strict=True):
        expected = np.array(reference(inputs.numpy(), training=True))
        dropped, factors = masked(layer.train()(inputs).numpy(), inputs.numpy())
        expected_dropped, expected_factors = masked(expected, inputs.numpy())
        error = math.sqrt(reference.rate * (1 - reference.rate) / inputs.numel())
        assert dropped == pytest.approx(reference.rate, abs=SIGMAS * error)
        assert dropped == pytest.approx(expected_dropped, abs=SIGMAS * math.sqrt(2) * error)
        np.testing.assert_allclose(expected_factors, 1 / (1 - reference.rate), rtol=1e-6)
        np.testing.assert_allclose(factors, 1 / (1 - reference.rate), rtol=1e-6)
        assert torch.equal(layer.eval()(inputs), inputs)
