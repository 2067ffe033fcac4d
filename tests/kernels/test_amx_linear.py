"""AMX's dense layer against products in float64, on the unit and on an emulation of it."""

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mnist_bench.data.images import Images
from mnist_bench.kernels import amx_linear as amx_linear_module
from mnist_bench.kernels.amx_linear import MAX_IMAGES, amx_linear, amx_linear_serves
from mnist_bench.kernels.layers import Linear
from tests.support.kernels import BF16_ERROR, compute_by, relative_error

# Images, inputs and outputs: of the published networks, more of each than are computed at once, and
# fewer inputs than there are threads for.
SHAPES = [(128, 1024, 128), (33, 2144, 96), (5, 96, 544), (1, 32, 32), (16, 64, 32), (300, 608, 64)]


@pytest.fixture(params=["the unit", "an emulation"])
def unit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has `amx_linear` computed by this."""
    compute_by(request.param, amx_linear_module, monkeypatch)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets how many, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def in_bf16(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """PyTorch's, under autocast."""
    with torch.autocast("cpu", torch.bfloat16):
        return F.linear(x, weight, bias)


def with_gradients(
    layer: Callable[..., Tensor], sources: Sequence[Tensor], grad: Tensor
) -> list[Tensor]:
    """Output and gradients of input, weights and bias."""
    leaves = [t.detach().clone().requires_grad_() for t in sources]
    output = layer(*leaves)
    return [output.detach(), *torch.autograd.grad(output, leaves, grad.to(output.dtype))]


def random_layer(images: int, inputs: int, outputs: int) -> tuple[list[Tensor], Tensor]:
    """Input, weights and bias, and a gradient of the output."""
    torch.manual_seed(0)
    weight = torch.randn(outputs, inputs) / inputs**0.5
    sources = [torch.randn(images, inputs).bfloat16(), weight, torch.randn(outputs)]
    return sources, torch.randn(images, outputs).bfloat16()


@pytest.mark.usefixtures("unit")
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_product(
    shape: tuple[int, int, int], count: int, threads: Callable[[int], None]
) -> None:
    threads(count)
    sources, grad = random_layer(*shape)
    ours, theirs = (with_gradients(layer, sources, grad) for layer in (amx_linear, in_bf16))
    exact = with_gradients(F.linear, [t.double() for t in sources], grad)
    assert [t.dtype for t in ours] == [torch.bfloat16] * 2 + [torch.float32] * 2
    tolerances = BF16_ERROR, BF16_ERROR, 1e-6, 1e-6
    for found, other, expected, tolerance in zip(ours, theirs, exact, tolerances, strict=True):
        assert found.shape == expected.shape
        assert relative_error(found, expected) < tolerance
        assert relative_error(found, expected) <= 1.01 * relative_error(other, expected)


@pytest.mark.usefixtures("unit")
def test_weights_are_rounded_as_pytorch_rounds() -> None:
    """The rest is exact here: small integers, and one weight for each output and input."""
    torch.manual_seed(0)
    weight = torch.zeros(64, 64)
    weight[torch.arange(64), torch.randperm(64)] = torch.randn(64)
    sources = torch.randint(-4, 5, (40, 64)).bfloat16(), weight, torch.zeros(64)
    grad = torch.randint(-4, 5, (40, 64)).bfloat16()
    ours, theirs = (with_gradients(layer, sources, grad) for layer in (amx_linear, in_bf16))
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
    assert torch.equal(ours[2], grad.float().t() @ sources[0].float())


@pytest.mark.usefixtures("unit")
def test_layouts_of_memory_make_no_difference() -> None:
    (x, weight, bias), grad = random_layer(48, 64, 96)
    expected = with_gradients(amx_linear, [x, weight, bias], grad)
    turned = [x.t().contiguous().t(), weight.t().contiguous().t(), bias]
    leaves = [t.requires_grad_() for t in turned]
    output = amx_linear(*leaves)
    found = [output, *torch.autograd.grad(output, leaves, grad.t().contiguous().t())]
    assert all(map(torch.equal, found, expected))


@pytest.mark.usefixtures("unit")
def test_it_is_the_product_of_real_images(images: Images) -> None:
    torch.manual_seed(0)
    x = (images.test_images[:100, 2:-2, 2:-2].flatten(1) / 255).bfloat16()
    sources = x, torch.randn(64, 576) / 24, torch.randn(64)
    grad = torch.randn(100, 64).bfloat16()
    found = with_gradients(amx_linear, sources, grad)
    exact = with_gradients(F.linear, [t.double() for t in sources], grad)
    assert relative_error(found[0], exact[0]) < BF16_ERROR
    assert relative_error(found[2], exact[2]) < 1e-6
    assert not found[2][:, (x == 0).all(0)].any()  # where no image has ink


@pytest.mark.usefixtures("unit")
def test_images_need_no_gradient_and_evaluations_none_at_all() -> None:
    sources, grad = random_layer(8, 64, 32)
    expected = with_gradients(amx_linear, sources, grad)
    x, weight, bias = sources
    (found,) = torch.autograd.grad(amx_linear(x, weight.requires_grad_(), bias), weight, grad)
    assert torch.equal(found, expected[2])
    with torch.inference_mode():
        assert torch.equal(amx_linear(x, weight, bias), expected[0])


@pytest.mark.usefixtures("unit")
def test_what_is_no_number_stays_none_and_spreads_no_further() -> None:
    sources, grad = random_layer(40, 64, 32)
    sources[0][3, 5] = torch.nan
    output, grad_x, grad_weight, _ = with_gradients(amx_linear, sources, grad)
    assert output[3].isnan().all() and output.isnan().sum() == 32
    assert grad_weight[:, 5].isnan().all() and grad_weight.isnan().sum() == 32
    assert not grad_x.isnan().any()


@pytest.mark.usefixtures("unit")
def test_it_serves_only_what_it_computes() -> None:
    x, weight = torch.rand(4, 64), torch.rand(32, 64)
    assert amx_linear_serves(x, weight)
    assert not amx_linear_serves(torch.rand(MAX_IMAGES + 1, 64), weight)
    assert not amx_linear_serves(x[None], weight)
    assert not amx_linear_serves(x, weight.bfloat16())
    assert not amx_linear_serves(x, torch.rand(10, 64))
    assert not amx_linear_serves(x[:, :48], weight[:, :48])


@pytest.mark.usefixtures("unit")
def test_a_dense_layer_uses_it_in_bf16_alone() -> None:
    sources, _ = random_layer(8, 64, 32)
    layer = Linear(64, 32)
    x = sources[0].float()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), amx_linear(sources[0], layer.weight, layer.bias))
    expected = F.linear(*(t.double() for t in (x, layer.weight, layer.bias)))
    assert relative_error(layer(x), expected) < 1e-6
