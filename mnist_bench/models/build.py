"""The one place where networks are built."""

from torch import nn

from mnist_bench.config.parts import Part
from mnist_bench.config.schema import ModelConfig
from mnist_bench.models.convnet import ConvNet


def build_network(
    config: ModelConfig | Part,
    num_classes: int = 10,
    image_shape: tuple[int, int, int] = (1, 28, 28),
) -> nn.Module:
    """Build the network that a configuration describes, its weights drawn anew.

    A class of the user's own is called with `num_classes`, and with `image_shape` if it takes it.

    `image_shape` is that of an image: channels, rows, columns. The network takes (N, C, H, W) and
    returns logits (N, K); it has PyTorch's layers only (`kernels.accelerate` makes it fast).

    Raises:
        ConfigError: the settings do not fit the images or each other, or a class of the user's own
            cannot be called so.
    """
    if isinstance(config, Part):
        offered = {"image_shape": image_shape}
        return config.build(nn.Module, {"num_classes": num_classes}, offered)
    return ConvNet(config, num_classes, image_shape)
