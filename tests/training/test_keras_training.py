"""Twenty steps of training against Keras's own, from the same weights on the same batches.

Ours is the real step (`Stepper.step`, as `build_learner` wires it for an experiment), Keras's is
`train_on_batch`. Dropout is off, because the masks of the two cannot be the same.

The trainings are compared in float64. In fp32 two trainings stay together only as far as fp32 lets
them: with batch norm, changing our own weights by one rounding error each (6e-8) changes where 20
steps of `wide3x5_bn` lead to by 0.3 of the way. So fp32 is compared for networks without it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import keras
import numpy as np
import pytest
import torch
from torch import Tensor

from mnist_bench.config.schema import TrainConfig
from mnist_bench.data.images import Images
from mnist_bench.data.splits import ImageSet, split_images
from mnist_bench.models import ConvNet
from mnist_bench.training.device import find_placement
from mnist_bench.training.graphs import Stepper
from mnist_bench.training.learner import Learner, build_learner
from tests.support import keras_reference
from tests.support.keras_reference import (
    Tensors,
    double_precision,
    in_our_layout,
    steady_images,
    to_logits,
)

Compose = Callable[..., TrainConfig]
STEPS = 20


# --- The recipes, as Keras takes them ---------------------------------------------------------

# From logits, as Keras on TensorFlow computes it for a softmax output. From probabilities, as Keras
# on JAX does, it is clipped for sure mistakes (p < 1e-7), which untrained wide networks make.
categorical = partial(keras.losses.CategoricalCrossentropy, from_logits=True)
sparse_categorical = partial(keras.losses.SparseCategoricalCrossentropy, from_logits=True)

adam = partial(keras.optimizers.Adam, learning_rate=0.001)
adadelta = partial(keras.optimizers.Adadelta, learning_rate=1.0, rho=0.95, epsilon=1e-7)
rmsprop = partial(keras.optimizers.RMSprop, learning_rate=0.001, rho=0.9, epsilon=1e-7)


@dataclass(frozen=True)
class Recipe:
    """What a network was compiled with and what its pixels were divided by; `ours` sets the same.

    RMSprop is Keras 3's own form on both sides; tests/training/test_optimizers.py has the
    published era's.
    """

    network: str
    optimizer: Callable[[], keras.Optimizer]
    loss: Callable[[], keras.Loss] = categorical
    divisor: int = 255
    ours: str = ""
    steps: int = STEPS

    def __str__(self) -> str:
        few = f"-{self.steps}-steps" if self.steps != STEPS else ""
        return f"{self.network}-{self.optimizer.func.__name__}{few}"

    def compile(self, probabilities: keras.Sequential) -> keras.Model:
        binary = self.loss is keras.losses.BinaryCrossentropy
        model = probabilities if binary else to_logits(probabilities)
        model.compile(self.optimizer(), self.loss(), jit_compile=True)
        return model

    def labels(self, labels_N: Tensor) -> np.ndarray:
        labels = labels_N.numpy()
        return labels if self.loss is sparse_categorical else np.eye(10, dtype=np.float32)[labels]


# The recipes as published, and RMSprop for a small network too.
RECIPES = [
    # Slow for its 13 convolutions; its loss and gradients are compared in tests/models.
    pytest.param(
        Recipe(
            "vgg16",
            partial(rmsprop, learning_rate=1e-4),
            keras.losses.BinaryCrossentropy,
            divisor=1,
            ours="optimizer=keras3_rmsprop optimizer.lr=1e-4",
        ),
        marks=pytest.mark.slow,
    ),
    # Slow for its 61 million weights; what cnn3x3 has, it has too, but for their number.
    pytest.param(Recipe("conv3_dense7744", adam, sparse_categorical), marks=pytest.mark.slow),
    Recipe("mnist_cnn", adadelta),
    Recipe("cnn3x3", adam),
    Recipe("cnn3x3", rmsprop, ours="optimizer=keras3_rmsprop"),
    Recipe("cnn5x5", adam),
    Recipe("cnn5x5_single", adam),
    # Slow for its kernels; it has what mnist_cnn has, and more of it.
    pytest.param(Recipe("wide3x3", adadelta), marks=pytest.mark.slow),
]
# The same of the two with batch norm, and the other optimizers for one of them; quickly, 5 steps.
BATCH_NORM_RECIPES = [
    Recipe("wide3x5_bn", adadelta, steps=5),
    pytest.param(Recipe("wide3x5_bn", adadelta), marks=pytest.mark.slow),
    # Slow for its kernels; its loss and gradients are compared in tests/models.
    pytest.param(Recipe("wide5x7_bn", adadelta), marks=pytest.mark.slow),
    pytest.param(Recipe("wide3x5_bn", adam, ours="optimizer=keras_adam"), marks=pytest.mark.slow),
    pytest.param(
        Recipe("wide3x5_bn", rmsprop, ours="optimizer=keras3_rmsprop"), marks=pytest.mark.slow
    ),
]
# The smallest network: it has the fewest ReLUs and maxima that a rounding error can tip.
FP32_RECIPES = [
    Recipe("cnn5x5_single", adam),
    Recipe("cnn5x5_single", adadelta, ours="optimizer=keras_adadelta"),
    Recipe("cnn5x5_single", rmsprop, ours="optimizer=keras3_rmsprop"),
]


# --- Training both ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """Weights and running statistics, in our layout, and the loss of every step."""

    start: Tensors
    ours: Tensors
    keras: Tensors
    our_losses: list[float]
    keras_losses: list[float]
    batch_size: int

    @property
    def steps(self) -> int:
        return len(self.our_losses)


def part_of_way(found: Tensor, expected: Tensor, start: Tensor) -> float:
    """How far one training ends from another, as a share of the way that the other went."""
    return float((found - expected).norm() / (expected - start).norm())


def next_batch(learner: Learner, images: ImageSet, after: int, size: int, margin: float) -> Tensor:
    """The next images that are steady for the weights of the moment, by their places, int64."""
    places = torch.arange(after, after + 8 * size)
    if margin > 0:
        assert isinstance(learner.network, ConvNet)
        steady = steady_images(learner.network, learner.scaling(images[places].images), margin)
        places = places[steady]
    assert len(places) >= size
    return places[:size]


def train(
    recipe: Recipe,
    compose: Compose,
    images: Images,
    batch_size: int,
    dtype: torch.dtype,
    rate_factor: Callable[[int], float] | None = None,
    margin: float = 0,
) -> Trained:
    """Train a network on both sides from one start, whose biases are not zero.

    With biases of zero, all that a convolution sees over an image's background is exactly zero,
    and so close to it, on either side, in the frequency domain; a ReLU passes gradient on one.
    """
    model = keras_reference.fresh_reference(recipe.network, seed=0, dropout=False)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if variable.name == "bias":
            variable.assign(rng.normal(0, 0.1, variable.shape))
    config = compose(
        f"experiment={recipe.network}", "model.dropout=0", "trainer.gpus=0", *recipe.ours.split()
    )
    splits = split_images(images, config.data)
    learner = build_learner(config, find_placement(config.trainer), splits)
    if rate_factor is not None:
        exact = learner.schedule
        learner.schedule = lambda step: exact(step) * rate_factor(step)
    network = learner.network.to(dtype).train()
    assert isinstance(network, ConvNet)
    start = in_our_layout(model, network)
    network.load_state_dict(start, strict=False)

    totals = learner.new_totals()
    stepper = Stepper(learner, splits.train, totals)
    our_losses, batches = [], [torch.tensor([-1])]
    for _ in range(recipe.steps):
        after = int(batches[-1][-1]) + 1
        batches.append(next_batch(learner, splits.train, after, batch_size, margin))
        stepper.step(batches[-1])
        our_losses.append(totals.averages()["loss"])
        totals.reset()

    keras_losses = []
    compiled = recipe.compile(model)
    for batch in map(splits.train.__getitem__, batches[1:]):
        pixels = batch.images.permute(0, 2, 3, 1).to(dtype).numpy() / recipe.divisor
        compiled.reset_metrics()
        keras_losses.append(float(compiled.train_on_batch(pixels, recipe.labels(batch.labels))))

    ours = {name: network.state_dict()[name] for name in start}
    return Trained(start, ours, in_our_layout(model, network), our_losses, keras_losses, batch_size)


def is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var"))


def assert_same_training(trained: Trained, tolerance: float) -> None:
    assert trained.our_losses == pytest.approx(trained.keras_losses, rel=tolerance)
    for name, start in trained.start.items():
        if not is_statistic(name):
            assert part_of_way(trained.ours[name], trained.keras[name], start) < tolerance, name


# --- In float64 -------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_networks_train_as_in_keras(recipe: Recipe, compose: Compose, images: Images) -> None:
    """Found within 5e-14."""
    with double_precision():
        trained = train(recipe, compose, images, 2, torch.float64)
    assert_same_training(trained, 1e-9)


@pytest.fixture(scope="module", params=BATCH_NORM_RECIPES, ids=str)
def batch_norm_trained(request: pytest.FixtureRequest, compose: Compose, images: Images) -> Trained:
    with double_precision():
        return train(request.param, compose, images, 8, torch.float64)


def test_networks_with_batch_norm_train_as_in_keras(batch_norm_trained: Trained) -> None:
    """Found within 5e-8: batch norm over eight images makes more of a rounding error."""
    assert_same_training(batch_norm_trained, 1e-5)


def test_running_statistics_of_batch_norm_are_those_of_keras(batch_norm_trained: Trained) -> None:
    """But for one thing: Keras 3 feeds the variance with the biased estimate, PyTorch does not."""
    trained = batch_norm_trained
    kept = 0.99**trained.steps
    unbiased = trained.batch_size / (trained.batch_size - 1)
    for name in filter(is_statistic, trained.start):
        start, expected = trained.start[name], trained.keras[name]
        if name.endswith("running_var"):
            expected = kept * start + unbiased * (expected - kept * start)
        assert part_of_way(trained.ours[name], expected, start) < 1e-5, name


# --- In fp32 ----------------------------------------------------------------------------------


def adam_rounding(step: int) -> float:
    """What Keras's fp32 makes of Adam's step length √(1-β₂ᵗ)/(1-β₁ᵗ), as a share of what it is.

    Up to 1e-5: 1 - 0.999ᵗ loses digits. We compute it in double; left as it is, the difference
    tips ReLUs and maxima, and grows to a few per cent in 20 steps of `cnn3x3`.
    """
    t, one = np.float32(step + 1), np.float32(1)
    rounded = np.sqrt(one - np.float32(0.999) ** t) / (one - np.float32(0.9) ** t)
    exact = np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
    return float(rounded / exact)


@pytest.mark.parametrize("recipe", FP32_RECIPES, ids=str)
def test_networks_train_as_in_keras_in_fp32(
    recipe: Recipe, compose: Compose, images: Images
) -> None:
    """Found within 4e-6, on images that no rounding error tips."""
    rate_factor = adam_rounding if recipe.optimizer is adam else None
    trained = train(recipe, compose, images, 16, torch.float32, rate_factor, margin=3e-6)
    assert_same_training(trained, 1e-4)
