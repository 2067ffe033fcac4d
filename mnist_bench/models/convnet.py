"""A convolutional network for small images, in PyTorch's layers, with the semantics of Keras's.

N images, C channels, H rows, W columns, K classes.
"""

import math
from collections import OrderedDict
from typing import TypeVar

from torch import Tensor, nn

from mnist_bench.config.schema import ModelConfig, Padding
from mnist_bench.errors import ConfigError
from mnist_bench.models.initializers import initialise

POOL_SIZE = 2
# Keras's BatchNormalization: momentum 0.99 (the share kept; PyTorch names the share replaced).
BATCH_NORM_MOMENTUM = 0.01
BATCH_NORM_EPSILON = 1e-3

T = TypeVar("T")


class ConvNet(nn.Module):
    """Convolutions and poolings, then dense layers, as `ModelConfig` describes them.

    `image_shape` is that of an image: channels, rows, columns. `forward` takes images (N, C, H, W)
    and returns logits (N, K). Layers stand in the published order: convolution, batch norm if any,
    ReLU, pooling.

    Raises:
        ConfigError: a kernel or pooling does not fit its input, or a list has the wrong length.
    """

    features: nn.Sequential
    classifier: nn.Sequential

    def __init__(
        self,
        config: ModelConfig,
        num_classes: int = 10,
        image_shape: tuple[int, int, int] = (1, 28, 28),
    ):
        super().__init__()
        self.image_shape = image_shape
        self.features, num_features = _features(config, image_shape)
        self.classifier = _classifier(config, num_features, num_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                is_output = layer is self.classifier[-1]
                initialise(
                    layer.weight, config.output_initializer if is_output else config.initializer
                )
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        maps_NCHW: Tensor = self.features(images_NCHW)
        # Pixel by pixel, as Keras flattens; maps in channels_last need no copy for it.
        logits_NK: Tensor = self.classifier(maps_NCHW.permute(0, 2, 3, 1).flatten(1))
        return logits_NK


def _features(config: ModelConfig, image_shape: tuple[int, int, int]) -> tuple[nn.Sequential, int]:
    """The convolutions and poolings, and how many features they leave of an image."""
    depth = len(config.channels)
    kernel_sizes = _per_layer(config.kernel_size, depth, "kernel_size", "convolutions")
    strides = _per_layer(config.stride, depth, "stride", "convolutions")
    _check_settings(config, strides)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, *size = image_shape  # rows and columns
    if config.crop:
        size = _cropped(config, size)
        layers["crop"] = nn.ZeroPad2d(-config.crop)  # padding of less than nothing cuts
    for i, (out_channels, kernel_size, stride) in enumerate(
        zip(config.channels, kernel_sizes, strides, strict=True), start=1
    ):
        if config.padding is Padding.valid:
            size = _convolved(config, i, size, kernel_size, stride)
        layers[f"conv{i}"] = nn.Conv2d(
            channels, out_channels, kernel_size, stride, config.padding.value
        )
        if config.conv_batch_norm:
            layers[f"batch_norm{i}"] = _batch_norm(nn.BatchNorm2d, out_channels)
        layers[f"relu{i}"] = nn.ReLU()
        if i in config.pool_after:
            size = _pooled(config, i, size)
            layers[f"pool{i}"] = nn.MaxPool2d(POOL_SIZE)
        channels = out_channels
    return nn.Sequential(layers), channels * math.prod(size)


def _check_settings(config: ModelConfig, strides: list[int]) -> None:
    if config.padding is Padding.same and any(stride > 1 for stride in strides):
        raise ConfigError(
            f"model.stride={config.stride} does not go with model.padding=same: use valid padding."
        )
    depth = len(config.channels)
    for layer in config.pool_after:
        if layer > depth:
            raise ConfigError(
                f"model.pool_after={config.pool_after} names convolution {layer}, "
                f"but {config.name} has {depth}."
            )


def _cropped(config: ModelConfig, size: list[int]) -> list[int]:
    """What is left of so many rows and columns."""
    if 2 * config.crop >= min(size):
        raise ConfigError(
            f"model.crop={config.crop} leaves nothing of an image of {_named(size)}: "
            f"it can be at most {(min(size) - 1) // 2}."
        )
    return [side - 2 * config.crop for side in size]


def _convolved(
    config: ModelConfig, layer: int, size: list[int], kernel_size: int, stride: int
) -> list[int]:
    """The rows and columns of the map, without padding."""
    if kernel_size > min(size):
        largest = "that" if size[0] == size[1] else min(size)
        raise ConfigError(
            f"model.kernel_size={config.kernel_size} does not fit: convolution {layer} of "
            f"{config.name} sees a {_named(size)} map, and its kernel can be at most {largest}."
        )
    return [(side - kernel_size) // stride + 1 for side in size]


def _pooled(config: ModelConfig, layer: int, size: list[int]) -> list[int]:
    if min(size) < POOL_SIZE:
        raise ConfigError(
            f"model.kernel_size={config.kernel_size} leaves a {_named(size)} map after "
            f"convolution {layer} of {config.name}, too small to be pooled: choose smaller "
            "kernels, or fewer poolings with model.pool_after."
        )
    return [side // POOL_SIZE for side in size]


def _named(size: list[int]) -> str:
    rows, columns = size
    return f"{rows} x {columns}"


def _classifier(config: ModelConfig, in_features: int, num_classes: int) -> nn.Sequential:
    num_dropouts = len(config.dense) + config.dropout_on_features
    rates = _per_layer(config.dropout, num_dropouts, "dropout", "dropout layers")
    if not config.dropout_on_features:
        rates = [0.0, *rates]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if rates[0] > 0:
        layers["dropout0"] = nn.Dropout(rates[0])
    for i, (units, rate) in enumerate(zip(config.dense, rates[1:], strict=True), start=1):
        layers[f"dense{i}"] = nn.Linear(in_features, units)
        layers[f"relu{i}"] = nn.ReLU()
        if config.batch_norm:
            layers[f"batch_norm{i}"] = _batch_norm(nn.BatchNorm1d, units)
        if rate > 0:
            layers[f"dropout{i}"] = nn.Dropout(rate)
        in_features = units
    layers["output"] = nn.Linear(in_features, num_classes)
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
