"""Which kernels a training asks PyTorch for, and when it is worth compiling."""

import math
from collections.abc import Callable, Iterator

import pytest
import torch

from benchmarks.step import MODELS
from mnist_bench.config.schema import Precision, TrainConfig
from mnist_bench.models import ConvNet
from mnist_bench.training.device import Placement, set_up_torch
from mnist_bench.training.learner import COMPILE_SECONDS, compiles

Compose = Callable[..., TrainConfig]
CUDA = Placement(torch.device("cuda", 0), Precision.bf16)  # not touched
CPU = Placement(torch.device("cpu"), Precision.fp32)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    set_up_torch(0, Precision.fp32, deterministic=False)


@pytest.mark.parametrize("precision", Precision)
def test_products_are_rounded_to_tf32_only_where_that_is_asked_for(precision: Precision) -> None:
    for before in (Precision.tf32, Precision.fp32):
        set_up_torch(0, before, deterministic=False)
        set_up_torch(0, precision, deterministic=False)
        allowed = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        assert allowed == (precision is Precision.tf32,) * 2


def test_deterministic_kernels_do_not_fill_what_they_overwrite() -> None:
    set_up_torch(0, Precision.fp32, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("fp32", None), ("tf32", None), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_autocast_has_the_type_of_the_precision(precision: str, dtype: torch.dtype | None) -> None:
    with Placement(torch.device("cpu"), Precision[precision]).autocast():
        assert torch.is_autocast_enabled("cpu") == (dtype is not None)
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype is (dtype or torch.float32)


def build(config: TrainConfig) -> ConvNet:
    with torch.device("meta"):
        return ConvNet(config.model)


SHAPE = (1, 28, 28)
# Published epochs times published training images.
IMAGES = {
    **dict.fromkeys(("mnist_cnn", "wide3x3", "wide3x5_bn", "wide5x7_bn"), 12 * 60_000),
    **dict.fromkeys(("cnn3x3", "cnn5x5", "cnn5x5_single"), 20 * 55_000),
    "conv3_dense7744": 5 * 60_000,
    "vgg16": 50 * 45_000,
}


@pytest.mark.parametrize("name", MODELS)
def test_of_the_published_trainings_vgg16_is_long_enough_to_be_compiled(
    compose: Compose, name: str
) -> None:
    config = compose(f"experiment={name}")
    network = build(config)
    assert compiles(config.trainer, CUDA, network, IMAGES[name], SHAPE) == (name == "vgg16")
    assert not compiles(config.trainer, CPU, network, IMAGES[name], SHAPE)


def test_compiling_is_chosen_by_what_a_network_computes(compose: Compose) -> None:
    """One convolution of 2 kernels, no pooling, 4 units: 2 · 26² + 4 + 10 values an image."""
    settings = ["model=cnn3x3", "model.channels=[2]", "model.pool_after=[]", "model.dense=[4]"]
    config = compose(*settings, "model.dropout=0")
    enough = COMPILE_SECONDS / 1.5e-11 / (2 * 26**2 + 4 + 10)
    network = build(config)
    assert not compiles(config.trainer, CUDA, network, math.floor(enough), SHAPE)
    assert compiles(config.trainer, CUDA, network, math.floor(enough) + 1, SHAPE)


@pytest.mark.parametrize("wanted", [True, False])
def test_compiling_can_be_asked_for_or_forbidden(compose: Compose, wanted: bool) -> None:
    config = compose("experiment=vgg16", f"trainer.compile={wanted}")
    for placement in (CPU, CUDA):
        assert compiles(config.trainer, placement, build(config), 10**9, SHAPE) == wanted
