"""Recorded steps against plain ones: the bookkeeping on the CPU, the graphs wherever CUDA is."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mnist_bench.config.schema import TrainConfig
from mnist_bench.runs.checkpoint import restore_optimizer
from mnist_bench.runs.prepare import prepare
from mnist_bench.training.graphs import WARM_UP_STEPS, Stepper, Work
from mnist_bench.training.learner import batch_sizes, build_learner
from mnist_bench.training.loop import Position
from mnist_bench.training.optimizers import build_optimizer

Compose = Callable[..., TrainConfig]
OPTIMIZERS = [
    *("adam", "adamw", "sgd", "rmsprop", "adadelta", "muon"),
    *("keras_adam", "keras_adadelta", "keras_rmsprop", "keras3_rmsprop"),
]
# An epoch of 300 images in batches of 32: nine full ones, and one of 12.
FULL, REST = 32, 12


class Again:
    """A recorder for the CPU: what it has recorded it does again, step by step."""

    def __init__(self) -> None:
        self.recorded = self.replayed = self.ran = 0

    def run(self, work: Work) -> None:
        self.ran += 1
        work()

    def record(self, work: Work) -> Work:
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            work()

        return replay


class Never(Again):
    def record(self, work: Work) -> Work:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")


def take_steps(
    compose: Compose,
    root: Path,
    steps: int,
    *overrides: str,
    recorder: Again | None = None,
    warm_up: bool = True,
    kind: type[Stepper] = Stepper,
) -> tuple[Stepper, list[float]]:
    """Steps of 32 images, and a smaller one after each ninth; returns their losses."""
    config = compose(f"data.root={root}", "data.limit=300", "trainer.batch_size=32", *overrides)
    prepared = prepare(config, lambda line: None)
    device = prepared.placement.device
    splits = prepared.splits.to(device)
    learner = build_learner(config, prepared.placement, splits)
    position = Position(learner.new_totals())
    totals = position.totals
    stepper = kind(learner, splits.train, totals, recorder)
    if warm_up:
        stepper.warm_up(batch_sizes(len(splits.train), FULL))
    learner.network.train()
    losses = []
    batches = torch.arange(300, device=device).split(FULL)
    for step in range(steps):
        batch_N = batches[step % len(batches)]
        stepper.step(batch_N)
        losses.append(totals.averages()["loss"])
        assert totals.images == len(batch_N)
        totals.reset()
    return stepper, losses


def weights(stepper: Stepper) -> dict[str, Tensor]:
    """What is validated and tested: the mean of the weights, if there is one."""
    return stepper.learner.tested.state_dict()


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


CPU = ("trainer.gpus=0", "trainer.precision=fp32", "model=cnn5x5_single")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_recorded_steps_are_the_plain_ones(
    compose: Compose, mnist_root: Path, optimizer: str
) -> None:
    """Warm-up takes steps of both sizes, and leaves no trace: also none in dropout's numbers."""
    settings = (
        *(*CPU, f"optimizer={optimizer}", "model.conv_batch_norm=true"),
        *("trainer.ema_decay=0.9", "augmentation=affine"),
    )
    plain, expected = take_steps(compose, mnist_root, 20, *settings, warm_up=False)
    recorder = Again()
    recorded, losses = take_steps(compose, mnist_root, 20, *settings, recorder=recorder)
    assert losses == expected
    assert_same(weights(recorded), weights(plain))
    assert set(recorded.graphs) == {FULL, REST}
    assert recorder.recorded == 2
    assert recorder.ran == 2 * WARM_UP_STEPS
    assert recorder.replayed == 20


def test_warm_up_in_the_midst_of_a_training_leaves_it_where_it_is(
    compose: Compose, mnist_root: Path
) -> None:
    """As when a run is resumed: the optimizer has a state, which is put back to what it was."""
    stepper, _ = take_steps(compose, mnist_root, 3, *CPU, "optimizer=adam", recorder=Again())
    kept = {name: value.clone() for name, value in weights(stepper).items()}
    state = [
        {name: value.clone() for name, value in one.items()}
        for one in stepper.learner.optimizer.state.values()
    ]
    numbers = torch.get_rng_state()
    stepper.warm_up([FULL, REST])
    assert torch.equal(torch.get_rng_state(), numbers)
    assert_same(weights(stepper), kept)
    for one, before in zip(stepper.learner.optimizer.state.values(), state, strict=True):
        assert_same(one, before)
    assert not stepper.totals.sums.any()


def test_what_cannot_be_recorded_is_computed_as_it_comes(
    compose: Compose, mnist_root: Path
) -> None:
    plain, _ = take_steps(compose, mnist_root, 10, *CPU)
    with pytest.warns(UserWarning, match=r"without a CUDA graph: .* stream is capturing$") as said:
        other, _ = take_steps(compose, mnist_root, 10, *CPU, recorder=Never())
    assert len(said) == 1
    assert not other.graphs
    assert_same(weights(other), weights(plain))


def test_nothing_is_recorded_and_nothing_warms_up_off_cuda(
    compose: Compose, mnist_root: Path
) -> None:
    stepper, _ = take_steps(compose, mnist_root, 0, *CPU)
    assert stepper.recorder is None
    assert stepper.warm_up([FULL, REST]) == 0.0


@pytest.mark.parametrize(
    ("images", "size", "expected"), [(300, 32, [32, 12]), (64, 32, [32]), (20, 32, [20])]
)
def test_an_epoch_has_full_batches_and_a_rest(images: int, size: int, expected: list[int]) -> None:
    assert batch_sizes(images, size) == expected
    assert {len(batch) for batch in torch.arange(images).split(size)} == set(expected)


@pytest.mark.parametrize("optimizer", ["adam", "keras_adam", "rmsprop", "adadelta", "muon"])
def test_a_restored_optimizer_counts_its_steps_where_a_graph_can(
    compose: Compose, mnist_root: Path, optimizer: str
) -> None:
    """A checkpoint of the CPU; the device that can record is played by PyTorch's `meta`."""
    plain, _ = take_steps(compose, mnist_root, 2, *CPU, f"optimizer={optimizer}")
    network = plain.learner.network
    saved = plain.learner.optimizer.state_dict()
    restored = build_optimizer(compose(f"optimizer={optimizer}").optimizer, network.parameters())
    for group in restored.param_groups:
        group["params"] = [torch.nn.Parameter(p.detach().to("meta")) for p in group["params"]]
        group["lr"], group["capturable"] = torch.tensor(1e-3, device="meta"), True
    restore_optimizer(restored, saved)
    for group in restored.param_groups:
        for weight in group["params"]:
            assert restored.state[weight]
            assert {value.device.type for value in restored.state[weight].values()} == {"meta"}


# --- On CUDA ----------------------------------------------------------------------------------

# Both sides compute with the same kernels in the same order, which `deterministic` makes sure of:
# nothing is left to rounding, and so they are compared for equality.
CUDA = ("trainer.gpus=1", "trainer.deterministic=true", "model=cnn5x5_single", "optimizer.lr=1e-3")


@pytest.mark.needs_cuda
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
        *CUDA,
        f"optimizer={optimizer}",
        f"trainer.precision={precision}",
        *extra.split(),
    )
    plain, expected = take_steps(compose, mnist_root, 50, *settings, "trainer.cuda_graphs=false")
    graphed, losses = take_steps(compose, mnist_root, 50, *settings)
    assert not plain.graphs
    assert set(graphed.graphs) == {FULL, REST}
    assert losses == expected
    assert_same(weights(graphed), weights(plain))


@pytest.mark.needs_cuda
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "keras_adam", "rmsprop"])
def test_fp16_has_graphs_where_the_optimizers_kernel_undoes_the_scale(
    compose: Compose, mnist_root: Path, optimizer: str
) -> None:
    settings = (*CUDA, f"optimizer={optimizer}", "trainer.precision=fp16")
    plain, expected = take_steps(compose, mnist_root, 50, *settings, "trainer.cuda_graphs=false")
    graphed, losses = take_steps(compose, mnist_root, 50, *settings)
    assert set(graphed.graphs) == {FULL, REST}
    assert losses == expected
    assert graphed.learner.scaler.state_dict() == plain.learner.scaler.state_dict()
    assert_same(weights(graphed), weights(plain))


@pytest.mark.needs_cuda
def test_what_has_no_graph_trains_all_the_same(compose: Compose, mnist_root: Path) -> None:
    settings = (*CUDA, "optimizer=adadelta", "trainer.precision=fp16")
    with pytest.warns(UserWarning, match="without a CUDA graph: in fp16 Adadelta"):
        stepper, losses = take_steps(compose, mnist_root, 50, *settings)
    assert not stepper.graphs
    assert losses[-2] < losses[0]


@pytest.mark.needs_cuda
def test_a_step_that_waits_for_the_device_goes_on_without_a_graph(
    compose: Compose, mnist_root: Path
) -> None:
    """With the random numbers that it would have had, and no capture that is left open."""
    _, expected = take_steps(compose, mnist_root, 20, *CUDA, "trainer.cuda_graphs=false")

    class Waiting(Stepper):
        def _compute(self, batch_N: Tensor) -> None:
            super()._compute(batch_N)
            self.totals.sums.sum().item()

    with pytest.warns(UserWarning, match="without a CUDA graph: .*captur"):
        stepper, losses = take_steps(compose, mnist_root, 20, *CUDA, kind=Waiting)
    assert not stepper.graphs
    assert losses == expected
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    # The next training has its graphs.
    again, losses = take_steps(compose, mnist_root, 20, *CUDA)
    assert set(again.graphs) == {FULL, REST}
    assert losses == expected
