"""Recorded steps against plain ones: the bookkeeping on the CPU, the graphs wherever CUDA is."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mnist_bench.config import TrainConfig
from mnist_bench.data.splits import Splits
from mnist_bench.graphs import WARM_UP_STEPS, StepGraph
from mnist_bench.placement import set_up_torch
from mnist_bench.prepare import prepare
from mnist_bench.step import Learner, build_learner

Compose = Callable[..., TrainConfig]
OPTIMIZERS = ["adam", "adamw", "sgd", "rmsprop", "adadelta", "keras_adam", "keras_rmsprop"]


class Again:
    """A recorder for the CPU: what it has recorded it does again, step by step."""

    def __init__(self) -> None:
        self.recorded = self.replayed = self.ran = 0

    def run(self, work: Callable[[], None]) -> None:
        self.ran += 1
        work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            work()

        return replay


class Never(Again):
    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")


def take_steps(
    compose: Compose, root: Path, recorder: Again | None, steps: int, *overrides: str
) -> tuple[Learner, list[float]]:
    """A learner after some steps of 32 images and a smaller one after each eighth; the losses."""
    config = compose(f"data.root={root}", "data.limit=300", "trainer.batch_size=32", *overrides)
    prepared = prepare(config, lambda line: None)
    splits: Splits = prepared.splits.to(prepared.placement.device)
    set_up_torch(config.seed, deterministic=False)
    learner = build_learner(config, prepared.placement, splits)
    if recorder is not None:
        learner.graph = StepGraph(recorder, 32)
    totals = learner.new_totals()
    losses = []
    for step in range(steps):
        start = 32 * (step % 8)
        size = 32 if step % 8 < 7 else 20
        batch = torch.arange(start, start + size, device=prepared.placement.device)
        learner.step(splits.train, batch, totals)
        losses.append(totals.averages().loss)
        assert totals.images == size
        totals.reset()
    return learner, losses


def weights(learner: Learner) -> Tensor:
    return torch.cat([p.detach().flatten() for p in learner.network.parameters()])


CPU = ("trainer.gpus=0", "trainer.precision=fp32", "model=cnn5x5_single")


def test_recorded_steps_are_the_plain_ones(compose: Compose, mnist_root: Path) -> None:
    recorder = Again()
    plain, expected = take_steps(compose, mnist_root, None, 20, *CPU)
    recorded, losses = take_steps(compose, mnist_root, recorder, 20, *CPU)
    assert losses == expected
    assert torch.equal(weights(recorded), weights(plain))
    smaller = 20 // 8
    assert recorder.recorded == 1
    assert recorder.ran == WARM_UP_STEPS + smaller
    assert recorder.replayed == 20 - WARM_UP_STEPS - smaller


def test_what_cannot_be_recorded_is_computed_as_it_comes(
    compose: Compose, mnist_root: Path
) -> None:
    plain, _ = take_steps(compose, mnist_root, None, 10, *CPU)
    with pytest.warns(UserWarning, match=r"without a CUDA graph: .* stream is capturing$") as said:
        other, _ = take_steps(compose, mnist_root, Never(), 10, *CPU)
    assert len(said) == 1
    assert torch.equal(weights(other), weights(plain))


def test_no_graph_is_made_off_cuda(compose: Compose, mnist_root: Path) -> None:
    learner, _ = take_steps(compose, mnist_root, None, 1, *CPU)
    assert learner.graph is None


# --- On CUDA ----------------------------------------------------------------------------------

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@needs_cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dropout", ["0", "0.5"])
def test_graphs_give_the_losses_of_plain_steps(
    compose: Compose, mnist_root: Path, precision: str, optimizer: str, dropout: str
) -> None:
    """50 steps, with a schedule that moves; dropout draws the same masks either way."""
    settings = (
        *("trainer.gpus=1", f"trainer.precision={precision}", f"optimizer={optimizer}"),
        *("model=cnn5x5_single", f"model.dropout={dropout}", "optimizer.lr=1e-3"),
    )
    plain, expected = take_steps(
        compose, mnist_root, None, 50, *settings, "trainer.cuda_graphs=false"
    )
    graphed, losses = take_steps(compose, mnist_root, None, 50, *settings)
    assert plain.graph is None
    assert graphed.graph is not None and graphed.graph.replay is not None
    tolerance = 1e-4 if precision == "fp32" else 2e-2
    assert losses == pytest.approx(expected, rel=tolerance)


@needs_cuda
@pytest.mark.parametrize(
    "settings", [("trainer.precision=fp16",), ("optimizer=keras3_rmsprop",)], ids=str
)
def test_what_has_no_graph_trains_all_the_same(
    compose: Compose, mnist_root: Path, settings: tuple[str, ...]
) -> None:
    learner, losses = take_steps(
        compose, mnist_root, None, 50, "trainer.gpus=1", "model=cnn5x5_single", *settings
    )
    assert learner.graph is None
    assert losses[-2] < losses[0]
