"""Which settings of a network fit its images and each other, and how the others are refused."""

from collections.abc import Callable

import pytest

from mnist_bench.config.schema import TrainConfig
from mnist_bench.errors import ConfigError
from mnist_bench.models import count_parameters, summarise
from tests.support.convnets import MNIST, build, notation

Compose = Callable[..., TrainConfig]


@pytest.mark.parametrize(
    ("overrides", "layers"),
    [
        ("model.kernel_size=5", "C32k5 C64k5 P2 D.25 F128 D.5 F10"),
        ("model.kernel_size=[5,3]", "C32k5 C64k3 P2 D.25 F128 D.5 F10"),
        ("model.dropout=0.4", "C32k3 C64k3 P2 D.4 F128 D.4 F10"),
        ("model.dropout=[0.1,0.2]", "C32k3 C64k3 P2 D.1 F128 D.2 F10"),
        ("model.dropout=0", "C32k3 C64k3 P2 F128 F10"),
        ("model.dropout=[0,0.5]", "C32k3 C64k3 P2 F128 D.5 F10"),
        ("model.dropout=0.3 model.dropout_on_features=false", "C32k3 C64k3 P2 F128 D.3 F10"),
        ("model.pool_after=[1,2] model.dense=[] model.dropout=0.3", "C32k3 P2 C64k3 P2 D.3 F10"),
        ("model.batch_norm=true", "C32k3 C64k3 P2 D.25 F128 BN D.5 F10"),
    ],
)
def test_a_setting_takes_one_number_or_a_list(
    compose: Compose, overrides: str, layers: str
) -> None:
    network = build(compose(*overrides.split()), device="meta")
    assert " ".join(notation(network)) == layers


def test_kernel_size_7_works_on_cnn3x3(compose: Compose) -> None:
    network = build(compose("model=cnn3x3", "model.kernel_size=7"), device="meta")
    features = 64 * 8 * 8
    convolutions = (49 + 1) * 32 + (32 * 49 + 1) * 64
    assert count_parameters(network) == convolutions + (features + 1) * 128 + 129 * 10


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("model=mnist_cnn model.kernel_size=29", ["kernel_size=29", "convolution 1", "28 x 28"]),
        ("model=cnn3x3 model.kernel_size=20", ["kernel_size=20", "convolution 2", "9 x 9"]),
        ("model.kernel_size=[20,10]", ["kernel_size=[20, 10]", "convolution 2", "9 x 9"]),
        ("model.kernel_size=[27,2]", ["kernel_size=[27, 2]", "convolution 2", "1 x 1"]),
        ("model.kernel_size=[3,3,3]", ["kernel_size=[3, 3, 3]", "3 values", "2 convolutions"]),
        ("model.dropout=[0.5]", ["dropout=[0.5]", "1 values", "2 dropout layers"]),
        ("model=vgg16 model.dropout=[0,0,0]", ["dropout=[0, 0, 0]", "2 dropout layers"]),
        ("model.pool_after=[1,3]", ["pool_after=[1, 3]", "convolution 3", "has 2"]),
        ("model.stride=[2]", ["stride=[2]", "1 values", "2 convolutions"]),
        ("model=vgg16 model.stride=2", ["stride=2", "model.padding=same"]),
    ],
)
def test_what_does_not_fit_is_refused_by_name_and_size(
    compose: Compose, overrides: str, said: list[str]
) -> None:
    config = compose(*overrides.split())
    with pytest.raises(ConfigError) as refusal:
        build(config, device="meta")
    for words in said:
        assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            "model.kernel_size=29",
            "model.kernel_size=29 does not fit: convolution 1 of mnist_cnn sees a 28 x 28 map, and "
            "its kernel can be at most that.",
        ),
        (
            "model.kernel_size=[14,15]",
            "model.kernel_size=[14, 15] leaves a 1 x 1 map after convolution 2 of mnist_cnn, too "
            "small to be pooled: choose smaller kernels, or fewer poolings with model.pool_after.",
        ),
        (
            "model.crop=14",
            "model.crop=14 leaves nothing of an image of 28 x 28: it can be at most 13.",
        ),
    ],
)
def test_a_refusal_of_mnist_is_this_sentence(
    compose: Compose, overrides: str, sentence: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        build(compose(overrides), device="meta")
    assert str(refusal.value) == sentence


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("model.kernel_size=21", "sees a 32 x 20 map, and its kernel can be at most 20."),
        ("model.kernel_size=[10,11]", "leaves a 13 x 1 map"),
        ("model.crop=10", "an image of 32 x 20: it can be at most 9."),
    ],
)
def test_a_refusal_names_the_size_of_the_images(
    compose: Compose, overrides: str, said: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        build(compose(overrides), device="meta", image_shape=(3, 32, 20))
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    "overrides",
    [
        "model.kernel_size=[20,8]",
        "model.kernel_size=[27,1]",
        "model=cnn5x5_single model.kernel_size=28 model.pool_after=[]",
        "model.kernel_size=29 model.padding=same",
    ],
)
def test_the_largest_kernels_that_fit_are_accepted(compose: Compose, overrides: str) -> None:
    rows = summarise(build(compose(*overrides.split()), device="meta"), MNIST)
    assert rows[-1].output_shape == (10,)
