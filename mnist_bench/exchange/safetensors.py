"""A network as safetensors: its weights, and all that `mnist_bench.load` needs beside them."""

from collections.abc import Mapping

from torch import Tensor

from mnist_bench.errors import ConfigError
from mnist_bench.runs.load import TrainedNetwork


def to_safetensors(trained: TrainedNetwork, described: Mapping[str, str]) -> bytes:
    """Return the file: the network's `state_dict`, and `described` as its metadata.

    Raises:
        ConfigError: the `state_dict` has something else than tensors.
    """
    from safetensors.torch import save

    weights = {}
    for name, value in trained.network.state_dict().items():
        if not isinstance(value, Tensor):
            raise ConfigError(
                f"The network {trained.config.model.name} keeps a {type(value).__name__} in its "
                f"state_dict, {name}: safetensors holds tensors only."
            )
        weights[name] = value.detach().clone().contiguous()  # one that is shared, twice
    return save(weights, dict(described))
