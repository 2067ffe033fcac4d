"""A network in Keras's terms: its layers, their settings, and their weights in Keras's layout.

H rows, W columns, O outputs, I inputs. Keras keeps convolution kernels as (H, W, I, O) and dense
kernels as (I, O); both flatten maps over rows, columns, channels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mnist_bench.errors import ConfigError, DataError
from mnist_bench.models import ConvNet
from mnist_bench.models.convnet import BATCH_NORM_MOMENTUM, POOL_SIZE


@dataclass(frozen=True)
class KerasLayer:
    """One layer: Keras's class name, the settings that change what it computes, its variables.

    Variables are in Keras's order and layout: kernel and bias, or gamma, beta, moving mean and
    moving variance.
    """

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    variables: tuple[np.ndarray, ...] = ()

    @property
    def brief(self) -> str:
        """Its kind, and what tells it from others of its kind: `Conv2D 32`, `Dropout 0.25`."""
        told = [self.settings[key] for key in ("filters", "units", "rate") if key in self.settings]
        return " ".join(map(str, (self.kind, *told)))

    def __str__(self) -> str:
        settings = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        return f"{self.kind}({settings})"


def to_keras(network: nn.Module) -> list[KerasLayer]:
    """The layers of a Keras `Sequential` that computes the network's probabilities.

    Raises:
        ConfigError: the network is no `ConvNet`, or has a layer that Keras is not told of here.
    """
    return list(_layers(as_convnet(network)))


def fill_from_keras(
    network: nn.Module,
    layers: Sequence[KerasLayer],
    source: str,
    channels_first: bool = False,
) -> None:
    """Set the network's weights from the layers that have variables, matched by kind and order.

    `source` names where the layers are from in errors. `channels_first` is whether they flatten a
    map over channels, rows, columns, as PyTorch does, rather than over rows, columns, channels.

    Raises:
        ConfigError: the network is no `ConvNet`.
        DataError: names the first layer that differs in kind, order or shape.
    """
    stored = {kind: [layer for layer in layers if layer.kind == kind] for kind in VARIABLES}
    matched = []
    checked = as_convnet(network)
    for name, module in _weighted(checked):
        kind = _kind(module)
        if not stored[kind]:
            raise DataError(f"{source} has no {kind} for {name} of this network, {module}.")
        layer = stored[kind].pop(0)
        _check_shapes(name, module, layer, source)
        matched.append((module, layer))
    for kind, left in stored.items():
        if left:
            shapes = " and ".join(str(v.shape) for v in left[0].variables)
            raise DataError(
                f"{source} has {len(left)} {kind} more than this network, the first with "
                f"variables of {shapes}: choose the network that it was saved from."
            )
    with torch.no_grad():
        for module, layer in matched:
            values = _from_keras(layer.variables)
            for target, value in zip(_tensors(module), values, strict=True):
                target.copy_(torch.from_numpy(value))
    if channels_first:
        reorder_flattened(checked)


@torch.no_grad()
def reorder_flattened(network: ConvNet, to_channels_first: bool = False) -> None:
    """Turn the weights of the first dense layer from channels, rows, columns to the order in which
    ours flattens a map, rows, columns, channels; `to_channels_first` is the way back."""
    weight = _first_dense(network).weight
    channels, height, width = _map_shape(network)
    if to_channels_first:
        turned = weight.unflatten(1, (height, width, channels)).permute(0, 3, 1, 2)
    else:
        turned = weight.unflatten(1, (channels, height, width)).permute(0, 2, 3, 1)
    weight.copy_(turned.flatten(1))


def flattens_a_map(network: ConvNet) -> bool:
    """Return whether it matters in which order the network's map is flattened."""
    channels, height, width = _map_shape(network)
    return channels > 1 and height * width > 1


@torch.no_grad()
def _map_shape(network: ConvNet) -> torch.Size:
    """Return (C, H, W) of the map that is flattened."""
    pixels = torch.zeros(2, *network.image_shape, device=_first_dense(network).weight.device)
    was_training = network.training
    maps_NCHW: Tensor = network.eval().features(pixels)
    network.train(was_training)
    return maps_NCHW.shape[1:]


# --- The network's modules and Keras's kinds --------------------------------------------------

# What Keras calls the variables of each kind, in its order.
VARIABLES = {
    "Conv2D": ("kernel", "bias"),
    "Dense": ("kernel", "bias"),
    "BatchNormalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}


def _first_dense(network: ConvNet) -> nn.Linear:
    """The dense layer that sees the flattened map."""
    return next(module for module in network.classifier if isinstance(module, nn.Linear))


def _weighted(network: ConvNet) -> Iterator[tuple[str, nn.Module]]:
    """The names and modules that have weights, in order."""
    for part in (network.features, network.classifier):
        for name, module in part.named_children():
            if list(module.parameters()):
                yield name, module


def _kind(module: nn.Module) -> str:
    """What Keras calls a module that has weights."""
    match module:
        case nn.Conv2d():
            return "Conv2D"
        case nn.Linear():
            return "Dense"
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return "BatchNormalization"
        case _:
            raise AssertionError(module)


def _tensors(module: nn.Module) -> list[Tensor]:
    """The module's weights and running statistics, in Keras's order."""
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        assert module.running_mean is not None and module.running_var is not None
        return [module.weight, module.bias, module.running_mean, module.running_var]
    assert isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None
    return [module.weight, module.bias]


def as_convnet(network: nn.Module) -> ConvNet:
    """Return the network; raise ConfigError if it is none whose layers are known."""
    if not isinstance(network, ConvNet):
        raise ConfigError(
            f"A {type(network).__name__} cannot go to Keras or come from it: only networks of "
            "conf/model can, whose layers are known."
        )
    return network


def _layers(network: ConvNet) -> Iterator[KerasLayer]:
    modules = [*network.features.named_children(), *network.classifier.named_children()]
    alone = [module for _, module in modules]
    around = zip([None, *alone], modules, [*alone[1:], None], strict=False)
    for before, (name, module), following in around:
        # What Keras counts to a layer of weights: a ReLU, or at the end the softmax.
        activation = "relu" if isinstance(following, nn.ReLU) else "linear"
        match module:
            case nn.ZeroPad2d(padding=(left, *others)) if left < 0 and {left} == {*others}:
                yield KerasLayer("Cropping2D", {"cropping": [[-left, -left], [-left, -left]]})
            case nn.Conv2d(
                out_channels=filters,
                kernel_size=size,
                stride=steps,
                padding="valid" | "same" as padding,
                dilation=(1, 1),
                groups=1,
            ):
                settings = {
                    "filters": filters,
                    "kernel_size": list(size),
                    "strides": list(steps),
                    "padding": padding,
                    "activation": activation,
                }
                yield KerasLayer("Conv2D", settings, _to_keras(module))
            case nn.MaxPool2d(kernel_size=size) if size == POOL_SIZE:
                yield KerasLayer("MaxPooling2D", {"pool_size": [POOL_SIZE, POOL_SIZE]})
            case nn.Dropout(p=rate):
                yield KerasLayer("Dropout", {"rate": rate})
            case nn.Linear(out_features=units):
                if module is _first_dense(network):
                    yield KerasLayer("Flatten")
                settings = {
                    "units": units,
                    "activation": "softmax" if following is None else activation,
                }
                yield KerasLayer("Dense", settings, _to_keras(module))
            case nn.BatchNorm1d(eps=epsilon) | nn.BatchNorm2d(eps=epsilon):
                settings = {"momentum": 1 - BATCH_NORM_MOMENTUM, "epsilon": epsilon}
                yield KerasLayer("BatchNormalization", settings, _to_keras(module))
            case nn.ReLU():
                if not isinstance(before, nn.Conv2d | nn.Linear):
                    yield KerasLayer("Activation", {"activation": "relu"})
            case _:
                raise ConfigError(
                    f"{name} of this network, {module}, cannot be written for Keras: it is no "
                    "layer of those that conf/model describes."
                )


# --- Layouts ----------------------------------------------------------------------------------

# The axes of a tensor of ours, by their number, in Keras's order.
_TO_KERAS = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}


def _to_keras(module: nn.Module) -> tuple[np.ndarray, ...]:
    """The module's tensors as Keras lays them out."""
    first, *rest = (t.detach().cpu().numpy() for t in _tensors(module))
    return np.ascontiguousarray(first.transpose(_TO_KERAS[first.ndim])), *rest


def _from_keras(variables: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The inverse of `_to_keras`."""
    first, *rest = variables
    return np.ascontiguousarray(first.transpose(np.argsort(_TO_KERAS[first.ndim]))), *rest


def _keras_shape(tensor: Tensor) -> tuple[int, ...]:
    """The shape that Keras gives to one of our tensors."""
    return tuple(tensor.shape[axis] for axis in _TO_KERAS[tensor.ndim])


def _check_shapes(name: str, module: nn.Module, layer: KerasLayer, source: str) -> None:
    expected = [_keras_shape(t) for t in _tensors(module)]
    found = [v.shape for v in layer.variables]
    if found == expected:
        return
    if len(found) != len(expected):
        raise DataError(
            f"{source} differs at {name}: its {layer.kind} has {len(found)} variables, expected "
            f"{len(expected)} ({', '.join(VARIABLES[layer.kind])})."
        )
    variable, ours, theirs = next(
        (v, e, f) for v, e, f in zip(VARIABLES[layer.kind], expected, found, strict=True) if e != f
    )
    raise DataError(
        f"{source} differs at {name}: the {variable} of its {layer.kind} has the shape {theirs}, "
        f"this network's has {ours}: choose the network that it was saved from."
    )
