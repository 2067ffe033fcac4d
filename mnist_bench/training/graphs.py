"""Training steps, on CUDA as graphs: recorded once, then started with one call.

A step of a small network is a hundred kernels of microseconds each, and launching them one by one
takes a CPU longer than a GPU takes to run them. N images.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from mnist_bench.data.splits import ImageSet
from mnist_bench.training.learner import Learner
from mnist_bench.training.metrics import Totals
from mnist_bench.training.optimizers.state import copy_state, is_recordable, restore_state

# Steps before one is recorded: the first allocates what an optimizer keeps, and chooses kernels.
WARM_UP_STEPS = 2

Work = Callable[[], None]


class Recorder(Protocol):
    """What a device needs to be told to record work."""

    def run(self, work: Work) -> None:
        """Do the work as it will be recorded."""

    def record(self, work: Work) -> Work:
        """Record the work without doing it; return what does it.

        Raises:
            RuntimeError: something in it cannot be recorded, and says so.
        """


class CudaRecorder:
    """Work goes to a stream of its own, as PyTorch asks of what a graph is made from.

    All graphs of one recorder share one pool of memory, as they never run at the same time.
    https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.pool: Any = None  # PyTorch's handle, once there is a graph

    def run(self, work: Work) -> None:
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            work()
        current.wait_stream(self.stream)

    def record(self, work: Work) -> Work:
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream(self.device)
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                work()
        except RuntimeError as error:
            self._recover(current)
            # What ended the capture; `error` says only that it has ended.
            raise error.__context__ or error from None
        self.pool = graph.pool()
        return graph.replay

    def _recover(self, current: torch.cuda.Stream) -> None:
        """Undo what PyTorch leaves of a failed capture: its stream, and a generator in capture."""
        torch.cuda.set_stream(current)
        generator = torch.cuda.default_generators[self.device.index]
        generator.graphsafe_set_state(generator.clone_state())


@dataclass(frozen=True)
class RecordedStep:
    """A step on the images that `batch` picks, which is read anew each time."""

    batch: Tensor
    replay: Work

    def __call__(self, batch_N: Tensor) -> None:
        self.batch.copy_(batch_N)
        self.replay()


class Stepper:
    """Takes the steps of one training, on images and into sums that stay the same tensors."""

    def __init__(
        self,
        learner: Learner,
        images: ImageSet,
        totals: Totals,
        recorder: Recorder | None = None,
    ):
        self.learner, self.images, self.totals = learner, images, totals
        if recorder is None and learner.recordable:
            recorder = CudaRecorder(learner.placement.device)
        self.recorder = recorder
        self.graphs: dict[int, RecordedStep] = {}  # by batch size

    def step(self, batch_N: Tensor) -> None:
        """Train on the images that `batch_N` (int64, on the device) picks."""
        self.learner.begin_step()
        recorded = self.graphs.get(len(batch_N))
        if recorded is None:
            self._compute(batch_N)
        else:
            recorded(batch_N)
        self.totals.images += len(batch_N)

    def warm_up(self, batch_sizes: Sequence[int]) -> float:
        """Compile, choose kernels and record steps of these sizes; return the seconds it took.

        The training stays where it is: what the steps changed is put back, in the same memory.
        Without a GPU or a compiler there is nothing to do.
        """
        learner = self.learner
        if (
            learner.placement.device.type == "cpu"
            and learner.compiled is None
            and not self.recorder
        ):
            return 0.0
        if learner.placement.device.type == "cuda" and learner.cuda_graphs and not self.recorder:
            _warn(_why_not_recordable(learner))
        start = time.perf_counter()
        learner.network.train()
        with unchanged(learner, self.totals):
            for size in batch_sizes:
                # Trying all of cuDNN's ways takes longer than an epoch's odd batch can win.
                self._warm_up(size, autotune=size == batch_sizes[0])
        learner.placement.synchronize()
        return time.perf_counter() - start

    def _warm_up(self, size: int, autotune: bool) -> None:
        batch_N = torch.arange(size, device=self.learner.placement.device)
        work = partial(self._compute, batch_N)
        with _autotuned(autotune):
            for _ in range(WARM_UP_STEPS):
                work() if self.recorder is None else self.recorder.run(work)
        if self.recorder is not None:
            try:
                self.graphs[size] = RecordedStep(batch_N, self.recorder.record(work))
            except RuntimeError as error:
                _warn(str(error).splitlines()[0])
                self.recorder = None
                if self.learner.scaler.is_enabled():
                    # The step ended half way, and left its gradients marked as unscaled.
                    self.learner.scaler._per_optimizer_states.clear()

    def _compute(self, batch_N: Tensor) -> None:
        self.learner.compute(self.images, self.totals, batch_N)


def _why_not_recordable(learner: Learner) -> str:
    name = type(learner.optimizer).__name__
    if is_recordable(learner.optimizer):
        return f"in fp16 {name} looks at gradients on the host"
    return f"{name} may keep numbers on the host, which a graph would not change"


def _warn(reason: str) -> None:
    warnings.warn(f"Training goes on without a CUDA graph: {reason}", stacklevel=4)


@contextmanager
def _autotuned(wanted: bool) -> Iterator[None]:
    """Have cuDNN try its ways to compute a convolution that it has not met, and keep the fastest.

    Not if PyTorch was asked for deterministic kernels, which these may not be.
    """
    cudnn = torch.backends.cudnn
    cudnn.benchmark = wanted and not torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        cudnn.benchmark = False


@contextmanager
def unchanged(learner: Learner, totals: Totals) -> Iterator[None]:
    """Put a training back to where it is, in the same memory, whatever steps it takes within."""
    changing = [totals.sums, *learner.network.state_dict().values()]
    if learner.average is not None:
        changing += learner.average.network.state_dict().values()
    kept, kept_state = [tensor.clone() for tensor in changing], copy_state(learner.optimizer)
    scaler, device = learner.scaler.state_dict(), learner.placement.device
    random = torch.get_rng_state()
    random_on_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        for tensor, value in zip(changing, kept, strict=True):
            tensor.copy_(value)
        restore_state(learner.optimizer, kept_state)
        if scaler:  # empty but in fp16
            learner.scaler.load_state_dict(scaler)
        torch.set_rng_state(random)
        if random_on_device is not None:
            torch.cuda.set_rng_state(random_on_device, device)
