"""Our layers on a CPU against PyTorch's, in float64 and in the precisions of training."""

from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mnist_bench.config.schema import TrainConfig
from mnist_bench.data.images import Images
from mnist_bench.kernels import accelerate, build
from mnist_bench.kernels.dispatch import Convolution, convolution_way
from mnist_bench.kernels.fourier import fourier_conv2d
from mnist_bench.kernels.layers import Conv2d, Linear, MaxPool2d, Sequential
from mnist_bench.models import ConvNet
from tests.support.kernels import relative_error

# Channels in and out, size of the map, size of the kernel: those of the published networks, and
# others that are odd, as small as the kernel, or have a kernel of one.
FOURIER_SHAPES = [(64, 128, 24, 7), (64, 128, 26, 5), (32, 64, 24, 5)]
ODD_SHAPES = [(3, 5, 9, 4), (2, 3, 7, 7), (4, 1, 5, 1), (1, 2, 10, 3)]


def pixel_major(x_NCHW: Tensor) -> Tensor:
    return x_NCHW.permute(2, 3, 0, 1)


def in_pixel_major(x_NCHW: Tensor) -> Tensor:
    return pixel_major(pixel_major(x_NCHW).contiguous())


def channels_last(x_NCHW: Tensor) -> Tensor:
    return x_NCHW.contiguous(memory_format=torch.channels_last)


def laying_out(layer: Conv2d, *types: torch.dtype) -> Conv2d:
    """That writes maps of these types pixel-major."""
    layer.pixel_major = types
    return layer


def convolve(
    shape: tuple[int, int, int, int], dtype: torch.dtype, count: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Output and gradients of input, kernels and bias: of ours, and of PyTorch's in float64."""
    torch.manual_seed(0)
    inputs, outputs, size, k = shape
    # Positive inputs, as behind a ReLU, put most of a spectrum into frequency 0.
    x = (torch.randn(count, inputs, size, size) + 0.3).relu().to(dtype)
    weight = torch.randn(outputs, inputs, k, k) / (inputs * k * k) ** 0.5
    bias = torch.randn(outputs)
    grad = torch.randn(count, outputs, size - k + 1, size - k + 1).to(dtype)

    exact = [t.double().clone().requires_grad_() for t in (x, weight, bias)]
    expected = F.conv2d(*exact)
    expected.backward(grad.double())

    parameter_dtype = torch.float64 if dtype is torch.float64 else torch.float32
    x_HWNC = pixel_major(x).contiguous().requires_grad_()
    parameters = [t.to(parameter_dtype).clone().requires_grad_() for t in (weight, bias)]
    y_HWNC = fourier_conv2d(x_HWNC, *parameters)
    y_HWNC.backward(pixel_major(grad))
    found = [pixel_major(y_HWNC), pixel_major(x_HWNC.grad), *(t.grad for t in parameters)]
    return found, [expected, *(t.grad for t in exact)]


@pytest.mark.parametrize("shape", [*FOURIER_SHAPES, *ODD_SHAPES])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)],
)
def test_fourier_convolution_is_the_convolution(
    shape: tuple[int, int, int, int], dtype: torch.dtype, tolerance: float
) -> None:
    found, expected = convolve(shape, dtype, count=5)
    for name, ours, theirs in zip(
        ["output", "input", "kernels", "bias"], found, expected, strict=True
    ):
        assert ours.shape == theirs.shape
        assert relative_error(ours, theirs) < tolerance, name


@pytest.mark.parametrize("shape", FOURIER_SHAPES)
def test_fourier_convolution_errs_no_more_than_the_direct_sum_in_float32(
    shape: tuple[int, int, int, int],
) -> None:
    torch.manual_seed(1)
    inputs, outputs, size, k = shape
    x = (torch.randn(8, inputs, size, size) + 0.3).relu()
    weight, bias = torch.randn(outputs, inputs, k, k) / k, torch.randn(outputs)
    exact = F.conv2d(x.double(), weight.double(), bias.double())
    direct = relative_error(F.conv2d(x, weight, bias), exact)
    fourier = relative_error(
        pixel_major(fourier_conv2d(pixel_major(x).contiguous(), weight, bias)), exact
    )
    assert fourier < 1.5 * direct


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_what_is_not_finite_stays_so_in_the_frequency_domain(
    dtype: torch.dtype, value: float
) -> None:
    x = torch.rand(12, 12, 2, 4).to(dtype)
    x[5, 6, 0, 1] = value
    y_PPNO = fourier_conv2d(x, torch.randn(3, 4, 5, 5), torch.randn(3))
    assert not y_PPNO[:, :, 0].isfinite().any()
    assert y_PPNO[:, :, 1].isfinite().all()


def test_a_transform_first_used_in_an_evaluation_serves_training() -> None:
    layer = Conv2d(32, 4, 9, 1, "valid")  # a size that no other test uses
    x = torch.randn(2, 32, 17, 17)
    with torch.inference_mode():
        layer(x)
    layer(x).sum().backward()
    assert layer.weight.grad is not None


@pytest.mark.parametrize("k", [1, 3, 5, 28])
def test_the_first_convolution_is_pytorchs_and_pixel_major(images: Images, k: int) -> None:
    torch.manual_seed(0)
    layer = laying_out(Conv2d(1, 6, k).double(), torch.float64)
    x = (images.test_images[:4, None] / 255).double()
    output, expected = layer(x), F.conv2d(x, layer.weight, layer.bias)
    torch.testing.assert_close(output, expected)
    assert pixel_major(output).is_contiguous()
    grad = torch.randn_like(expected)
    ours = torch.autograd.grad(output, [layer.weight, layer.bias], grad)
    theirs = torch.autograd.grad(expected, [layer.weight, layer.bias], grad)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        (Conv2d(32, 4, 5, 1, "valid"), 12),
        (Conv2d(32, 4, 5, 1, "same"), 12),
        (Conv2d(8, 4, 5, 1, "valid"), 12),
        (Conv2d(32, 4, 3, 1, "valid"), 12),
        (Conv2d(32, 4, 5, 2, "valid"), 13),
        (Conv2d(8, 4, 3, 3, "valid"), 12),
        (laying_out(Conv2d(1, 4, 4, 4), torch.float32), 15),
        (Conv2d(8, 4, 4, 2, "valid"), 12),
        (Conv2d(8, 4, 3, 1, "same"), 1),
        (Conv2d(8, 4, 4, 1, "same"), 1),
        (Conv2d(32, 32, 7, 1, "valid"), 12),
        (Conv2d(32, 32, 4, 1, "same"), 8),
        (Conv2d(32, 64, 3, 2, "valid"), 8),
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_convolution_is_pytorchs_however_it_is_computed(
    layer: Conv2d, size: int, precision: str
) -> None:
    x = torch.randn(3, layer.in_channels, size, size, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        output = layer(x)
    assert output.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)
    weights = layer.weight.double(), layer.bias.double()
    exact = F.conv2d(x.double(), *weights, stride=layer.stride, padding=layer.padding)
    tolerance = 1e-2 if precision == "bf16" else 1e-6
    assert relative_error(output, exact) < tolerance
    sources, grad = [x, layer.weight, layer.bias], torch.randn_like(output)
    ours = torch.autograd.grad(output, sources, grad)
    for found, expected in zip(
        ours, torch.autograd.grad(exact, sources, grad.double()), strict=True
    ):
        assert relative_error(found, expected) < tolerance


class Operations(TorchDispatchMode):
    """What PyTorch is asked to compute."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("centre_tap", "convolutions"), [(True, 1), (False, 2)])
def test_maps_of_one_pixel_are_multiplied_on_every_device(
    monkeypatch: pytest.MonkeyPatch, centre_tap: bool, convolutions: int
) -> None:
    """Seen on `meta`, which goes the way of CUDA; the first layer has maps of 2 x 2."""
    monkeypatch.setattr(Conv2d, "centre_tap", centre_tap)
    with torch.device("meta"):
        layers = Sequential(
            OrderedDict(
                conv1=Conv2d(8, 8, 3, 1, "same"),
                pool1=MaxPool2d(2),
                conv2=Conv2d(8, 4, 3, 1, "same"),
            )
        )
        with Operations() as operations:
            output = layers(torch.zeros(5, 8, 2, 2))
    assert output.shape == (5, 4, 1, 1)
    assert operations.names.count("convolution") == convolutions


@pytest.mark.parametrize("channels", [7, 16, 32])
@pytest.mark.parametrize("size", [(8, 8), (9, 9), (8, 5), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("layout", [in_pixel_major, channels_last])
def test_a_pooling_is_pytorchs_in_every_layout(
    channels: int, size: tuple[int, int], dtype: torch.dtype, layout: Callable[[Tensor], Tensor]
) -> None:
    """Whole numbers, so that there are ties: the first of equals gets the gradient."""
    torch.manual_seed(0)
    x = torch.randint(-2, 2, (5, channels, *size)).to(dtype)
    ours, theirs = layout(x).requires_grad_(), x.clone().requires_grad_()
    pooled, expected = MaxPool2d(2)(ours), F.max_pool2d(theirs, 2)
    assert torch.equal(pooled, expected)
    assert layout(pooled).data_ptr() == pooled.data_ptr(), "the layout is kept"
    grad = torch.randn_like(expected)
    pooled.backward(grad)
    expected.backward(grad)
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("has_amx", [False, True])
def test_with_amx_no_layer_waits_for_maps_of_the_frequency_domain(
    compose: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch, has_amx: bool
) -> None:
    monkeypatch.setattr("mnist_bench.kernels.dispatch.amx_serves", lambda *channels: has_amx)
    for dtype, way in [(torch.float32, "fourier"), (torch.bfloat16, ["fourier", "amx"][has_amx])]:
        assert convolution_way(Convolution(64, 128, 7, 1, "valid", dtype)) == way
    monkeypatch.setattr(build, "missing", lambda: None)
    network = accelerate(ConvNet(compose("model=wide5x7_bn").model), torch.device("cpu"))
    types = {torch.float32} if has_amx else {torch.float32, torch.bfloat16}
    assert set(network.features.conv1.pixel_major) == types
    assert not network.features.conv2.pixel_major


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "layers",
    [
        [Conv2d(1, 32, 3, 1, "valid"), nn.ReLU(), Conv2d(32, 32, 3, 1, "same")],
        [laying_out(Conv2d(1, 32, 5), torch.bfloat16), MaxPool2d(2), nn.ReLU()],
        [Conv2d(1, 8, 3, 1, "valid"), MaxPool2d(2), nn.ReLU()],
        [Conv2d(1, 32, 3, 1, "same"), nn.BatchNorm2d(32), MaxPool2d(2), nn.ReLU()],
        [nn.ZeroPad2d(-3), Conv2d(1, 32, 6, 2, "valid"), MaxPool2d(2)],
    ],
)
def test_layers_computed_together_are_the_layers(
    images: Images, layers: list[nn.Module], precision: torch.dtype
) -> None:
    """What hooks see is what there is without them, and what PyTorch's own layers compute."""
    torch.manual_seed(0)
    x = images.test_images[:8, None] / 255
    together, seen = Sequential(*layers), []
    for layer in layers:
        if isinstance(layer, Conv2d):
            layer.reset_parameters()

    def results() -> list[Tensor]:
        with torch.autocast("cpu", precision, enabled=precision is torch.bfloat16):
            output = together(x)
        grads = torch.autograd.grad(output.float().square().sum(), list(together.parameters()))
        return [output, *grads]

    found = results()
    hooks = [layer.register_forward_hook(lambda *a: seen.append(a[2])) for layer in layers]
    expected = results()
    assert len(seen) == len(layers)
    for hook in hooks:
        hook.remove()
    assert torch.equal(seen[-1], found[0])
    for ours, theirs in zip(found, expected, strict=True):
        assert relative_error(ours, theirs.double()) < (
            1e-6 if precision is torch.float32 else 2e-2  # two pixels of a window nearly equal
        )


@pytest.mark.parametrize("watched", range(3))
@pytest.mark.parametrize(
    "register",
    [
        *("register_forward_pre_hook", "register_forward_hook"),
        *("register_full_backward_pre_hook", "register_full_backward_hook"),
    ],
)
def test_a_hook_sees_its_layer(register: str, watched: int) -> None:
    layers = Sequential(Conv2d(1, 32, 3, 1, "valid"), MaxPool2d(2), nn.ReLU())
    seen: list[nn.Module] = []
    getattr(layers[watched], register)(lambda layer, *_: seen.append(layer))
    layers(torch.rand(2, 1, 8, 8)).sum().backward()
    assert seen == [layers[watched]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_no_number_is_not_pooled_away(dtype: torch.dtype) -> None:
    x = channels_last(torch.rand(1, 16, 2, 8).to(dtype))
    for pixel in range(4):
        x[0, :, pixel // 2, 2 * pixel + pixel % 2] = torch.nan
    assert MaxPool2d(2)(x).isnan().all()


@pytest.mark.parametrize("by_mkl", [False, True])
@pytest.mark.parametrize("count", [1, 5, 128])
@pytest.mark.parametrize(("inputs", "outputs"), [(30, 40), (9216, 128), (128, 10)])
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp64", 1e-14), ("fp32", 1e-6), ("bf16", 1e-2)]
)
def test_a_dense_layer_is_pytorchs_however_it_is_computed(
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    inputs: int,
    outputs: int,
    precision: str,
    tolerance: float,
    by_mkl: bool,
) -> None:
    monkeypatch.setattr("mnist_bench.kernels.dispatch.MKL_IS_FASTER", by_mkl)
    torch.manual_seed(0)
    dtype = torch.float64 if precision == "fp64" else torch.float32
    layer = Linear(inputs, outputs).to(dtype)
    x = torch.randn(count, inputs, dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        output = layer(x)
    assert output.dtype == (torch.bfloat16 if precision == "bf16" else dtype)
    exact = x.double() @ layer.weight.double().T + layer.bias.double()
    assert relative_error(output, exact) < tolerance
    sources, grad = [x, layer.weight, layer.bias], torch.randn_like(output)
    ours = torch.autograd.grad(output, sources, grad)
    theirs = torch.autograd.grad(exact, sources, grad.double())
    for found, expected in zip(ours, theirs, strict=True):
        assert found.is_contiguous()
        assert relative_error(found, expected) < tolerance


def test_a_dense_layer_on_the_images_needs_no_gradient_of_them() -> None:
    layer = Linear(4, 3)
    layer(torch.rand(2, 4)).sum().backward()
    assert torch.equal(layer.bias.grad, torch.full((3,), 2.0))
