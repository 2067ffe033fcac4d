"""A convolutional network for small grey images, with the semantics of Keras's layers.

N images, C channels, H rows, W columns, K classes.
"""

from collections import OrderedDict
from typing import TypeVar

import torch
from torch import Tensor, nn

from mnist_bench.config.schema import ModelConfig, Padding
from mnist_bench.errors import ConfigError
from mnist_bench.kernels.dropout import Dropout
from mnist_bench.kernels.layers import (
    POOL_SIZE,
    Conv2d,
    Features,
    Linear,
    MaxPool2d,
    prefers_fourier,
)
from mnist_bench.models.initializers import initialise

IMAGE_SIZE = 28
# Keras's BatchNormalization: momentum 0.99 (the share kept; PyTorch names the share replaced).
BATCH_NORM_MOMENTUM = 0.01
BATCH_NORM_EPSILON = 1e-3
MAP_TYPES = (torch.float32, torch.bfloat16)  # on a CPU

T = TypeVar("T")


class ConvNet(nn.Module):
    """Convolutions and poolings, then dense layers, as `ModelConfig` describes them.

    `forward` takes images (N, 1, 28, 28) and returns logits (N, K).

    Raises:
        ConfigError: a kernel or pooling does not fit its input, or a list has the wrong length.
    """

    features: nn.Sequential
    classifier: nn.Sequential

    def __init__(self, config: ModelConfig, num_classes: int = 10):
        super().__init__()
        self.features, num_features = _features(config)
        self.classifier = _classifier(config, num_features, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                is_output = layer is self.classifier[-1]
                initialise(
                    layer.weight, config.output_initializer if is_output else config.initializer
                )
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, images_N1HW: Tensor) -> Tensor:
        maps_NCHW: Tensor = self.features(images_N1HW)
        # Pixel by pixel, as Keras flattens; maps in channels_last need no copy for it.
        logits_NK: Tensor = self.classifier(maps_NCHW.permute(0, 2, 3, 1).flatten(1))
        return logits_NK


def _features(config: ModelConfig) -> tuple[nn.Sequential, int]:
    """The convolutions and poolings, and how many features they leave of a 28 x 28 image."""
    depth = len(config.channels)
    kernel_sizes = _per_layer(config.kernel_size, depth, "kernel_size", "convolutions")
    strides = _per_layer(config.stride, depth, "stride", "convolutions")
    if config.padding is Padding.same and any(stride > 1 for stride in strides):
        raise ConfigError(
            f"model.stride={config.stride} does not go with model.padding=same: use valid padding."
        )
    for layer in config.pool_after:
        if layer > depth:
            raise ConfigError(
                f"model.pool_after={config.pool_after} names convolution {layer}, "
                f"but {config.name} has {depth}."
            )
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    in_channels, size = 1, IMAGE_SIZE - 2 * config.crop
    if size < 1:
        raise ConfigError(
            f"model.crop={config.crop} leaves nothing of an image of {IMAGE_SIZE} x {IMAGE_SIZE}: "
            f"it can be at most {(IMAGE_SIZE - 1) // 2}."
        )
    if config.crop:
        layers["crop"] = nn.ZeroPad2d(-config.crop)  # padding of less than nothing cuts
    for i, (out_channels, kernel_size, stride) in enumerate(
        zip(config.channels, kernel_sizes, strides, strict=True), start=1
    ):
        if config.padding is Padding.valid:
            if kernel_size > size:
                raise ConfigError(
                    f"model.kernel_size={config.kernel_size} does not fit: convolution {i} of "
                    f"{config.name} sees a {size} x {size} map, and its kernel can be at most that."
                )
            size = (size - kernel_size) // stride + 1
        pixel_major: list[torch.dtype] = []
        if i < depth and not config.conv_batch_norm:  # which would lose the layout
            behind = (out_channels, config.channels[i], kernel_sizes[i], strides[i])
            pixel_major += [dtype for dtype in MAP_TYPES if prefers_fourier(*behind, dtype)]
        layers[f"conv{i}"] = Conv2d(
            in_channels, out_channels, kernel_size, stride, config.padding.value, pixel_major
        )
        if config.conv_batch_norm:
            layers[f"batch_norm{i}"] = _batch_norm(nn.BatchNorm2d, out_channels)
        if i in config.pool_after:
            if size < POOL_SIZE:
                raise ConfigError(
                    f"model.kernel_size={config.kernel_size} leaves a {size} x {size} map after "
                    f"convolution {i} of {config.name}, too small to be pooled: choose smaller "
                    "kernels, or fewer poolings with model.pool_after."
                )
            layers[f"pool{i}"] = MaxPool2d()
            size //= POOL_SIZE
        # Behind the pooling, as the two commute and a quarter is left to do.
        layers[f"relu{i}"] = nn.ReLU()
        in_channels = out_channels
    return Features(layers), in_channels * size * size


def _classifier(config: ModelConfig, in_features: int, num_classes: int) -> nn.Sequential:
    num_dropouts = len(config.dense) + config.dropout_on_features
    rates = _per_layer(config.dropout, num_dropouts, "dropout", "dropout layers")
    if not config.dropout_on_features:
        rates = [0.0, *rates]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if rates[0] > 0:
        layers["dropout0"] = Dropout(rates[0])
    for i, (units, rate) in enumerate(zip(config.dense, rates[1:], strict=True), start=1):
        layers[f"dense{i}"] = Linear(in_features, units)
        layers[f"relu{i}"] = nn.ReLU()
        if config.batch_norm:
            layers[f"batch_norm{i}"] = _batch_norm(nn.BatchNorm1d, units)
        if rate > 0:
            layers[f"dropout{i}"] = Dropout(rate)
        in_features = units
    layers["output"] = Linear(in_features, num_classes)
    return nn.Sequential(layers)


def _batch_norm(kind: type[nn.BatchNorm1d | nn.BatchNorm2d], features: int) -> nn.Module:
    return kind(features, eps=BATCH_NORM_EPSILON, momentum=BATCH_NORM_MOMENTUM)


def _per_layer(value: T | list[T], count: int, key: str, layers: str) -> list[T]:
    """One value for all layers, or a list with one for each, as a list."""
    if not isinstance(value, list):
        return [value] * count
    if len(value) != count:
        raise ConfigError(
            f"model.{key}={value} has {len(value)} values for {count} {layers}: "
            f"give one number for all, or a list of {count}."
        )
    return value
