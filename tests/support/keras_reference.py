"""The nine networks written out in Keras 3's own layers, and what Keras computes with them.

Written from the published notebooks and READMEs, not from `conf/`. Keras runs on JAX, so that
neither its layers nor its arithmetic has anything in common with PyTorch's.
"""

import copy
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np
import pytest
import torch
from keras.layers import BatchNormalization, Dense, Dropout, Flatten, MaxPooling2D, Softmax
from keras.src import backend
from keras.src.backend.common import dtypes
from torch import nn

from mnist_bench.data.images import Images
from mnist_bench.exchange.keras.layers import KerasLayer, fill_from_keras
from mnist_bench.models import ConvNet

Tensors = dict[str, torch.Tensor]


def pixels(images: Images, count: int) -> np.ndarray:
    """The first test images as Keras takes them: float32 (N, 28, 28, 1), from 0 to 1."""
    return (images.test_images[:count, ..., None] / 255).numpy()


# --- The networks -----------------------------------------------------------------------------

Conv2D = partial(keras.layers.Conv2D, activation="relu")
SameConv2D = partial(Conv2D, padding="same")
HeConv2D = partial(Conv2D, kernel_initializer="he_normal")
HiddenDense = partial(Dense, activation="relu")
HeDense = partial(HiddenDense, kernel_initializer="he_normal")


def vgg16() -> list[keras.Layer]:
    return [
        *[SameConv2D(64, 3), SameConv2D(64, 3), MaxPooling2D(2)],
        *[SameConv2D(128, 3), SameConv2D(128, 3), MaxPooling2D(2)],
        *[SameConv2D(256, 3), SameConv2D(256, 3), SameConv2D(256, 3), MaxPooling2D(2)],
        *[SameConv2D(512, 3), SameConv2D(512, 3), SameConv2D(512, 3), MaxPooling2D(2)],
        *[SameConv2D(512, 3), SameConv2D(512, 3), SameConv2D(512, 3)],
        Flatten(),
        *[HiddenDense(256), Dropout(0.5), HiddenDense(256), Dropout(0.5), Dense(10)],
    ]


def conv3_dense7744() -> list[keras.Layer]:
    return [
        *[Conv2D(32, 3), Conv2D(64, 3), Conv2D(64, 3), MaxPooling2D(2)],
        Flatten(),
        *[HiddenDense(7744), HiddenDense(128), Dense(10)],
    ]


def mnist_cnn() -> list[keras.Layer]:
    return [
        *[Conv2D(32, 3), Conv2D(64, 3), MaxPooling2D(2), Dropout(0.25)],
        Flatten(),
        *[HiddenDense(128), Dropout(0.5), Dense(10)],
    ]


def cnn5x5() -> list[keras.Layer]:
    return [
        *[Conv2D(32, 5), Conv2D(64, 5), MaxPooling2D(2), Dropout(0.25)],
        Flatten(),
        *[HiddenDense(128), Dropout(0.5), Dense(10)],
    ]


def cnn5x5_single() -> list[keras.Layer]:
    return [
        *[Conv2D(32, 5), MaxPooling2D(2), Dropout(0.25)],
        Flatten(),
        *[HiddenDense(128), Dropout(0.5), Dense(10)],
    ]


def wide3x3() -> list[keras.Layer]:
    return [
        *[HeConv2D(64, 3), HeConv2D(128, 3), MaxPooling2D(2), Dropout(0.5)],
        Flatten(),
        *[HeDense(128), Dropout(0.5)],
        Dense(10, kernel_initializer="glorot_normal"),
    ]


def wide3x5_bn() -> list[keras.Layer]:
    return [
        *[HeConv2D(64, 3), HeConv2D(128, 5), MaxPooling2D(2), Dropout(0.5)],
        Flatten(),
        *[HeDense(256), BatchNormalization(), Dropout(0.5)],
        Dense(10, kernel_initializer="glorot_normal"),
    ]


def wide5x7_bn() -> list[keras.Layer]:
    return [
        *[HeConv2D(64, 5), HeConv2D(128, 7), MaxPooling2D(2), Dropout(0.5)],
        Flatten(),
        *[HeDense(256), BatchNormalization(), Dropout(0.5)],
        *[HeDense(128), BatchNormalization(), Dropout(0.5)],
        Dense(10, kernel_initializer="glorot_normal"),
    ]


NETWORKS: dict[str, Callable[[], list[keras.Layer]]] = {
    "vgg16": vgg16,
    "conv3_dense7744": conv3_dense7744,
    "mnist_cnn": mnist_cnn,
    "cnn3x3": mnist_cnn,
    "cnn5x5": cnn5x5,
    "cnn5x5_single": cnn5x5_single,
    "wide3x3": wide3x3,
    "wide3x5_bn": wide3x5_bn,
    "wide5x7_bn": wide5x7_bn,
}


def fresh_reference(name: str, seed: int, dropout: bool = True) -> keras.Sequential:
    """A network with the weights that Keras draws, from images (N, 28, 28, 1) to probabilities.

    Without `dropout`, the rate of its dropout layers is 0.
    """
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((28, 28, 1)), *NETWORKS[name](), Softmax()])
    for layer in model.layers:
        if isinstance(layer, Dropout) and not dropout:
            layer.rate = 0
    return model


def trained_reference(name: str, seed: int, dropout: bool = True) -> keras.Sequential:
    """The same with everything that starts at 0 or 1 moved away, as training would have."""
    model = fresh_reference(name, seed, dropout)
    move_away(model, seed)
    return model


def move_away(model: keras.Sequential, seed: int) -> None:
    """Draw at random what a network starts with at 0 or 1, as training would have moved it."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        match variable.name:
            case "bias" | "beta" | "moving_mean":
                variable.assign(rng.normal(0, 0.1, variable.shape))
            case "gamma" | "moving_variance":
                variable.assign(rng.uniform(0.5, 2, variable.shape))


def to_logits(model: keras.Sequential) -> keras.Model:
    """The same network, sharing its layers, up to the input of its softmax."""
    return keras.Model(model.inputs[0], model.layers[-1].input)


# --- From Keras to PyTorch --------------------------------------------------------------------


def keras_layers(
    model: keras.Model, values: Mapping[str, np.ndarray] | None = None
) -> list[KerasLayer]:
    """The layers that have variables, with the model's own values or with `values`, by path."""
    if values is None:
        values = {variable.path: np.array(variable) for variable in model.weights}
    return [
        KerasLayer(type(layer).__name__, {}, tuple(values[v.path] for v in layer.weights))
        for layer in model.layers
        if layer.weights
    ]


def in_our_layout(
    model: keras.Model, network: ConvNet, values: Mapping[str, np.ndarray] | None = None
) -> Tensors:
    """The model's variables, or `values` in their place, as `network` would name and keep them."""
    filled = copy.deepcopy(network)
    fill_from_keras(filled, keras_layers(model, values), "Keras")
    return {name: t for name, t in filled.state_dict().items() if t.is_floating_point()}


# --- Precision --------------------------------------------------------------------------------


def relative_error(found: torch.Tensor | np.ndarray, expected: torch.Tensor | np.ndarray) -> float:
    """The largest absolute difference, as a share of the largest absolute value expected.

    Rounding errors of a sum are a share of its largest terms, not of its result: a logit or a
    gradient near zero among large ones has no more correct digits than they leave it.
    """
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@contextmanager
def double_precision() -> Iterator[None]:
    """Let both sides compute in float64 wherever they would in float32.

    What differs then is the function, not the rounding. On our side the casts to float32 become
    casts to float64 (the network has to be made `double()`). Keras on JAX takes float64 and float32
    together as float32, so that its batch normalisation and its means would compute in float32 even
    in a float64 model, and is kept from it.
    """
    keras_result_type = dtypes.result_type

    def result_type(*types: Any) -> str:
        return "float64" if "float64" in types else keras_result_type(*types)

    _set_keras_precision("float64")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "float", torch.Tensor.double)
            patch.setattr(dtypes, "result_type", result_type)
            patch.setattr(backend, "result_type", result_type)
            yield
    finally:
        _set_keras_precision("float32")


def _set_keras_precision(dtype: str) -> None:
    jax.config.update("jax_enable_x64", dtype == "float64")
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)


# --- Away from kinks --------------------------------------------------------------------------


def pooled_first(layers: list[nn.Module]) -> list[nn.Module]:
    """With each pooling before the ReLU that it follows, which can be tipped at a maximum only."""
    for i, (first, second) in enumerate(itertools.pairwise(layers)):
        if isinstance(first, nn.ReLU) and isinstance(second, nn.MaxPool2d):
            layers[i : i + 2] = second, first
    return layers


@torch.inference_mode()
def steady_images(network: ConvNet, images_N1HW: torch.Tensor, margin: float) -> torch.Tensor:
    """For which images, bool (N,), rounding can tip no ReLU and no maximum.

    One that is tipped sends a gradient another way, in any two programs that add up in different
    order. `margin` is how far from tipping, as a share of the largest value of a map; computed in
    float64. Equal maxima, over a background, count as steady: they pass the same gradient.
    """
    steady = torch.ones(len(images_N1HW), dtype=torch.bool)

    def look(layer: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        (x,) = inputs
        if isinstance(layer, nn.ReLU):
            distances = x.abs()
        else:
            highest = x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4).topk(2).values
            distances = highest[..., 0] - highest[..., 1]
        relative = distances.flatten(1) / x.flatten(1).abs().amax(1, keepdim=True)
        relative[relative < 1e-12] = math.inf
        steady.logical_and_(relative.amin(1) > margin)

    network = copy.deepcopy(network).double().eval()
    network.features = nn.Sequential(*pooled_first(list(network.features)))
    for layer in network.modules():
        if isinstance(layer, nn.ReLU | nn.MaxPool2d):
            layer.register_forward_pre_hook(look)
    network(images_N1HW.double())
    return steady
