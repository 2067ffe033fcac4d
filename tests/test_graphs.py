"""Recorded steps against plain ones: the bookkeeping on the CPU, the graphs wherever CUDA is."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mnist_bench.checkpoint import restore_optimizer
from mnist_bench.config import TrainConfig
from mnist_bench.data.splits import Splits
from mnist_bench.graphs import WARM_UP_STEPS, StepGraph, Work
from mnist_bench.optimizers import build_optimizer
from mnist_bench.prepare import prepare
from mnist_bench.replicas import Replicas, build_learners

Compose = Callable[..., TrainConfig]
OPTIMIZERS = ["adam", "adamw", "sgd", "rmsprop", "adadelta", "keras_adam", "keras_rmsprop", "muon"]


class Again:
    """A recorder for the CPU: what it has recorded it does again, step by step."""

    def __init__(self) -> None:
        self.recorded = self.replayed = self.ran = 0

    def run(self, works: Sequence[Work]) -> None:
        self.ran += 1
        for work in works:
            work()

    def record(self, works: Sequence[Work]) -> Work:
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            for work in works:
                work()

        return replay


class Never(Again):
    def record(self, works: Sequence[Work]) -> Work:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")


def take_steps(
    compose: Compose,
    root: Path,
    recorder: Again | None,
    steps: int,
    *overrides: str,
    seeds: Sequence[int] = (0,),
) -> tuple[Replicas, list[list[float]]]:
    """Learners after some steps of 32 images and a smaller one after each eighth; their losses."""
    config = compose(f"data.root={root}", "data.limit=300", "trainer.batch_size=32", *overrides)
    prepared = prepare(config, lambda line: None)
    device = prepared.placement.device
    splits: Splits = prepared.splits.to(device)
    configs = [replace(config, seed=seed) for seed in seeds]
    learners = build_learners(configs, prepared.placement, splits)
    replicas = Replicas(learners, 32)
    if recorder is not None:
        replicas.graph = StepGraph(recorder, 32)
    totals = [learner.new_totals() for learner in learners]
    losses = []
    for step in range(steps):
        size = 32 if step % 8 < 7 else 20
        starts = [(32 * (step % 8) + 7 * seed) % 280 for seed in seeds]
        batches = torch.stack([torch.arange(s, s + size, device=device) for s in starts])
        replicas.step(splits.train, batches, totals)
        losses.append([total.averages().loss for total in totals])
        assert all(total.images == size for total in totals)
        for total in totals:
            total.reset()
    return replicas, losses


def weights(replicas: Replicas, which: int = 0) -> Tensor:
    network = replicas.learners[which].network
    return torch.cat([p.detach().flatten() for p in network.parameters()])


CPU = ("trainer.gpus=0", "trainer.precision=fp32", "model=cnn5x5_single")


@pytest.mark.parametrize("seeds", [(0,), (3, 4, 5)])
def test_recorded_steps_are_the_plain_ones(
    compose: Compose, mnist_root: Path, seeds: tuple[int, ...]
) -> None:
    """Also of learners side by side, each against itself alone."""
    recorder = Again()
    recorded, losses = take_steps(compose, mnist_root, recorder, 20, *CPU, seeds=seeds)
    for which, seed in enumerate(seeds):
        plain, expected = take_steps(compose, mnist_root, None, 20, *CPU, seeds=[seed])
        assert [step[which] for step in losses] == [loss for [loss] in expected]
        assert torch.equal(weights(recorded, which), weights(plain))
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
    replicas, _ = take_steps(compose, mnist_root, None, 1, *CPU)
    assert replicas.graph is None


@pytest.mark.parametrize("optimizer", ["adam", "keras_adam", "rmsprop", "adadelta", "muon"])
def test_a_restored_optimizer_counts_its_steps_where_a_graph_can(
    compose: Compose, mnist_root: Path, optimizer: str
) -> None:
    """A checkpoint of the CPU; the device that can record is played by PyTorch's `meta`."""
    plain, _ = take_steps(compose, mnist_root, None, 2, *CPU, f"optimizer={optimizer}")
    network = plain.learners[0].network
    saved = plain.learners[0].optimizer.state_dict()
    config = compose(f"optimizer={optimizer}").optimizer
    restored = build_optimizer(config, network.parameters(), capturable=True)
    for group in restored.param_groups:
        group["params"] = [torch.nn.Parameter(p.detach().to("meta")) for p in group["params"]]
    restore_optimizer(restored, saved)
    for group in restored.param_groups:
        for weight in group["params"]:
            assert restored.state[weight]
            assert {value.device.type for value in restored.state[weight].values()} == {"meta"}


# --- On CUDA ----------------------------------------------------------------------------------

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@needs_cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "extra",
    [
        "model.dropout=0",
        "model.dropout=0.5",
        "augmentation=affine_elastic trainer.ema_decay=0.99 model.conv_batch_norm=true",
    ],
)
def test_graphs_give_the_losses_of_plain_steps(
    compose: Compose, mnist_root: Path, precision: str, optimizer: str, extra: str
) -> None:
    """50 steps, with a schedule that moves; random numbers are the same either way."""
    settings = (
        *("trainer.gpus=1", f"trainer.precision={precision}", f"optimizer={optimizer}"),
        *("model=cnn5x5_single", "optimizer.lr=1e-3", *extra.split()),
    )
    plain, expected = take_steps(
        compose, mnist_root, None, 50, *settings, "trainer.cuda_graphs=false"
    )
    graphed, losses = take_steps(compose, mnist_root, None, 50, *settings)
    assert plain.graph is None
    assert graphed.graph is not None and graphed.graph.replay is not None
    tolerance = 1e-4 if precision == "fp32" else 2e-2
    assert [a for [a] in losses] == pytest.approx([a for [a] in expected], rel=tolerance)
    ours, theirs = (r.learners[0].tested.state_dict() for r in (graphed, plain))
    for name, value in ours.items():  # the mean weights, if there are any
        scale = theirs[name].float().abs().max().item()
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=5 * tolerance * (scale + 1))


@needs_cuda
@pytest.mark.parametrize(
    "settings", [("trainer.precision=fp16",), ("optimizer=keras3_rmsprop",)], ids=str
)
def test_what_has_no_graph_trains_all_the_same(
    compose: Compose, mnist_root: Path, settings: tuple[str, ...]
) -> None:
    replicas, losses = take_steps(
        compose, mnist_root, None, 50, "trainer.gpus=1", "model=cnn5x5_single", *settings
    )
    assert replicas.graph is None
    assert losses[-2] < losses[0]


@needs_cuda
@pytest.mark.parametrize("graphs", ["true", "false"])
def test_replicas_on_cuda_are_what_each_would_be_alone(
    compose: Compose, mnist_root: Path, graphs: str
) -> None:
    """With dropout, whose masks each draws from its own seed; the third ends as it would alone."""
    settings = ("trainer.gpus=1", "trainer.precision=fp32", f"trainer.cuda_graphs={graphs}")
    together, losses = take_steps(compose, mnist_root, None, 50, *settings, seeds=[3, 4, 5])
    for which, seed in enumerate([3, 4, 5]):
        _, alone = take_steps(compose, mnist_root, None, 50, *settings, seeds=[seed])
        expected = [loss for [loss] in alone]
        assert [step[which] for step in losses] == pytest.approx(expected, rel=1e-4)
    assert (together.graph is not None) == (graphs == "true")
    assert together.graph is None or together.graph.replay is not None
