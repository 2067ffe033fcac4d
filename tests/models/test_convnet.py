"""The nine networks: layers, sizes, what they compute, and what is refused."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mnist_bench.config.schema import TrainConfig
from mnist_bench.data.images import Images
from mnist_bench.models import ConvNet, count_parameters, summarise
from tests.support.convnets import MNIST, build, notation

Compose = Callable[..., TrainConfig]

# Name: layers as published (C filters k kernel, P pool, D dropout, F dense units, BN batch norm),
# trainable parameters, running statistics of batch norm.
PUBLISHED = {
    "vgg16": (
        "C64k3 C64k3 P2 C128k3 C128k3 P2 C256k3 C256k3 C256k3 P2 C512k3 C512k3 C512k3 P2 "
        "C512k3 C512k3 C512k3 F256 D.5 F256 D.5 F10",
        14_913_226,
        0,
    ),
    "conv3_dense7744": ("C32k3 C64k3 C64k3 P2 F7744 F128 F10", 61_025_674, 0),
    "mnist_cnn": ("C32k3 C64k3 P2 D.25 F128 D.5 F10", 1_199_882, 0),
    "cnn3x3": ("C32k3 C64k3 P2 D.25 F128 D.5 F10", 1_199_882, 0),
    "cnn5x5": ("C32k5 C64k5 P2 D.25 F128 D.5 F10", 872_714, 0),
    "cnn5x5_single": ("C32k5 P2 D.25 F128 D.5 F10", 592_074, 0),
    "wide3x3": ("C64k3 C128k3 P2 D.5 F128 D.5 F10", 2_435_210, 0),
    "wide3x5_bn": ("C64k3 C128k5 P2 D.5 F256 BN D.5 F10", 4_173_834, 512),
    "wide5x7_bn": ("C64k5 C128k7 P2 D.5 F256 BN D.5 F128 BN D.5 F10", 3_092_618, 768),
}

# (name, output shape without the batch, parameters), by hand.
SUMMARIES = {
    "mnist_cnn": [
        ("conv1", (32, 26, 26), 320),
        ("conv2", (64, 24, 24), 18_496),
        ("pool2", (64, 12, 12), 0),
        ("dropout0", (9216,), 0),
        ("dense1", (128,), 1_179_776),
        ("dropout1", (128,), 0),
        ("output", (10,), 1_290),
    ],
    "cnn5x5_single": [
        ("conv1", (32, 24, 24), 832),
        ("pool1", (32, 12, 12), 0),
        ("dropout0", (4608,), 0),
        ("dense1", (128,), 589_952),
        ("dropout1", (128,), 0),
        ("output", (10,), 1_290),
    ],
    "wide5x7_bn": [
        ("conv1", (64, 24, 24), 1_664),
        ("conv2", (128, 18, 18), 401_536),
        ("pool2", (128, 9, 9), 0),
        ("dropout0", (10_368,), 0),
        ("dense1", (256,), 2_654_464),
        ("batch_norm1", (256,), 1_024),
        ("dropout1", (256,), 0),
        ("dense2", (128,), 32_896),
        ("batch_norm2", (128,), 512),
        ("dropout2", (128,), 0),
        ("output", (10,), 1_290),
    ],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_layers_and_parameters_are_the_published_ones(compose: Compose, name: str) -> None:
    layers, trainable, running = PUBLISHED[name]
    network = build(compose(f"model={name}"), device="meta")
    assert " ".join(notation(network)) == layers
    assert count_parameters(network) == trainable + running
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == trainable


@pytest.mark.parametrize("name", SUMMARIES)
def test_summary_shows_each_layers_shape_and_parameters(compose: Compose, name: str) -> None:
    rows = summarise(build(compose(f"model={name}"), device="meta"), MNIST)
    assert [(row.name, row.output_shape, row.parameters) for row in rows] == SUMMARIES[name]


def test_vgg16_pools_four_times_down_to_one_pixel(compose: Compose) -> None:
    rows = summarise(build(compose("model=vgg16"), device="meta"), MNIST)
    sides = [(row.name, row.output_shape[1]) for row in rows if len(row.output_shape) == 3]
    expected = [28] * 2 + [14] * 3 + [7] * 4 + [3] * 4 + [1] * 4
    assert [side for _, side in sides] == expected
    assert [name for name, _ in sides if name.startswith("pool")] == [
        "pool2",
        "pool4",
        "pool7",
        "pool10",
    ]


def test_summary_leaves_the_network_as_it_was(compose: Compose) -> None:
    network = build(compose("model=wide5x7_bn", "model.channels=[1,1]", "model.dense=[4,4]"))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    summarise(network, MNIST)
    assert network.training and network.classifier.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


# --- What they compute ------------------------------------------------------------------------


def reference_logits(layers: str, network: ConvNet, pixels: np.ndarray, same: bool) -> np.ndarray:
    """A forward pass in NumPy float64: sums over windows, as Keras defines the layers.

    `C4k3s2` is a convolution whose kernels move by two pixels.
    """
    weighted = iter(
        [m for m in network.modules() if isinstance(getattr(m, "weight", None), nn.Parameter)]
    )
    x, layers_left = pixels.astype(np.float64), layers.split()
    for i, layer in enumerate(layers_left):
        if layer.startswith("D"):
            continue
        if layer == "P2":
            side = x.shape[2] // 2 * 2
            x = np.maximum(x[:, :, 0:side:2], x[:, :, 1:side:2])
            x = np.maximum(x[..., 0:side:2], x[..., 1:side:2])
            continue
        values = {k: v.numpy().astype(np.float64) for k, v in next(weighted).state_dict().items()}
        weight, bias = values["weight"], values["bias"]
        if layer == "BN":
            x = (x - values["running_mean"]) / np.sqrt(values["running_var"] + 1e-3)
            x = x * weight + bias
        elif layer.startswith("C"):
            k = weight.shape[-1]
            if same:
                before = (k - 1) // 2
                x = np.pad(x, [(0, 0), (0, 0), (before, k - 1 - before), (before, k - 1 - before)])
            step = int(layer.partition("s")[2] or 1)
            side = (x.shape[2] - k) // step + 1
            span = (side - 1) * step + 1
            total = np.zeros((len(x), len(weight), side, side)) + bias[:, None, None]
            for row in range(k):
                for column in range(k):
                    shifted = x[:, :, row : row + span : step, column : column + span : step]
                    total += np.einsum(
                        "nchw,oc->nohw", shifted, weight[:, :, row, column], optimize=True
                    )
            x = np.maximum(total, 0)
        else:
            if x.ndim == 4:  # Keras flattens with the channels last
                x = x.transpose(0, 2, 3, 1)
            x = x.reshape(len(x), -1) @ weight.T + bias
            if i < len(layers_left) - 1:
                x = np.maximum(x, 0)
    return x


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    ("overrides", "layers"),
    [
        ("model=mnist_cnn", "C32k3 C64k3 P2 D.25 F128 D.5 F10"),
        (
            "model=cnn5x5_single model.channels=[3] model.dense=[7,5] model.dropout=0.5",
            "C3k5 P2 F7 F5 F10",
        ),
        (
            "model=mnist_cnn model.padding=same model.kernel_size=[3,4] model.pool_after=[1,2] "
            "model.channels=[3,4] model.dense=[9]",
            "C3k3 P2 C4k4 P2 F9 F10",
        ),
        (
            "model=wide5x7_bn model.channels=[4,6] model.kernel_size=[4,7] model.dense=[8,6]",
            "C4k4 C6k7 P2 F8 BN F6 BN F10",
        ),
        ("model=mnist_cnn model.channels=[] model.pool_after=[] model.dense=[6]", "F6 F10"),
        (
            "model=mnist_cnn model.channels=[4,5] model.kernel_size=[6,3] model.stride=[2,3] "
            "model.pool_after=[] model.dense=[6]",
            "C4k6s2 C5k3s3 F6 F10",
        ),
    ],
)
def test_logits_equal_a_forward_pass_in_numpy(
    compose: Compose, images: Images, overrides: str, layers: str
) -> None:
    config = compose(*overrides.split())
    torch.manual_seed(0)
    network = build(config).eval()
    for layer in network.modules():  # what training would have moved away from 0 and 1
        if getattr(layer, "bias", None) is not None:
            nn.init.normal_(layer.bias, std=0.1)
        if isinstance(layer, nn.BatchNorm1d):
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.001, 2)
    pixels = images.test_images[:6].unsqueeze(1).float() / 255
    with torch.inference_mode():
        logits = network(pixels).numpy()
    expected = reference_logits(
        layers, network, pixels.numpy(), config.model.padding.name == "same"
    )
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("classes", [10, 47])
def test_one_logit_for_each_class(compose: Compose, images: Images, classes: int) -> None:
    network = build(compose("model=cnn5x5_single"), classes)
    assert network(images.test_images[:3].unsqueeze(1).float()).shape == (3, classes)


@pytest.mark.parametrize("name", PUBLISHED)
def test_layers_are_pytorchs_in_the_published_order(compose: Compose, name: str) -> None:
    network = build(compose(f"model={name}"), device="meta")
    own = [type(layer) for layer in network.modules() if layer is not network]
    assert all(kind.__module__.startswith("torch.nn.") for kind in own)
    kinds = " ".join(kind.__name__ for kind in own)
    assert "MaxPool2d ReLU" not in kinds and kinds.count("Conv2d ReLU") == kinds.count("Conv2d")


@pytest.mark.parametrize("shape", [(3, 32, 20), (1, 20, 33), (2, 28, 28)])
def test_images_may_have_any_shape_and_channels(
    compose: Compose, shape: tuple[int, int, int]
) -> None:
    """Against the operations, one by one; features go rows, columns, channels."""
    torch.manual_seed(0)
    overrides = [
        "model.channels=[4,6]",
        "model.kernel_size=[3,5]",
        "model.crop=1",
        "model.dense=[]",
    ]
    config = compose("model=mnist_cnn", *overrides, "model.dropout=0")
    network = build(config, image_shape=shape).double()
    x = torch.rand(2, *shape, dtype=torch.float64)
    maps = x[:, :, 1:-1, 1:-1]
    for layer in (network.features.conv1, network.features.conv2):
        maps = F.conv2d(maps, layer.weight, layer.bias).relu()
    maps = F.max_pool2d(maps, 2)
    rows, columns = ((side - 8) // 2 for side in shape[1:])
    assert maps.shape == (2, 6, rows, columns)
    weight = network.classifier.output.weight.unflatten(1, (rows, columns, 6))
    expected = torch.einsum("nchw,khwc->nk", maps, weight)
    torch.testing.assert_close(network(x), expected)
    last = summarise(network, shape)[-2]
    assert (last.name, last.output_shape) == ("pool2", (6, rows, columns))


# --- Batch normalisation and dropout ----------------------------------------------------------


def test_batch_norm_keeps_99_percent_of_its_statistics(compose: Compose, images: Images) -> None:
    network = build(compose("model=wide3x5_bn", "model.channels=[2,2]")).train()
    seen: list[torch.Tensor] = []
    norm = network.get_submodule("classifier.batch_norm1")
    norm.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0].detach()))
    network(images.train_images[:128].unsqueeze(1).float() / 255)
    batch = seen[0].double().numpy()
    assert batch.min() == 0  # it comes after the ReLU
    np.testing.assert_allclose(norm.running_mean, 0.01 * batch.mean(0), rtol=1e-5, atol=1e-9)
    # Keras takes the biased variance, PyTorch the unbiased one: 128/127 of 1 % apart.
    expected = 0.99 + 0.01 * batch.var(0)
    np.testing.assert_allclose(norm.running_var, expected, atol=1e-4 * batch.var(0).max())


@pytest.mark.parametrize(("name", "rate"), [("dropout0", 0.25), ("dropout1", 0.5)])
def test_dropout_zeroes_its_rate_and_scales_the_rest(
    compose: Compose, name: str, rate: float
) -> None:
    torch.manual_seed(0)
    layer = build(compose("model=cnn5x5_single")).get_submodule(f"classifier.{name}")
    ones = torch.ones(100, 2000)
    dropped = layer.train()(ones.clone())
    assert (dropped == 0).double().mean().item() == pytest.approx(rate, abs=0.01)
    assert dropped[dropped != 0].unique().numpy() == pytest.approx([1 / (1 - rate)], rel=0.01)
    assert torch.equal(layer.eval()(ones.clone()), ones)
