"""What the CUDA path captures, launches and waits for, seen over a CUDA runtime without a GPU.

See cuda_stand_in/README.md. Values and times under it mean nothing, so none is looked at.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mnist_bench.config.schema import TrainConfig
from tests.cuda_stand_in import environment, why_not
from tests.support.train_command import REPOSITORY, read_summary

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
opt_in = pytest.mark.cuda_structure

PUBLISHED = (
    *("vgg16", "conv3_dense7744", "mnist_cnn", "cnn3x3", "cnn5x5", "cnn5x5_single"),
    *("wide3x3", "wide3x5_bn", "wide5x7_bn"),
)
BF16 = "trainer.precision=bf16"
# The published recipes with their own optimizers, and what they leave out.
RECIPES = {
    **{name: (f"experiment={name}", BF16) for name in PUBLISHED},
    "speedrun": ("experiment=speedrun", BF16),
    "accuracy": ("experiment=accuracy", BF16),
    "compiled": ("experiment=mnist_cnn", BF16, "trainer.compile=true"),
    "fp16": ("model=mnist_cnn", "optimizer=adam", "trainer.precision=fp16"),
}
SMOKE = "mnist_cnn"  # the case that runs in CI
# Not a multiple of any recipe's batch size, so that an epoch's last batch is smaller.
IMAGES = 1300
EPOCHS = 2
# At most, the graph's own among them: the batch, the learning rate, and what PyTorch tells a graph
# of its random numbers. A mean of the weights takes one more, for its share.
LAUNCHES_PER_STEP = 5
WORK = ("kernel", "copy", "memset", "host function", "graph")


@dataclass(frozen=True)
class Seen:
    """A finished run, and what the stand-in saw of it."""

    records: list[dict[str, Any]]  # of inside/stand_in.py
    convolutions: list[dict[str, Any]]  # of inside/convolutions.py
    generator: dict[str, int]  # the CUDA generator's state at the end
    summary: dict[str, Any]
    output: str
    config: TrainConfig

    @property
    def batch_size(self) -> int:
        return self.config.trainer.batch_size

    @property
    def last_batch(self) -> int:
        return IMAGES % self.batch_size

    @property
    def of_network(self) -> list[dict[str, Any]]:
        """The network's convolutions; augmentation smooths displacements with a single kernel."""
        return [one for one in self.convolutions if one["weight"][0] > 1]

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return -(-IMAGES // self.batch_size)

    def forbidden(self) -> list[str]:
        """Return what the run did in captures that they forbid."""
        return [record["name"] for record in self.records if record["kind"] == "forbidden"]

    def graph_launches(self) -> list[int]:
        """Return where among the records graphs are launched."""
        return [at for at, record in enumerate(self.records) if record["kind"] == "graph"]


@dataclass(frozen=True)
class Trainer:
    compose: Callable[..., TrainConfig]
    data_root: Path
    folder: Path

    def train(self, name: str, *overrides: str, script: Path = REPOSITORY / "train.py") -> Seen:
        """Train over the stand-in as a user would, in a folder of this name."""
        run, report = self.folder / name, self.folder / f"{name}.json"
        overrides = (
            *("trainer.gpus=1", f"trainer.epochs={EPOCHS}", f"data.limit={IMAGES}"),
            # The screen's refreshes wait for the device, and so does the thread that saves.
            *("trainer.refresh_seconds=1000", "trainer.save_every=0"),
            *overrides,
        )
        done = subprocess.run(
            [sys.executable, script, *overrides, f"hydra.run.dir={run}"],
            cwd=REPOSITORY,
            env=environment(
                MNIST_BENCH_DATA=str(self.data_root),
                CUDA_STAND_IN_REPORT=str(report),
                COLUMNS="200",
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout
        return Seen(
            **json.loads(report.read_text()),
            summary=read_summary(run),
            output=done.stdout,
            config=self.compose(*overrides),
        )


@pytest.fixture(scope="module")
def trainer(
    compose: Callable[..., TrainConfig], mnist_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trainer:
    return Trainer(compose, mnist_root, tmp_path_factory.mktemp("runs"))


@pytest.fixture(
    scope="module",
    params=[name if name == SMOKE else pytest.param(name, marks=opt_in) for name in RECIPES],
)
def seen(request: pytest.FixtureRequest, trainer: Trainer) -> Seen:
    return trainer.train(request.param, *RECIPES[request.param])


def test_every_step_is_the_launch_of_its_batch_sizes_graph(seen: Seen):
    launches = [seen.records[at]["name"] for at in seen.graph_launches()]
    assert len(launches) == EPOCHS * seen.steps
    full, last = launches[0], launches[seen.steps - 1]
    assert full != last
    assert launches == ([full] * (seen.steps - 1) + [last]) * EPOCHS
    of_graph = {str(one["capture"]): one["input"][0] for one in seen.of_network}
    assert (of_graph[full], of_graph[last]) == (seen.batch_size, seen.last_batch)


def test_nothing_captured_waits_copies_from_the_host_or_escapes(seen: Seen):
    assert seen.forbidden() == []


def test_few_launches_stand_between_the_graphs_of_an_epoch(seen: Seen):
    launches = seen.graph_launches()
    most = LAUNCHES_PER_STEP + (seen.config.trainer.ema_decay is not None)
    for start in range(0, len(launches), seen.steps):
        for before, launch in pairwise(launches[start : start + seen.steps]):
            between = seen.records[before + 1 : launch + 1]
            assert [record for record in between if record["kind"] == "wait"] == []
            launched = [record["name"] for record in between if record["kind"] in WORK]
            assert len(launched) <= most, launched


def test_convolutions_are_of_batches_that_training_and_evaluation_have(seen: Seen):
    training = {seen.batch_size, seen.last_batch}
    evaluation = {IMAGES}  # of validation and test, both in one batch
    forward = {one["input"][0] for one in seen.of_network if one["direction"] == "forward"}
    backward = {one["input"][0] for one in seen.of_network if one["direction"] != "forward"}
    assert forward == training | evaluation
    assert backward == training


def test_cudnn_tries_out_its_algorithms_for_the_full_batch_alone(seen: Seen):
    assert {one["input"][0] for one in seen.of_network if one["autotuned"]} == {seen.batch_size}


def test_the_summary_tells_the_warm_up_apart(seen: Seen):
    assert seen.summary["warm_up_seconds"] > 0


PLANTED = """
import runpy
import sys

import torch.nn.functional as F

loss = F.cross_entropy


def waits(*args, **kwargs):
    value = loss(*args, **kwargs)
    if value.requires_grad:
        value.item()
    return value


F.cross_entropy = waits
sys.path[0] = {root!r}
runpy.run_path({root!r} + "/train.py", run_name="__main__")
"""


@opt_in
def test_a_step_that_waits_falls_back_and_goes_on_with_the_same_random_numbers(
    trainer: Trainer, tmp_path: Path
):
    script = tmp_path / "planted.py"
    script.write_text(PLANTED.format(root=str(REPOSITORY)))
    recipe = RECIPES["mnist_cnn"]  # with dropout
    planted = trainer.train("planted", *recipe, script=script)
    plain = trainer.train("plain", *recipe, "trainer.cuda_graphs=false")
    captured = trainer.train("captured", *recipe)
    once = trainer.train("once", *recipe, "trainer.epochs=1")
    assert planted.graph_launches() == plain.graph_launches() == []
    assert "cudaStreamSynchronize of a captured stream" in planted.forbidden()
    reason = "operation not permitted when stream is capturing"
    told = [line for line in planted.output.splitlines() if "without a CUDA graph" in line]
    assert len(told) == 1 and reason in told[0], planted.output
    assert planted.summary["status"] == "completed"
    assert planted.generator == plain.generator == captured.generator
    # Each epoch draws as many, and warming up none.
    assert plain.generator["offset"] == EPOCHS * once.generator["offset"] > 0


CAPTURES = """
import json

import stand_in
import torch

values = torch.ones(1000, device="cuda")
pinned = torch.ones(1000).pin_memory()
side, default = torch.cuda.Stream(), torch.cuda.default_stream()
side.wait_stream(default)


def joined():
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        values.add_(1)
    torch.cuda.current_stream().wait_stream(side)


def unjoined():
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        values.add_(1)


def waiting():
    values[0].item()


def waiting_for_others():
    torch.cuda.current_stream().wait_stream(side)


def copying():
    values.copy_(pinned, non_blocking=True)


def escaping():
    with torch.cuda.stream(default):
        values.add_(1)


found = {}
for work in (joined, unjoined, waiting, waiting_for_others, copying, escaping):
    stand_in.clear()
    graph, said = torch.cuda.CUDAGraph(), ""
    try:
        with torch.cuda.graph(graph):
            work()
    except RuntimeError as error:
        said = str(error.__context__ or error).splitlines()[0]
    torch.cuda.set_stream(default)  # PyTorch 2.11 leaves the capture's
    forbidden = [record.name for record in stand_in.records() if record.kind == "forbidden"]
    found[work.__name__] = [said, forbidden]
print(json.dumps(found))
"""


@opt_in
def test_the_stand_in_refuses_what_cuda_refuses_and_notes_what_it_lets_pass(tmp_path: Path):
    script = tmp_path / "captures.py"
    script.write_text(CAPTURES)
    done = subprocess.run(
        [sys.executable, script], env=environment(), capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["joined"] == ["", []]
    assert found["unjoined"] == [
        "CUDA error: capturing stream has unjoined work",
        ["unjoined: 1 nodes"],
    ]
    refused, _ = found["waiting"]
    assert refused == "CUDA error: operation not permitted when stream is capturing"
    refused, _ = found["waiting_for_others"]
    assert refused == "CUDA error: dependency created on uncaptured work in another stream"
    assert found["copying"] == ["", ["a copy, pinned host to device, 4000 bytes"]]
    said, (escape,) = found["escaping"]
    assert said == "" and escape.startswith("escapes, on stream 0: ")
