"""The direct sum of images of one channel against PyTorch's, in float64 and step by step."""

from collections.abc import Iterator
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mnist_bench.data.images import Images
from mnist_bench.kernels import amx, build, direct
from mnist_bench.kernels.direct import direct_conv2d, direct_serves
from mnist_bench.kernels.epilogue import Epilogue
from tests.support.kernels import EMULATION, EPILOGUES, followed, relative_error

available = pytest.mark.skipif(build.compiler() is None, reason="needs AVX-512 and a C compiler")

# Kernels, size of a kernel, stride, padding: the published ones, that of the speed record, and
# others with even sizes, one pixel, all pixels, pixels that a stride leaves over, and taps that
# fill whole tiles.
LAYERS = [
    (32, 3, 1, "valid"),
    (64, 5, 1, "valid"),
    (64, 3, 1, "same"),
    (32, 6, 2, "valid"),
    (32, 4, 1, "same"),
    (96, 1, 1, "valid"),
    (32, 3, 3, "valid"),
    (32, 28, 1, "valid"),
    (32, 8, 1, "valid"),
]


# In what images are computed, and by what.
WAYS = ["float32", "bfloat16", "bfloat16 by AMX", "bfloat16 by an emulation of AMX"]


@pytest.fixture(params=WAYS)
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.dtype]:
    """That of the maps of one of these ways, in which `direct_conv2d` now computes."""
    if build.compiler() is None:
        pytest.skip("needs AVX-512 and a C compiler")
    name, _, unit = request.param.partition(" by ")
    if unit == "AMX" and not amx.allowed():
        pytest.skip("needs AMX")
    monkeypatch.setattr(amx, "allowed", lambda: bool(unit))
    if unit == "an emulation of AMX":
        monkeypatch.setattr(build, "library", partial(emulated, build.library))
    direct._library.cache_clear()
    yield getattr(torch, name)
    direct._library.cache_clear()


def emulated(library, name: str, dtype: torch.dtype, constants: str, headers: tuple[str, ...] = ()):
    return library(name, dtype, EMULATION + constants, headers)


def parameters(outputs: int, k: int) -> tuple[Tensor, Tensor]:
    """Kernels are numbers of bfloat16."""
    torch.manual_seed(0)
    weight, bias = torch.randn(outputs, 1, k, k) / k, torch.randn(outputs)
    return weight.bfloat16().float().requires_grad_(), bias.requires_grad_()


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("layer", LAYERS)
def test_it_is_the_sum(
    images: Images, layer: tuple[int, int, int, str], dtype: torch.dtype, threads: int
) -> None:
    outputs, k, stride, padding = layer
    x = (images.test_images[:7, None] / 255).bfloat16().float()
    weight, bias = parameters(outputs, k)
    exact = [t.detach().double().requires_grad_() for t in (weight, bias)]
    expected = F.conv2d(x.double(), *exact, stride, padding)
    grad = torch.randn_like(expected).to(dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    assert direct_serves(x, outputs, k, dtype, stride, padding)
    output = direct_conv2d(x, weight, bias, dtype, stride, padding)
    found = torch.autograd.grad(output, (weight, bias), grad)
    torch.set_num_threads(before)
    assert (output.shape, output.dtype) == (expected.shape, dtype)
    assert relative_error(output, expected) < (5e-7 if dtype is torch.float32 else 2e-3)
    for ours, theirs in zip(
        found, torch.autograd.grad(expected, exact, grad.double()), strict=True
    ):
        assert relative_error(ours, theirs) < 5e-7  # in any precision, as sums are in float32


@pytest.mark.parametrize("size", [(28, 17), (9, 40), (5, 5), (6, 70)])
def test_maps_need_not_be_square(size: tuple[int, int], dtype: torch.dtype) -> None:
    x, sources = torch.randn(3, 1, *size).bfloat16().float(), parameters(32, 5)
    exact = [t.detach().double().requires_grad_() for t in sources]
    for padding in ("valid", "same"):
        output = direct_conv2d(x, *sources, dtype, 1, padding)
        expected = F.conv2d(x.double(), *exact, padding=padding)
        assert relative_error(output, expected) < (2e-7 if dtype is torch.float32 else 2e-3)
        grad = torch.randn(output.shape).to(dtype)
        for ours, theirs in zip(
            torch.autograd.grad(output, sources, grad),
            torch.autograd.grad(expected, exact, grad.double()),
            strict=True,
        ):
            assert relative_error(ours, theirs) < 5e-7


@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("size", [28, 27])
def test_what_follows_is_what_pytorch_makes_of_it(
    images: Images, size: int, dtype: torch.dtype, epilogue: Epilogue
) -> None:
    """To the bit, ties included: of small integers, whose sums are exact and rounded last."""
    torch.manual_seed(0)
    x = images.test_images[:9, None, :size, :size].float()
    sources = torch.randint(-3, 4, (64, 1, 3, 3)).float(), torch.randint(-50, 50, (64,)).float()
    for source in sources:
        source.requires_grad_()
    ours = direct_conv2d(x, *sources, dtype, 1, "valid", epilogue)
    theirs = followed(F.conv2d(x, *sources), epilogue).to(dtype)
    assert torch.equal(ours, theirs)
    assert theirs.unique().numel() > 100
    grad = torch.randint(-1, 2, ours.shape).to(dtype)
    found, expected = (torch.autograd.grad(y, sources, grad) for y in (ours, theirs))
    assert all(map(torch.equal, found, expected))


def test_amx_rounds_as_pytorch_does(images: Images, dtype: torch.dtype) -> None:
    """What it multiplies: here kernels of one tap, so that there is nothing to add."""
    torch.manual_seed(0)
    x, weight = images.test_images[:3, None] / 255, torch.zeros(32, 1, 5, 5)
    weight[torch.arange(32), 0, torch.arange(32) % 5, torch.arange(32) % 4] = torch.randn(32)
    output = direct_conv2d(x, weight, torch.zeros(32), dtype, 1, "valid")
    if amx.allowed() and dtype is torch.bfloat16:
        x, weight = x.bfloat16().float(), weight.bfloat16().float()
    assert torch.equal(output, F.conv2d(x, weight).to(dtype))


def test_what_is_no_number_stays_none(dtype: torch.dtype) -> None:
    x, (weight, bias) = torch.rand(1, 1, 8, 8), parameters(32, 3)
    x[0, 0, 4, 4] = torch.nan
    output = direct_conv2d(x, weight, bias, dtype, 1, "same", Epilogue(relu=True))
    assert output[0, :, 3:6, 3:6].isnan().all()
    assert not output[0, :, :3].isnan().any()
    (passed,) = torch.autograd.grad(output.sum(), bias)
    assert torch.equal(passed, (~(output <= 0)).sum((0, 2, 3)).float())  # as PyTorch's ReLU does
    pooled = direct_conv2d(x, weight, bias, dtype, 1, "same", Epilogue(pool=True, relu=True))
    assert pooled[0, :, 1:3, 1:3].isnan().all()


@available
def test_layouts_of_memory_make_no_difference() -> None:
    x, (weight, bias) = torch.rand(3, 2, 12, 12)[:, :1], parameters(32, 3)
    grad = torch.randn(3, 32, 10, 10)
    found = []
    for x_, form in [
        (x, torch.contiguous_format),
        (x.contiguous(), torch.channels_last),
        (x.mT.contiguous().mT, torch.contiguous_format),
    ]:
        sources = weight.detach().clone(memory_format=form).requires_grad_(), bias
        output = direct_conv2d(x_, *sources, torch.float32, 1, "valid")
        laid_out = grad.contiguous(memory_format=form)
        found.append([output, *torch.autograd.grad(output, sources, laid_out)])
        assert found[-1][1].stride() == sources[0].stride()
    for results in found[1:]:
        assert all(map(torch.equal, results, found[0]))


def test_it_serves_only_what_it_computes() -> None:
    def serves(outputs: int, inputs: int = 1, size: int = 28, dtype=torch.float32, grad=False):
        x = torch.rand(2, inputs, size, size, requires_grad=grad)
        return direct_serves(x, outputs, 3, dtype, 1, "valid")

    assert serves(32) == (build.compiler() is not None)
    assert not serves(10) and not serves(48) and not serves(32, inputs=2)
    assert not serves(32, size=2) and not serves(32, grad=True)
    assert not serves(32, dtype=torch.float16)
