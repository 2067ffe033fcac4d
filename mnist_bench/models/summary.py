"""A network layer by layer, as Keras's `model.summary()` shows it."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class LayerSummary:
    """One row: the layer's name and kind, its output shape without the batch, its parameters."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int


def count_parameters(module: nn.Module) -> int:
    """What Keras calls total: trainable parameters and batch norm's running statistics."""
    trainable = sum(p.numel() for p in module.parameters())
    running = sum(b.numel() for b in module.buffers() if b.is_floating_point())
    return trainable + running


@torch.no_grad()
def summarise(network: nn.Module, image_shape: tuple[int, int, int]) -> list[LayerSummary]:
    """The rows of a summary table; an activation counts to the layer before it, as in Keras.

    `image_shape` is channels, rows, columns. Shapes are found on PyTorch's `meta` device, where
    nothing is computed, or on the CPU for a network that looks at values; where it cannot be
    copied, there are none.
    """
    for device in ("meta", "cpu"):
        try:
            return _summarise_on(device, network, image_shape)
        except Exception:  # of a network of the user's own, which may do anything
            continue
    named = [(name, m) for name, m in network.named_modules() if not list(m.children())]
    return [LayerSummary(n, type(m).__name__, (), count_parameters(m)) for n, m in named]


def _summarise_on(
    device: str, network: nn.Module, image_shape: tuple[int, int, int]
) -> list[LayerSummary]:
    rows: list[LayerSummary] = []
    network = copy.deepcopy(network).to(device).eval()
    names = {
        layer: name.removeprefix("features.").removeprefix("classifier.")
        for name, layer in network.named_modules()
    }

    def record(layer: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        kind = type(layer).__name__
        shape = tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
        rows.append(LayerSummary(names[layer], kind, shape, count_parameters(layer)))

    for layer in names:
        if not list(layer.children()) and not isinstance(layer, nn.ReLU):
            layer.register_forward_hook(record)
    network(torch.zeros(1, *image_shape, device=device))
    return rows
