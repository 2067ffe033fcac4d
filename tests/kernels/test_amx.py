"""AMX's convolution against direct sums in float64, on the unit and on an emulation of it."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from mnist_bench.data.images import Images
from mnist_bench.kernels import amx
from mnist_bench.kernels.amx import amx_conv2d, amx_serves
from mnist_bench.kernels.epilogue import Epilogue
from tests.support.kernels import (
    BF16_ERROR,
    EPILOGUES,
    compute_by,
    convolve,
    followed,
    relative_error,
)

# Images, channels in and out, rows and columns of the map, kernel, padding: of the published
# networks, maps that are computed in several portions, and sizes that are odd.
SHAPES = [
    (5, 32, 64, 26, 26, 3, 0),
    (17, 64, 64, 28, 28, 3, 1),
    (40, 128, 256, 7, 7, 3, 1),
    (33, 64, 96, 3, 3, 3, 1),
    (4, 32, 64, 24, 24, 5, 0),
    (2, 64, 32, 24, 23, 7, 0),
    (3, 96, 160, 5, 9, 3, 1),
    (20, 64, 32, 11, 6, 2, 0),
    (1, 32, 32, 5, 4, 1, 0),
    (16, 32, 32, 4, 4, 4, 0),
    (2, 32, 32, 61, 43, 3, 2),
]


@pytest.fixture(params=["the unit", "an emulation"])
def unit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has `amx_conv2d` computed by this."""
    compute_by(request.param, amx, monkeypatch)


@pytest.mark.usefixtures("unit")
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_direct_sum(shape: tuple[int, ...], threads: int) -> None:
    ours, theirs, exact = convolve(shape, torch.bfloat16, threads, amx_conv2d)
    assert [t.dtype for t in ours] == [torch.bfloat16] * 2 + [torch.float32] * 2
    tolerances = BF16_ERROR, BF16_ERROR, 1e-6, 1e-6
    for found, other, expected, tolerance in zip(ours, theirs, exact, tolerances, strict=True):
        assert found.shape == expected.shape
        assert relative_error(found, expected) < tolerance
        assert relative_error(found, expected) < 1.01 * relative_error(other, expected)


@pytest.mark.usefixtures("unit")
def test_kernels_are_rounded_as_pytorch_rounds() -> None:
    """The rest is exact here: small integers, and a kernel of one tap for each output."""
    torch.manual_seed(0)
    x, weight = torch.randint(-4, 5, (3, 32, 6, 6)).bfloat16(), torch.zeros(32, 32, 3, 3)
    taps = torch.arange(32)
    weight[taps, torch.randperm(32), taps % 3, taps % 2] = torch.randn(32)
    output = amx_conv2d(x, weight, torch.zeros(32), 1)
    assert torch.equal(output, F.conv2d(x, weight.bfloat16(), padding=1))


@pytest.mark.usefixtures("unit")
@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("shape", [SHAPES[1], SHAPES[5], SHAPES[6], SHAPES[7], SHAPES[10]])
def test_what_follows_is_what_pytorch_makes_of_it(
    shape: tuple[int, ...], epilogue: Epilogue
) -> None:
    """To the bit, but for the gradient of a pooling: PyTorch pools what is rounded already."""
    torch.manual_seed(0)
    images, inputs, outputs, height, width, k, padding = shape
    x = (torch.randn(images, inputs, height, width) + 0.3).relu().bfloat16()
    x[:, :, : height // 2] = 0  # where all outputs are equal
    sources = x, torch.randn(outputs, inputs, k, k).bfloat16().float(), torch.randn(outputs)
    sources = tuple(t.requires_grad_() for t in sources)
    ours = amx_conv2d(*sources, padding, epilogue)
    theirs = followed(amx_conv2d(*sources, padding), epilogue)
    assert torch.equal(ours, theirs)
    grad = torch.randn(ours.shape).bfloat16()
    found = torch.autograd.grad(ours, sources, grad)
    if not epilogue.pool:
        assert all(map(torch.equal, found, torch.autograd.grad(theirs, sources, grad)))
    exact = [t.detach().double().requires_grad_() for t in sources]
    output = followed(F.conv2d(*exact, padding=padding), epilogue)
    for a, b in zip(found, torch.autograd.grad(output, exact, grad.double()), strict=True):
        assert relative_error(a, b) < (0.02 if epilogue.pool or epilogue.relu else BF16_ERROR)


@pytest.mark.usefixtures("unit")
def test_layouts_of_memory_make_no_difference() -> None:
    torch.manual_seed(0)
    x, weight, bias = (
        torch.rand(3, 32, 12, 12).bfloat16(),
        torch.randn(64, 32, 3, 3),
        torch.rand(64),
    )
    grad = torch.randn(3, 64, 10, 10).bfloat16()
    found = []
    for layout in itertools.product([torch.contiguous_format, torch.channels_last], repeat=3):
        tensors = [
            t.clone(memory_format=form) for t, form in zip((x, weight, grad), layout, strict=True)
        ]
        sources = [t.requires_grad_() for t in (*tensors[:2], bias.clone())]
        output = amx_conv2d(*sources, padding=0)
        found.append([output, *torch.autograd.grad(output, sources, tensors[2])])
    for results in found[1:]:
        assert all(map(torch.equal, results, found[0]))


@pytest.mark.usefixtures("unit")
def test_it_is_the_direct_sum_on_real_images(images: Images) -> None:
    """And exactly zero over their background, where the bias is."""
    torch.manual_seed(0)
    first = (
        F.conv2d(images.test_images[:64, None] / 255, torch.randn(64, 1, 3, 3)).relu().bfloat16()
    )
    weight = (torch.randn(64, 64, 3, 3) / 24).bfloat16().float().requires_grad_()
    output = amx_conv2d(first, weight, torch.zeros(64), 0)
    output.backward(first[:, :, 1:-1, 1:-1])
    exact = F.conv2d(first.double(), weight.double())
    assert relative_error(output, exact) < BF16_ERROR
    assert not output[exact == 0].any() and 0.1 < (exact == 0).double().mean() < 0.9
    (expected,) = torch.autograd.grad(exact, weight, first[:, :, 1:-1, 1:-1].double())
    assert relative_error(weight.grad, expected) < 2e-6


@pytest.mark.usefixtures("unit")
def test_images_need_no_gradient_and_evaluations_none_at_all() -> None:
    x, bias = torch.rand(2, 32, 8, 8).bfloat16(), torch.zeros(32)
    weight = torch.randn(32, 32, 3, 3).bfloat16().float().requires_grad_()
    amx_conv2d(x, weight, bias, 1).sum().backward()
    exact = weight.detach().double().requires_grad_()
    F.conv2d(x.double(), exact, padding=1).sum().backward()
    assert relative_error(weight.grad, exact.grad) < 1e-6
    with torch.inference_mode():
        output = amx_conv2d(x, weight, bias, 1)
    assert relative_error(output, F.conv2d(x.double(), exact, padding=1)) < BF16_ERROR


@pytest.mark.usefixtures("unit")
def test_what_is_no_number_stays_none_and_spreads_no_further() -> None:
    x = torch.rand(2, 32, 8, 8).bfloat16()
    x[0, 3, 4, 4] = torch.nan
    output = amx_conv2d(x, torch.rand(32, 32, 3, 3), torch.zeros(32), 1)
    assert output[0, :, 3:6, 3:6].isnan().all()
    assert output.isnan().sum() == 32 * 9


@pytest.mark.usefixtures("unit")
def test_it_serves_only_what_it_computes() -> None:
    assert amx_serves(32, 96)
    assert not any(itertools.starmap(amx_serves, [(1, 32), (32, 10), (48, 32)]))


def test_a_processor_without_the_unit_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    amx.allowed.cache_clear(), amx._library.cache_clear()
    assert not amx_serves(32, 32)
    amx.allowed.cache_clear(), amx._library.cache_clear()
