"""Training steps as a CUDA graph: recorded once, then started with one call.

A step of a small network is a hundred kernels of microseconds each, and starting them one by one
takes a CPU longer than a GPU takes to run them. Nor does it fill a GPU: a graph may hold the steps
of several networks, side by side. R networks, N images.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from mnist_bench.config import Precision, TrainerConfig
from mnist_bench.placement import Placement

# Steps of a training before one is recorded: the first ones allocate, and choose kernels.
WARM_UP_STEPS = 5

Work = Callable[[], None]


class Recorder(Protocol):
    """What a device needs to be told to record work that is independent of each other."""

    def run(self, works: Sequence[Work]) -> None:
        """Do the work as it will be recorded."""

    def record(self, works: Sequence[Work]) -> Work:
        """Record the work without doing it; returns what does it.

        Raises:
            RuntimeError: there is something in it that cannot be recorded.
        """


class CudaRecorder:
    """Work goes to streams of its own, as PyTorch asks of what a graph is made from.

    Their ends are waited for on the first of them. PyTorch has 32 streams to give: of more works,
    some share one and run one after the other. `generators` are those that the work draws from,
    beside PyTorch's default one.
    https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture
    """

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator] = ()):
        self.generators = generators
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.branches: list[torch.cuda.Stream] = []

    def run(self, works: Sequence[Work]) -> None:
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            self._fork(works)
        current.wait_stream(self.stream)

    def record(self, works: Sequence[Work]) -> Work:
        graph = torch.cuda.CUDAGraph()
        if TorchVersion(torch.__version__) < "2.14":  # from then on graphs find them
            for generator in self.generators:
                graph.register_generator_state(generator)
        with torch.cuda.graph(graph, stream=self.stream):
            self._fork(works)
        return graph.replay

    def _fork(self, works: Sequence[Work]) -> None:
        """The first on the current stream, each other one on its own."""
        while len(self.branches) < len(works) - 1:
            self.branches.append(torch.cuda.Stream(self.device))
        for stream in self.branches:
            stream.wait_stream(self.stream)
        first, *others = works
        try:
            first()
            for stream, work in zip(self.branches, others, strict=True):
                with torch.cuda.stream(stream):
                    work()
        finally:  # what fails while it is recorded must not leave branches open
            for stream in self.branches:
                self.stream.wait_stream(stream)


@dataclass
class StepGraph:
    """Takes the first steps, and those of another batch size, as they come, and replays the rest.

    The works must do the same each time but for the batches that they are given: they read and
    write the same tensors.
    """

    recorder: Recorder
    batch_size: int
    taken: int = 0
    batches: Tensor | None = None  # what the graph reads
    replay: Work | None = None

    def step(self, works: Sequence[Callable[[Tensor], None]], batches_RN: Tensor) -> None:
        """Do each work on the images that its row of `batches_RN` picks."""
        full = batches_RN.shape[1] == self.batch_size
        if full and self.taken == WARM_UP_STEPS:  # once, whether it works or not
            self._record(works, batches_RN)
        if full and self.replay is not None:
            assert self.batches is not None
            self.batches.copy_(batches_RN)
            self.replay()
        else:
            self.recorder.run(_bind(works, batches_RN))
        self.taken += full

    def _record(self, works: Sequence[Callable[[Tensor], None]], batches_RN: Tensor) -> None:
        self.batches = batches_RN.clone()
        try:
            self.replay = self.recorder.record(_bind(works, self.batches))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            warnings.warn(f"Training goes on without a CUDA graph: {reason}", stacklevel=2)


def _bind(works: Sequence[Callable[[Tensor], None]], batches_RN: Tensor) -> list[Work]:
    return [partial(work, batch_N) for work, batch_N in zip(works, batches_RN, strict=True)]


def can_record(config: TrainerConfig, placement: Placement) -> bool:
    """Loss scaling, which fp16 needs, looks at the gradients between device and host."""
    return (
        config.cuda_graphs
        and placement.device.type == "cuda"
        and placement.precision is not Precision.fp16
    )
