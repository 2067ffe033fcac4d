"""A trained network as ONNX: from images as they are on disk to probabilities.

N images, C channels, H rows, W columns, K classes.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mnist_bench import __version__
from mnist_bench.errors import ConfigError
from mnist_bench.runs.load import TrainedNetwork

IMAGES, PROBABILITIES = "images", "probabilities"


class FromPixels(nn.Module):
    """A network from uint8 (N, H, W), or (N, H, W, C) in colour, to probabilities (N, K)."""

    def __init__(self, trained: TrainedNetwork):
        super().__init__()
        self.network, self.scaling = trained.network, trained.scaling

    def forward(self, images: Tensor) -> Tensor:
        images_NCHW = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
        logits_NK: Tensor = self.network(self.scaling(images_NCHW))
        return logits_NK.float().softmax(1)


def to_onnx(trained: TrainedNetwork, described: Mapping[str, str]) -> bytes:
    """Return the file: one input, `images`, any number of them, and one output, `probabilities`.

    `described` becomes its metadata.

    Raises:
        ConfigError: PyTorch cannot express the network so.
    """
    channels, height, width = trained.image_shape
    shape = (2, height, width) if channels == 1 else (2, height, width, channels)
    try:
        with _quiet():
            program = torch.onnx.export(
                FromPixels(trained).eval(),
                (torch.zeros(shape, dtype=torch.uint8),),
                input_names=[IMAGES],
                output_names=[PROBABILITIES],
                dynamic_shapes=({0: torch.export.Dim("N")},),
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            model = program.model_proto
    except Exception as error:
        cause = error.__cause__ or error
        reason = next((line for line in str(cause).splitlines() if line.strip()), "")
        raise ConfigError(
            f"The network {trained.config.model.name} cannot be written as ONNX for any number of "
            f"images ({type(cause).__name__}: {reason.strip()}): use --to safetensors."
        ) from error
    _forget_places(model.graph)
    model.producer_name, model.producer_version = "mnist-bench", __version__
    for key, value in described.items():
        model.metadata_props.add(key=key, value=value)
    content: bytes = model.SerializeToString()
    return content


def _forget_places(graph: Any) -> None:
    """Remove what PyTorch notes beside each node: paths of this machine among it."""
    for noted in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        noted.ClearField("metadata_props")
    for weights in graph.initializer:
        weights.ClearField("metadata_props")
    for node in graph.node:
        node.ClearField("doc_string")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what PyTorch and onnxscript say of their ways from the user's screen."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def with_onnxruntime(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return how the network in a file classifies images, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def predict(images: np.ndarray) -> np.ndarray:
        (probabilities_NK,) = session.run([PROBABILITIES], {IMAGES: images})
        found: np.ndarray = probabilities_NK
        return found

    return predict
