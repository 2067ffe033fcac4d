"""How networks start: the draws against Keras's bounds and variances, by hand."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mnist_bench.config.schema import Initializer, TrainConfig
from mnist_bench.models import ConvNet
from mnist_bench.models.initializers import initialise

Compose = Callable[..., TrainConfig]


def widened(std: float) -> float:
    """The deviation whose normal, cut at two of it on both sides, has the deviation `std`."""
    density = math.exp(-2) / math.sqrt(2 * math.pi)
    return std / math.sqrt(1 - 4 * density / math.erf(math.sqrt(2)))


@pytest.mark.parametrize("initializer", Initializer)
@pytest.mark.parametrize(
    ("shape", "fan_in", "fan_out"),
    [((400, 500), 500, 400), ((64, 48, 7, 7), 48 * 49, 64 * 49)],
    ids=["dense", "convolution"],
)
def test_kernels_are_drawn_as_keras_draws_them(
    initializer: Initializer, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> None:
    """Bounds, mean and variance of Keras's VarianceScaling over more than 1e5 draws."""
    torch.manual_seed(0)
    weight = torch.empty(shape)
    initialise(weight, initializer)
    variance, bound = {
        "glorot_uniform": (2 / (fan_in + fan_out), math.sqrt(6 / (fan_in + fan_out))),
        "he_uniform": (2 / fan_in, math.sqrt(6 / fan_in)),
        "glorot_normal": (
            2 / (fan_in + fan_out),
            2 * widened(math.sqrt(2 / (fan_in + fan_out))),
        ),
        "he_normal": (2 / fan_in, 2 * widened(math.sqrt(2 / fan_in))),
    }[initializer.name]
    draws = weight.double().flatten().numpy()
    assert abs(draws.mean()) < 5 * math.sqrt(variance / draws.size)
    assert draws.var() == pytest.approx(variance, rel=0.015)
    assert 0.998 * bound < np.abs(draws).max() <= bound * (1 + 1e-6)


def test_the_wide_networks_start_he_normal_and_end_glorot_normal(compose: Compose) -> None:
    torch.manual_seed(0)
    network = ConvNet(compose("model=wide3x3").model, num_classes=1000)
    expected = {
        "features.conv1": 2 / 9,
        "features.conv2": 2 / (64 * 9),
        "classifier.dense1": 2 / (128 * 12 * 12),
        "classifier.output": 2 / (128 + 1000),
    }
    for name, variance in expected.items():
        layer = network.get_submodule(name)
        draws = layer.weight.detach().double()
        assert draws.var().item() == pytest.approx(variance, rel=8 / math.sqrt(draws.numel()))
        # Beyond what a uniform draw of this variance could reach, and not beyond the truncation.
        assert (
            math.sqrt(3 * variance)
            < draws.abs().max().item()
            <= 2.001 * widened(math.sqrt(variance))
        )


def test_the_other_networks_start_glorot_uniform(compose: Compose) -> None:
    torch.manual_seed(0)
    network = ConvNet(compose("model=cnn5x5").model)
    limits = {
        "features.conv1": math.sqrt(6 / (25 + 32 * 25)),
        "features.conv2": math.sqrt(6 / (32 * 25 + 64 * 25)),
        "classifier.dense1": math.sqrt(6 / (6400 + 128)),
        "classifier.output": math.sqrt(6 / (128 + 10)),
    }
    for name, limit in limits.items():
        assert 0.98 * limit < network.get_submodule(name).weight.abs().max() <= 1.000001 * limit


@pytest.mark.parametrize("name", ["cnn5x5_single", "wide3x3"])
def test_biases_start_at_zero(compose: Compose, name: str) -> None:
    for key, value in ConvNet(compose(f"model={name}").model).state_dict().items():
        assert not key.endswith("bias") or not value.any(), key
