"""The networks: one description, `ConvNet`, covers all nine published ones (`conf/model/`)."""

from mnist_bench.models.convnet import ConvNet
from mnist_bench.models.summary import LayerSummary, count_parameters, summarise

__all__ = ["ConvNet", "LayerSummary", "count_parameters", "summarise"]
