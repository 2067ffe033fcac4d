"""The pass over a built network: what it leaves alone, and that the function stays the same."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mnist_bench.config.schema import TrainConfig
from mnist_bench.data.images import Images
from mnist_bench.kernels import accelerate, build, describe, layers, resolve, why_portable
from mnist_bench.kernels.dropout import Dropout
from mnist_bench.models import build_network
from tests.support.kernels import Calls, relative_error
from tests.support.plain_networks import PUBLISHED, Residual, by_hand

Compose = Callable[..., TrainConfig]
CPU = torch.device("cpu")
# Without what enlarges rounding: the statistics of four images.
SMOOTH = ["model.dropout=0", "model.batch_norm=false"]
PRECISIONS = pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])


@pytest.fixture(params=["auto", "portable"])
def kernels(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def pixels(images: Images) -> Tensor:
    return images.test_images[:4, None].float() / 255


@pytest.fixture
def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor with AVX-512, and nothing to compile for it."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(build, "compiler", lambda: None)


def channels_last(network: nn.Module) -> nn.Module:
    return network.to(memory_format=torch.channels_last)


def results(network: nn.Module, pixels: Tensor, precision: torch.dtype) -> list[Tensor]:
    """The logits, and the gradients of all weights, in training; masks from one seed."""
    network.train()
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
        logits = network(pixels)
    loss = logits.float().square().sum()
    return [logits.detach(), *torch.autograd.grad(loss, list(network.parameters()))]


# --- What is asked for ------------------------------------------------------------------------


@PRECISIONS
@pytest.mark.parametrize("name", PUBLISHED)
def test_off_is_pytorch_alone(
    compose: Compose, pixels: Tensor, name: str, precision: torch.dtype
) -> None:
    """To the last bit, the layers that anyone would write in a row."""
    torch.manual_seed(0)
    network = build_network(compose(f"model={name}").model)
    plain = by_hand(name)
    for weight, ours in zip(plain.parameters(), network.parameters(), strict=True):
        weight.data = ours.data
    accelerate(network, CPU, "off")
    assert all(type(layer).__module__.startswith("torch.nn") for layer in network.features)
    found = results(channels_last(network), pixels, precision)
    expected = results(channels_last(plain), pixels, precision)
    assert all(map(torch.equal, found, expected))


@PRECISIONS
@pytest.mark.parametrize("name", ["cnn5x5", "wide5x7_bn"])
def test_without_a_compiler_auto_is_portable(
    compose: Compose,
    pixels: Tensor,
    without_compiler: None,
    name: str,
    precision: torch.dtype,
) -> None:
    network = channels_last(build_network(compose(f"model={name}").model))
    found = [
        results(accelerate(copy.deepcopy(network), CPU, kernels), pixels, precision)
        for kernels in ("auto", "portable")
    ]
    assert all(map(torch.equal, *found))


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, without_compiler: None) -> None:
    assert resolve("auto", CPU) == resolve("portable", CPU) == "portable"
    assert why_portable("auto", CPU) == "a C compiler"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert why_portable("auto", CPU) == "AVX-512"
    assert why_portable("portable", CPU) is None and describe("portable") == "portable"
    cuda = torch.device("cuda")
    assert resolve("auto", cuda) == "portable" and why_portable("auto", cuda) is None
    assert resolve("off", CPU) == resolve("off", cuda) == describe("off") == "off"


def test_portable_asks_for_nothing_in_c(
    compose: Compose, pixels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there would be some: `auto` asks."""
    asked = []
    monkeypatch.setattr(build, "missing", lambda: None)
    monkeypatch.setattr(build, "library", lambda *which, **_: asked.append(which))
    network = build_network(compose("model=mnist_cnn").model)
    results(accelerate(copy.deepcopy(network), CPU, "portable"), pixels, torch.float32)
    assert not asked
    results(accelerate(network, CPU, "auto"), pixels, torch.float32)
    assert {name for name, *_ in asked} >= {"pooling", "dropout"}


# --- What stays -------------------------------------------------------------------------------


def test_parameters_and_their_names_stay(compose: Compose, kernels: str) -> None:
    network = build_network(compose("model=wide3x5_bn").model)
    before = network.state_dict(keep_vars=True)
    assert accelerate(network, CPU, kernels) is network
    after = network.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    assert isinstance(network.features[0], layers.Conv2d)
    kinds = [type(layer).__name__ for layer in network.features]
    assert kinds == ["Conv2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d"], "the published order"


@PRECISIONS
@pytest.mark.parametrize("name", ["cnn5x5", "wide5x7_bn"])
def test_a_published_network_computes_what_it_did(
    compose: Compose, pixels: Tensor, kernels: str, name: str, precision: torch.dtype
) -> None:
    """From biases that are not zero, so that no ReLU can be tipped over a background of zeros."""
    torch.manual_seed(0)
    network = channels_last(build_network(compose(f"model={name}", *SMOOTH).model))
    for key, parameter in network.named_parameters():
        if key.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    expected = results(network, pixels, precision)
    found = results(accelerate(network, CPU, kernels), pixels, precision)
    exact = precision is torch.float32
    assert relative_error(found[0], expected[0].double()) < (1e-5 if exact else 0.1)
    assert relative_error(joined(found[1:]), joined(expected[1:])) < (1e-4 if exact else 0.1)


def joined(gradients: list[Tensor]) -> Tensor:
    return torch.cat([gradient.double().flatten() for gradient in gradients])


@pytest.mark.parametrize("training", [True, False])
def test_a_network_of_a_users_computes_what_it_did(
    pixels: Tensor, kernels: str, training: bool
) -> None:
    torch.manual_seed(0)
    network = Residual().train(training)
    plain = copy.deepcopy(network)
    accelerate(network, CPU, kernels)
    changed = {name for name, layer in network.named_modules() if type(layer) in OURS}
    assert changed == {
        *("stem", "stem.0", "large", "large.0", "large.2", "large.3", "twice", "head")
    }
    (logits, *gradients), (expected, *exact) = (
        [output := one(pixels), *torch.autograd.grad(output.square().sum(), [*one.parameters()])]
        for one in (network, plain)
    )
    assert relative_error(logits, expected.double()) < 1e-5
    assert relative_error(joined(gradients), joined(exact)) < 1e-4


OURS = (layers.Conv2d, layers.Linear, layers.MaxPool2d, Dropout, layers.Sequential)


@pytest.mark.parametrize(
    "layer",
    [
        type("Own", (nn.Conv2d,), {})(1, 2, 3),
        type("Own", (nn.Linear,), {})(2, 2),
        nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
        nn.LazyLinear(3),
        nn.Conv2d(1, 2, 3, padding=2),
        nn.Conv2d(1, 2, 3, stride=2, padding=1),
        nn.Conv2d(1, 2, 3, stride=(1, 2)),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(2, return_indices=True),
        nn.MaxPool2d(3, 2),
        nn.Dropout(0.5, inplace=True),
        nn.Dropout2d(0.5),
        nn.Sequential(nn.Linear(2, 2), nn.ReLU()),
    ],
)
def test_what_ours_do_not_compute_is_left_alone(layer: nn.Module) -> None:
    kind = type(layer)
    accelerate(nn.ModuleList([layer]), CPU)
    assert type(layer) is kind


def test_whoever_holds_a_layer_has_the_new_one(pixels: Tensor) -> None:
    """In a list that PyTorch does not know of, and with the hook that it had."""
    shared, seen = nn.Conv2d(1, 1, 3, padding=1), []
    network = nn.Sequential(shared, nn.ReLU(), shared)
    held = [shared]
    shared.register_forward_hook(lambda layer, *_: seen.append(type(layer)))
    expected = network(pixels)
    accelerate(network, CPU)
    assert held[0] is network[0] is network[2]
    torch.testing.assert_close(network(pixels), expected)
    assert seen == [nn.Conv2d] * 2 + [layers.Conv2d] * 2


def test_a_hook_for_all_modules_sees_every_layer(pixels: Tensor) -> None:
    network = accelerate(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2)), CPU)
    seen = []
    hook = nn.modules.module.register_module_forward_hook(lambda layer, *_: seen.append(layer))
    try:
        network(pixels)
    finally:
        hook.remove()
    assert seen == [*network, network]


def test_a_part_of_a_sequence_is_that_part(pixels: Tensor) -> None:
    network = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.ReLU())
    with torch.no_grad():
        expected = [network[:end](pixels) for end in range(1, 5)]
        accelerate(network, CPU)
        for end, theirs in enumerate(expected, start=1):
            torch.testing.assert_close(network[:end](pixels), theirs)


def test_a_relu_in_place_changes_what_it_is_given() -> None:
    network = accelerate(nn.Sequential(nn.ReLU(inplace=True), nn.MaxPool2d(2)), CPU)
    x = torch.randn(2, 16, 4, 4)
    expected = x.relu()
    network(x)
    assert torch.equal(x, expected)


def test_a_pooling_comes_before_its_relu_on_every_device() -> None:
    """Seen on `meta`, which goes the way of CUDA, by the size of what the pooling gets."""
    with torch.device("meta"):
        layers = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        network = accelerate(layers, torch.device("meta"))
        calls = Calls()
        with calls:
            network(torch.zeros(1, 4, 8, 8))
    wanted = [("max_pool2d_with_indices", (1, 4, 8, 8)), ("threshold", (1, 4, 4, 4))]
    assert [call for call in calls.made if call[0] in dict(wanted)] == wanted
    assert "relu" not in dict(calls.made)


@pytest.mark.parametrize("first", [[nn.Conv2d(1, 16, 3)], [nn.BatchNorm2d(1)], []])
@pytest.mark.parametrize("inplace", [False, True])
def test_what_a_sequence_returns_may_be_changed_in_place(
    kernels: str, first: list[nn.Module], inplace: bool, pixels: Tensor
) -> None:
    """As residual networks do, and as a pooling's output may be."""
    network = nn.Sequential(*copy.deepcopy(first), nn.ReLU(inplace), nn.MaxPool2d(2))
    expected, found = copy.deepcopy(network), accelerate(network, CPU, kernels)
    gradients = []
    for sequence in (expected, found):
        x = pixels.clone().requires_grad_()
        maps = sequence(x * 1)
        maps += 1
        maps.square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4)


def test_copies_and_compiled_networks_are_the_network(compose: Compose, pixels: Tensor) -> None:
    network = accelerate(build_network(compose("model=cnn5x5").model), CPU).eval()
    copied = copy.deepcopy(network)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        expected = network(pixels)
        assert torch.equal(copied(pixels), expected)
        torch.testing.assert_close(compiled(pixels), expected, rtol=1e-4, atol=1e-5)


# --- Unusual inputs ---------------------------------------------------------------------------

SHAPES = [
    (nn.Conv2d(1, 32, 3), (1, 28, 28)),
    (nn.Conv2d(32, 32, 3, padding=1), (32, 8, 8)),
    (nn.Conv2d(32, 64, 5), (32, 8, 8)),
    (nn.Conv2d(32, 32, 7), (32, 9, 9)),
    (nn.Conv2d(8, 8, 2, stride=2), (8, 8, 8)),
    (nn.Conv2d(8, 8, 3, padding=1), (8, 1, 1)),
    (nn.MaxPool2d(2), (16, 8, 8)),
    (nn.Dropout(0.5), (16, 8, 8)),
    (nn.Linear(32, 64), (32,)),
    (nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2)), (1, 28, 28)),
    (nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 7)), (1, 28, 28)),
]


@PRECISIONS
@pytest.mark.parametrize(("layer", "shape"), SHAPES)
def test_no_images_are_taken_as_pytorch_takes_them(
    kernels: str, layer: nn.Module, shape: tuple[int, ...], precision: torch.dtype
) -> None:
    layer = copy.deepcopy(layer)
    expected_shape = layer(torch.zeros(0, *shape)).shape
    accelerate(nn.ModuleList([layer]), CPU, kernels)
    x = torch.zeros(0, *shape, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
        output = layer(x)
    assert output.shape == expected_shape
    output.sum().backward()
    assert x.grad.shape == x.shape
    assert all(not parameter.grad.any() for parameter in layer.parameters())


@pytest.mark.parametrize(("layer", "shape"), [case for case in SHAPES if len(case[1]) == 3])
def test_one_image_alone_is_taken_as_pytorch_takes_it(
    kernels: str, layer: nn.Module, shape: tuple[int, ...]
) -> None:
    layer, x = copy.deepcopy(layer).eval(), torch.rand(shape)
    expected = layer(x)
    accelerate(nn.ModuleList([layer]), CPU, kernels)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(12, 9), (9, 12)])
@pytest.mark.parametrize(("inputs", "k"), [(1, 3), (32, 3), (32, 5), (32, 7), (8, 3)])
def test_maps_need_not_be_square(kernels: str, shape: tuple[int, int], inputs: int, k: int) -> None:
    layer, x = nn.Conv2d(inputs, 32, k), torch.rand(3, inputs, *shape)
    expected = nn.functional.conv2d(x.double(), layer.weight.double(), layer.bias.double())
    accelerate(nn.ModuleList([layer]), CPU, kernels)
    assert relative_error(layer(x), expected) < 1e-5


@pytest.mark.parametrize("k", [3, 5, 7])
def test_a_kernel_larger_than_the_map_is_refused_by_pytorch(kernels: str, k: int) -> None:
    network = nn.Sequential(nn.Conv2d(32, 32, k), nn.ReLU(), nn.MaxPool2d(2))
    accelerate(network, CPU, kernels)
    with pytest.raises(RuntimeError, match=r"[Kk]ernel size"):
        network(torch.rand(2, 32, k - 1, k - 1))
    with pytest.raises(RuntimeError, match="too small"):
        network(torch.rand(2, 32, k, k))


def test_a_layer_keeps_or_drops_everything_at_the_ends_of_its_rates(kernels: str) -> None:
    x = torch.rand(100)
    for rate, expected in [(0.0, x), (1.0, torch.zeros(100))]:
        layer = nn.Dropout(rate)
        accelerate(nn.ModuleList([layer]), CPU, kernels)
        assert torch.equal(layer(x), expected)


# --- Gradients of gradients -------------------------------------------------------------------


@PRECISIONS
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(1, 32, 3), (1, 28, 28)),
        (nn.Conv2d(32, 32, 3), (32, 8, 8)),
        (nn.Conv2d(32, 64, 5), (32, 12, 12)),
        (nn.Conv2d(32, 64, 7), (32, 12, 12)),
        (nn.MaxPool2d(2), (16, 8, 8)),
        (nn.Dropout(0.5), (16,)),
        (nn.Linear(32, 64), (32,)),
    ],
)
def test_a_second_derivative_is_right_or_refused(
    kernels: str, layer: nn.Module, shape: tuple[int, ...], precision: torch.dtype
) -> None:
    """Never silently nothing: where the gradient has no graph, its gradient says so."""
    layer = accelerate(nn.Sequential(copy.deepcopy(layer)), CPU, kernels)
    scale = torch.ones(shape, requires_grad=True)
    wanted = [*layer.parameters()] or [scale]
    x = torch.rand(2, *shape)
    x = x if wanted[0] is not scale else x * scale
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
        loss = layer(x).float().pow(3).sum()
    (grad, *_) = torch.autograd.grad(loss, wanted, create_graph=True)
    refusal = ""
    try:
        grad.square().sum().backward()
    except RuntimeError as error:
        refusal = str(error)
    assert "once_differentiable" in refusal or wanted[0].grad.any()
