"""The networks: one description, `ConvNet`, covers all nine published ones (`conf/model/`)."""

from torch import nn

from mnist_bench.config.parts import Part
from mnist_bench.config.schema import ModelConfig
from mnist_bench.models.convnet import ConvNet
from mnist_bench.models.summary import LayerSummary, count_parameters, summarise

__all__ = ["ConvNet", "LayerSummary", "build_network", "count_parameters", "summarise"]


def build_network(
    config: ModelConfig | Part, num_classes: int, image_shape: tuple[int, ...]
) -> nn.Module:
    """Return a fresh network for images of `image_shape`, (C, H, W), with PyTorch's random numbers.

    A class of the user's own is called with `num_classes`, and with `image_shape` if it takes it.

    Raises:
        ConfigError: it does not fit the images, or a class cannot be called so.
    """
    if isinstance(config, Part):
        offered = {"image_shape": image_shape}
        return config.build(nn.Module, {"num_classes": num_classes}, offered)
    return ConvNet(config, num_classes)
