"""A training step as a CUDA graph: recorded once, then started with one call.

A step of a small network is a hundred kernels of microseconds each, and starting them one by one
takes a CPU longer than a GPU takes to run them.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mnist_bench.config import Precision, TrainerConfig
from mnist_bench.placement import Placement

# Steps of a training before one is recorded: the first ones allocate, and choose kernels.
WARM_UP_STEPS = 5


class Recorder(Protocol):
    """What a device needs to be told to record its work."""

    def run(self, work: Callable[[], None]) -> None:
        """Do the work as it will be recorded."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record the work without doing it; returns what does it.

        Raises:
            RuntimeError: there is something in it that cannot be recorded.
        """


class CudaRecorder:
    """Work goes to a stream of its own, as PyTorch asks of what a graph is made from.

    https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture
    """

    def __init__(self, device: torch.device):
        self.stream = torch.cuda.Stream(device)

    def run(self, work: Callable[[], None]) -> None:
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            work()
        current.wait_stream(self.stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            work()
        return graph.replay


@dataclass
class StepGraph:
    """Takes the first steps, and those of another batch size, as they come, and replays the rest.

    The work must do the same each time but for the batch that it is given: it reads and writes the
    same tensors.
    """

    recorder: Recorder
    batch_size: int
    taken: int = 0
    batch: Tensor | None = None  # the one that the graph reads
    replay: Callable[[], None] | None = None

    def step(self, work: Callable[[Tensor], None], batch_N: Tensor) -> None:
        """Do `work` on the images that `batch_N` picks."""
        full = len(batch_N) == self.batch_size
        if full and self.taken == WARM_UP_STEPS:  # once, whether it works or not
            self._record(work, batch_N)
        if full and self.replay is not None:
            assert self.batch is not None
            self.batch.copy_(batch_N)
            self.replay()
        else:
            self.recorder.run(lambda: work(batch_N))
        self.taken += full

    def _record(self, work: Callable[[Tensor], None], batch_N: Tensor) -> None:
        held_N = batch_N.clone()
        try:
            self.replay = self.recorder.record(lambda: work(held_N))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            warnings.warn(f"Training goes on without a CUDA graph: {reason}", stacklevel=2)
        self.batch = held_N


def can_record(config: TrainerConfig, placement: Placement) -> bool:
    """Loss scaling, which fp16 needs, looks at the gradients between device and host."""
    return (
        config.cuda_graphs
        and placement.device.type == "cuda"
        and placement.precision is not Precision.fp16
    )


def build_graph(
    config: TrainerConfig, placement: Placement, optimizer: torch.optim.Optimizer
) -> StepGraph | None:
    """None where steps cannot be recorded: off CUDA, in fp16, by an optimizer that cannot."""
    on_device = all(isinstance(group["lr"], Tensor) for group in optimizer.param_groups)
    if not can_record(config, placement) or not on_device:
        return None
    return StepGraph(CudaRecorder(placement.device), config.batch_size)
