"""The direct sum of images of one channel against PyTorch's, in float64 and step by step."""

import pytest
import torch
import torch.nn.functional as F
from test_layers import EPILOGUES, followed, relative_error
from torch import Tensor

from mnist_bench.data.images import Images
from mnist_bench.models import native
from mnist_bench.models.direct import direct_conv2d, direct_serves
from mnist_bench.models.epilogue import Epilogue

available = pytest.mark.skipif(native.compiler() is None, reason="needs AVX-512 and a C compiler")

# Kernels, size of a kernel, stride, padding: the published ones, that of the speed record, and
# others with even sizes, one pixel, all pixels, and pixels that a stride leaves over.
LAYERS = [
    (32, 3, 1, "valid"),
    (64, 5, 1, "valid"),
    (64, 3, 1, "same"),
    (32, 6, 2, "valid"),
    (32, 4, 1, "same"),
    (96, 1, 1, "valid"),
    (32, 3, 3, "valid"),
    (32, 28, 1, "valid"),
]


def parameters(outputs: int, k: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    weight, bias = torch.randn(outputs, 1, k, k) / k, torch.randn(outputs)
    return weight.requires_grad_(), bias.requires_grad_()


@available
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", native.ELEMENTS)
@pytest.mark.parametrize("layer", LAYERS)
def test_it_is_the_sum(
    images: Images, layer: tuple[int, int, int, str], dtype: torch.dtype, threads: int
) -> None:
    outputs, k, stride, padding = layer
    x = images.test_images[:7, None] / 255
    weight, bias = parameters(outputs, k)
    exact = [t.detach().double().requires_grad_() for t in (weight, bias)]
    expected = F.conv2d(x.double(), *exact, stride, padding)
    grad = torch.randn_like(expected).to(dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    assert direct_serves(x, weight, dtype, stride, padding)
    output = direct_conv2d(x, weight, bias, dtype, stride, padding)
    found = torch.autograd.grad(output, (weight, bias), grad)
    torch.set_num_threads(before)
    assert (output.shape, output.dtype) == (expected.shape, dtype)
    assert relative_error(output, expected) < (5e-7 if dtype is torch.float32 else 2e-3)
    for ours, theirs in zip(
        found, torch.autograd.grad(expected, exact, grad.double()), strict=True
    ):
        assert relative_error(ours, theirs) < 5e-7  # in any precision, as sums are in float32


@available
@pytest.mark.parametrize("size", [(28, 17), (9, 40), (5, 5)])
def test_maps_need_not_be_square(size: tuple[int, int]) -> None:
    x, (weight, bias) = torch.randn(3, 1, *size), parameters(32, 5)
    for padding in ("valid", "same"):
        output = direct_conv2d(x, weight, bias, torch.float32, 1, padding)
        expected = F.conv2d(x.double(), weight.double(), bias.double(), padding=padding)
        assert relative_error(output, expected) < 2e-7


@available
@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("dtype", native.ELEMENTS)
@pytest.mark.parametrize("size", [28, 27])
def test_what_follows_is_what_pytorch_makes_of_it(
    images: Images, size: int, dtype: torch.dtype, epilogue: Epilogue
) -> None:
    """To the bit, ties over the background included: of the sums, which are rounded last."""
    x = images.test_images[:9, None, :size, :size] / 255
    sources = parameters(64, 3)
    ours = direct_conv2d(x, *sources, dtype, 1, "valid", epilogue)
    sums = direct_conv2d(x, *sources, torch.float32, 1, "valid")
    theirs = followed(sums, epilogue).to(dtype)
    assert torch.equal(ours, theirs)
    grad = torch.randn(ours.shape).to(dtype)
    found, expected = (torch.autograd.grad(y, sources, grad) for y in (ours, theirs))
    assert all(map(torch.equal, found, expected))


@available
def test_what_is_no_number_stays_none() -> None:
    x, (weight, bias) = torch.rand(1, 1, 8, 8), parameters(32, 3)
    x[0, 0, 4, 4] = torch.nan
    for dtype in native.ELEMENTS:
        output = direct_conv2d(x, weight, bias, dtype, 1, "same", Epilogue(relu=True))
        assert output[0, :, 3:6, 3:6].isnan().all()
        assert not output[0, :, :3].isnan().any()
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
        return direct_serves(x, torch.rand(outputs, inputs, 3, 3), dtype, 1, "valid")

    assert serves(32) == (native.compiler() is not None)
    assert not serves(10) and not serves(48) and not serves(32, inputs=2)
    assert not serves(32, size=2) and not serves(32, grad=True)
    assert not serves(32, dtype=torch.float16)
