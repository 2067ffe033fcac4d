"""Winograd's convolution against direct sums, in float64 and in the precisions of training."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mnist_bench.data.images import Images
from mnist_bench.kernels import build
from mnist_bench.kernels.epilogue import Epilogue
from mnist_bench.kernels.winograd import TILES, matrices, winograd_conv2d, winograd_serves
from tests.support.kernels import EPILOGUES, convolve, followed, relative_error

available = pytest.mark.skipif(
    not winograd_serves(32, 32, 3), reason="needs AVX-512 and a C compiler"
)

# Images, channels in and out, rows and columns of the map, kernel, padding: of the published
# networks, of both ways to share the work, and maps that no number of tiles fills.
SHAPES = [
    (5, 32, 64, 26, 26, 3, 0),
    (5, 64, 64, 28, 28, 3, 1),
    (3, 64, 128, 7, 7, 3, 1),
    (7, 128, 256, 7, 7, 3, 1),
    (130, 256, 512, 3, 3, 3, 1),
    (4, 32, 64, 24, 24, 5, 0),
    (2, 32, 128, 13, 13, 5, 2),
    (40, 32, 32, 3, 3, 3, 0),
    (3, 96, 160, 5, 9, 3, 1),
    (2, 64, 32, 11, 6, 5, 0),
]


def brute_force(tile: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    m, k = len(tile) - len(kernel) + 1, len(kernel)
    output = np.zeros((m, m))
    for i, j, a, b in itertools.product(range(m), range(m), range(k), range(k)):
        output[i, j] += tile[i + a, j + b] * kernel[a, b]
    return output


@pytest.mark.parametrize(
    ("k", "m", "points"),
    [
        (3, 2, (0, 1, -1)),
        *((k, tile.size, tile.points) for (k, _), tile in TILES.items()),
        (7, 3, (0, 1, -1, 2, -2, 1 / 2, -1 / 2, 3)),
    ],
)
def test_products_at_points_are_a_convolution(k: int, m: int, points: tuple[float, ...]) -> None:
    to_points = matrices(k, m, points)
    rng = np.random.default_rng(0)
    tile, kernel = rng.standard_normal((m + k - 1, m + k - 1)), rng.standard_normal((k, k))
    values = (to_points.input @ tile @ to_points.input.T) * (
        to_points.kernel @ kernel @ to_points.kernel.T
    )
    output = to_points.output.T @ values @ to_points.output
    np.testing.assert_allclose(output, brute_force(tile, kernel), atol=1e-11)


def test_the_smallest_matrices_are_those_of_lavin_and_gray() -> None:
    """F(2, 3) of their paper, equation 7, but for the sign of two rows, which cancel."""
    found = matrices(3, 2, (0, 1, -1))
    signs = np.array([[-1], [1], [1], [-1]])
    np.testing.assert_array_equal(
        found.input * signs, [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]
    )
    np.testing.assert_array_equal(found.output, [[1, 0], [1, 1], [1, -1], [0, 1]])
    np.testing.assert_array_equal(
        found.kernel * [[-1], [1], [1], [1]],
        [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]],
    )


@available
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_direct_sum_in_float32(shape: tuple[int, ...], threads: int) -> None:
    ours, _, exact = convolve(shape, torch.float32, threads)
    tolerance = 2e-6 if shape[5] == 3 else 4e-6
    for found, expected in zip(ours, exact, strict=True):
        assert found.dtype is torch.float32 and found.shape == expected.shape
        assert relative_error(found, expected) < tolerance


@available
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_nearer_to_the_exact_sum_than_pytorch_in_bfloat16(shape: tuple[int, ...]) -> None:
    """As its kernels and its sums are not rounded, only its input and output."""
    ours, direct, exact = convolve(shape, torch.bfloat16)
    assert [t.dtype for t in ours] == [torch.bfloat16] * 2 + [torch.float32] * 2
    for found, theirs, expected in zip(ours, direct, exact, strict=True):
        assert relative_error(found, expected) < 3e-3
        assert relative_error(found, expected) < relative_error(theirs, expected)


@available
@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("dtype", build.ELEMENTS)
@pytest.mark.parametrize("shape", [SHAPES[2], SHAPES[4], SHAPES[5], SHAPES[8]])
def test_what_follows_is_what_pytorch_makes_of_it(
    shape: tuple[int, ...], dtype: torch.dtype, epilogue: Epilogue
) -> None:
    """To the bit, but for a pooling in bfloat16: PyTorch pools what is rounded already.

    Some of these maps are odd, and some are computed by all threads together.
    """
    torch.manual_seed(0)
    images, inputs, outputs, height, width, k, padding = shape
    x = (torch.randn(images, inputs, height, width) + 0.3).relu().to(dtype)
    x[:, :, : height // 2] = 0  # where all outputs are equal
    sources = x.requires_grad_(), torch.randn(outputs, inputs, k, k), torch.randn(outputs)
    sources = tuple(t.requires_grad_() for t in sources)
    ours = winograd_conv2d(*sources, padding, epilogue)
    theirs = followed(winograd_conv2d(*sources, padding), epilogue)
    assert torch.equal(ours, theirs)
    grad = torch.randn(ours.shape).to(dtype)
    found = torch.autograd.grad(ours, sources, grad)
    if dtype is torch.float32 or not epilogue.pool:
        assert all(map(torch.equal, found, torch.autograd.grad(theirs, sources, grad)))
    else:
        exact = [t.detach().double().requires_grad_() for t in sources]
        output = followed(F.conv2d(*exact, padding=padding), epilogue)
        for a, b in zip(found, torch.autograd.grad(output, exact, grad.double()), strict=True):
            assert relative_error(a, b) < 0.06  # where two pixels of a window are nearly equal


@available
def test_layouts_of_memory_make_no_difference() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.rand(3, 32, 12, 12), torch.randn(64, 32, 3, 3), torch.randn(64)
    grad = torch.randn(3, 64, 10, 10)
    found = []
    for layout in itertools.product([torch.contiguous_format, torch.channels_last], repeat=3):
        tensors = [
            t.clone(memory_format=form) for t, form in zip((x, weight, grad), layout, strict=True)
        ]
        sources = [t.requires_grad_() for t in (*tensors[:2], bias.clone())]
        output = winograd_conv2d(*sources, padding=0)
        found.append([output, *torch.autograd.grad(output, sources, tensors[2])])
        assert found[-1][2].stride() == tensors[1].stride()
    for results in found[1:]:
        assert all(map(torch.equal, results, found[0]))


@available
def test_images_need_no_gradient_and_evaluations_none_at_all() -> None:
    x, bias = torch.rand(2, 32, 8, 8), torch.zeros(32)
    weight = torch.randn(32, 32, 3, 3).requires_grad_()
    winograd_conv2d(x, weight, bias, 1).sum().backward()
    exact = weight.detach().double().requires_grad_()
    F.conv2d(x.double(), exact, padding=1).sum().backward()
    assert relative_error(weight.grad, exact.grad) < 2e-6
    with torch.inference_mode():
        output = winograd_conv2d(x, weight, bias, 1)
    assert relative_error(output, F.conv2d(x, weight, padding=1).double()) < 2e-6


@available
@pytest.mark.parametrize("dtype", build.ELEMENTS)
@pytest.mark.parametrize(("k", "padding"), [(3, 0), (3, 1), (5, 0)])
def test_sums_of_zeros_are_zeros_on_real_images(
    images: Images, k: int, padding: int, dtype: torch.dtype
) -> None:
    """As they are for a direct sum: rounding noise over a background would tip the ReLU behind."""
    torch.manual_seed(0)
    first = F.conv2d(images.test_images[:64, None] / 255, torch.randn(64, 1, 3, 3)).relu().to(dtype)
    weight, bias = torch.randn(64, 64, k, k) / (64 * k * k) ** 0.5, torch.randn(64)
    output = winograd_conv2d(first, weight, torch.zeros(64), padding)
    exact = F.conv2d(first.double(), weight.double(), padding=padding)
    assert relative_error(output, exact) < (2e-6 if dtype is torch.float32 else 3e-3)
    background = F.conv2d(first.double(), torch.ones(64, 64, k, k).double(), padding=padding) == 0
    assert 0.1 < background.double().mean() < 0.9
    assert not output[background].any()
    with_bias = winograd_conv2d(first, weight, bias, padding)
    expected = bias.to(dtype)[:, None, None].expand_as(with_bias)
    assert torch.equal(with_bias[background], expected[background])


@available
def test_what_is_no_number_stays_none() -> None:
    x = torch.rand(1, 32, 8, 8)
    x[0, 3, 4, 4] = torch.nan
    for dtype in build.ELEMENTS:
        output = winograd_conv2d(x.to(dtype), torch.rand(32, 32, 3, 3), torch.zeros(32), 1)
        assert output[0, :, 3:6, 3:6].isnan().all()
        # Rounding the last of all NaNs up would make it a zero.
        bias = torch.full((32,), 0x7FFFFFFF, dtype=torch.int32).view(torch.float32)
        output = winograd_conv2d(x.to(dtype), torch.rand(32, 32, 3, 3), bias, 1)
        assert output.isnan().all()


def test_it_serves_only_what_it_computes() -> None:
    for channels, kernel_size in [((1, 32), 3), ((32, 10), 3), ((48, 32), 3), ((32, 32), 4)]:
        assert not winograd_serves(*channels, kernel_size)
    assert not winograd_serves(32, 32, 3, torch.float64)


@available
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("epilogue", EPILOGUES)
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_what_is_not_finite_stays_so(
    dtype: torch.dtype, k: int, epilogue: Epilogue, value: float
) -> None:
    """Whatever else of its tile it spoils, and nothing of another image."""
    torch.manual_seed(0)
    x = torch.rand(2, 32, 14, 14).contiguous(memory_format=torch.channels_last)
    x[0, 3, 6, 6] = value
    weight, bias = torch.randn(32, 32, k, k) / k, torch.randn(32)
    found = winograd_conv2d(x.to(dtype), weight, bias, 0, epilogue)
    exact = followed(F.conv2d(x.double(), weight.double(), bias.double()), epilogue)
    assert not found[~exact.isfinite()].isfinite().any()
    assert found[1].isfinite().all()
