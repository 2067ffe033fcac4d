"""Networks as `model=NAME` builds them, and their layers in the notation of the publications."""

from collections.abc import Iterator

import torch
from torch import nn

from mnist_bench.config.schema import TrainConfig
from mnist_bench.models import ConvNet

MNIST = (1, 28, 28)  # channels, rows, columns


def build(
    config: TrainConfig,
    num_classes: int = 10,
    device: str = "cpu",
    image_shape: tuple[int, int, int] = MNIST,
) -> ConvNet:
    with torch.device(device):
        return ConvNet(config.model, num_classes, image_shape)


def notation(network: nn.Module) -> Iterator[str]:
    """The layers of a network, but for its ReLUs, as in "C32k3 P2 D.25 F128 BN".

    They are a convolution of 32 kernels of 3 x 3, a pooling, dropout, a dense layer and batch norm.
    """
    for layer in network.modules():
        match layer:
            case nn.Conv2d():
                assert layer.kernel_size[0] == layer.kernel_size[1] and layer.stride == (1, 1)
                yield f"C{layer.out_channels}k{layer.kernel_size[0]}"
            case nn.MaxPool2d():
                yield f"P{layer.kernel_size}"
            case nn.Dropout():
                yield f"D{layer.p:g}".replace("0.", ".")
            case nn.Linear():
                yield f"F{layer.out_features}"
            case nn.BatchNorm1d():
                yield "BN"
