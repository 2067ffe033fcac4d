"""The networks, in PyTorch's own layers: `ConvNet` is all nine published ones (`conf/model/`)."""

from mnist_bench.models.build import build_network
from mnist_bench.models.convnet import ConvNet
from mnist_bench.models.summary import LayerSummary, count_parameters, summarise

__all__ = ["ConvNet", "LayerSummary", "build_network", "count_parameters", "summarise"]
