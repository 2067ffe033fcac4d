"""Learners that train side by side on one device: the seeds of one experiment, or a single one.

A GPU that one small network leaves idle has room for more. Each learner keeps a network, an
optimizer and random numbers of its own, and does what it would do alone; what they share is the
images, and on CUDA a graph whose branches run at once. R learners, N images.
"""

from collections.abc import Sequence
from functools import partial
from types import TracebackType

import torch
from torch import Tensor

from mnist_bench.config import TrainConfig
from mnist_bench.data.splits import ImageSet, Splits
from mnist_bench.graphs import CudaRecorder, StepGraph
from mnist_bench.placement import Placement, set_up_torch
from mnist_bench.step import Learner, Totals, build_learner


class OwnRandomness:
    """Within it, PyTorch's default generators draw the numbers of one learner among several.

    Begins with the generators as they are, and leaves them as it finds them.
    """

    def __init__(self, device: torch.device):
        self.state = self.outside = torch.get_rng_state()  # the CPU's
        self.generator: _SwappedGenerator | None = None  # CUDA's
        if device.type == "cuda":
            self.generator = _SwappedGenerator(torch.cuda.default_generators[device.index])

    def __enter__(self) -> None:
        self.outside = torch.get_rng_state()
        torch.set_rng_state(self.state)
        if self.generator is not None:
            self.generator.swap_in()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.state = torch.get_rng_state()
        torch.set_rng_state(self.outside)
        if self.generator is not None:
            self.generator.swap_out()


class _SwappedGenerator:
    """CUDA's default generator, with another state in its place rather than copied into it.

    A graph goes on with the states that it was recorded with.
    """

    def __init__(self, default: torch.Generator):
        self.default, self.own, self.outside = default, default.clone_state(), default

    def swap_in(self) -> None:
        self.outside = self.default.graphsafe_get_state()
        self.default.graphsafe_set_state(self.own)

    def swap_out(self) -> None:
        self.default.graphsafe_set_state(self.outside)


def build_learners(
    configs: Sequence[TrainConfig], placement: Placement, splits: Splits
) -> list[Learner]:
    """A fresh learner for each configuration; of several, each has random numbers of its own."""
    learners = []
    for config in configs:
        set_up_torch(config.seed, config.trainer.deterministic)
        learners.append(build_learner(config, placement, splits))
        if len(configs) > 1:
            learners[-1].randomness = OwnRandomness(placement.device)
    return learners


class Replicas:
    """Takes a step of every learner at once; a graph holds those of `batch_size` images."""

    def __init__(self, learners: Sequence[Learner], batch_size: int):
        self.learners = learners
        self.graph: StepGraph | None = None
        if all(learner.recordable for learner in learners):
            own = (learner.randomness for learner in learners)
            generators = [
                r.generator.own for r in own if isinstance(r, OwnRandomness) and r.generator
            ]
            recorder = CudaRecorder(learners[0].placement.device, generators)
            self.graph = StepGraph(recorder, batch_size)

    def step(self, images: ImageSet, batches_RN: Tensor, totals: Sequence[Totals]) -> None:
        """Train each learner on the images that its row (int64, on the device) picks."""
        for learner in self.learners:
            learner.begin_step()
        works = [
            partial(learner.compute, images, total)
            for learner, total in zip(self.learners, totals, strict=True)
        ]
        if self.graph is None:
            for work, batch_N in zip(works, batches_RN, strict=True):
                work(batch_N)
        else:
            self.graph.step(works, batches_RN)
        for total in totals:
            total.images += batches_RN.shape[1]
