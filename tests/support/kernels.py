"""What the tests of kernels share: references, errors, what is called, and AMX by emulation."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mnist_bench.kernels import build
from mnist_bench.kernels.epilogue import Epilogue
from mnist_bench.kernels.winograd import winograd_conv2d

EPILOGUES = [Epilogue(pool, relu) for pool in (False, True) for relu in (False, True)]
EMULATION = Path(__file__).with_name("amx_emulation.h").read_text()
# Root mean square: rounding a result gives 1.7e-3, and rounding kernels before as much again.
BF16_ERROR = 2.5e-3


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Root mean square of the error over that of the value."""
    return float((found.detach().double() - expected).detach().norm() / expected.detach().norm())


def followed(y: Tensor, epilogue: Epilogue) -> Tensor:
    """What PyTorch's operations make of it."""
    y = F.max_pool2d(y, 2) if epilogue.pool else y
    return F.relu(y) if epilogue.relu else y


def convolve(
    shape: tuple[int, ...], dtype: torch.dtype, threads: int = 2, convolution=winograd_conv2d
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Output and gradients of input, kernels and bias: by `convolution`, PyTorch's, and exactly."""
    torch.manual_seed(0)
    images, inputs, outputs, height, width, k, padding = shape
    x = (torch.randn(images, inputs, height, width) + 0.3).relu().to(dtype)
    weight = torch.randn(outputs, inputs, k, k) / (inputs * k * k) ** 0.5
    bias = torch.randn(outputs)
    grad = torch.randn(F.conv2d(x[:, :1], weight[:, :1].to(dtype), padding=padding).shape).to(dtype)

    def results(convolution, *sources: Tensor) -> list[Tensor]:
        sources = tuple(t.clone().requires_grad_() for t in sources)
        output = convolution(*sources)
        return [output, *torch.autograd.grad(output, sources, grad.to(output.dtype))]

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    ours = results(lambda x, w, b: convolution(x, w, b, padding), x, weight, bias)
    torch.set_num_threads(before)
    direct = results(
        lambda x, w, b: F.conv2d(x, w.to(dtype), b.to(dtype), padding=padding), x, weight, bias
    )
    exact = results(
        lambda x, w, b: F.conv2d(x, w, b, padding=padding), *(t.double() for t in (x, weight, bias))
    )
    return ours, direct, exact


def compute_by(unit: str, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has what a module of AMX computes computed by the unit, or by the emulation."""
    if unit == "the unit":
        library, needs = module._library(), "AMX"
    else:
        name = module.__name__.rpartition(".")[2]
        library, needs = build.library(name, torch.bfloat16, EMULATION, ("amx.h",)), "AVX-512"
    if library is None:
        pytest.skip(f"needs {needs} and a C compiler")
    monkeypatch.setattr(module, "_library", lambda: library)


class Calls(TorchDispatchMode):
    """The operations that PyTorch computes, each with the shape of its first tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[str, tuple[int, ...]]] = []

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        shape = tuple(arguments[0].shape) if isinstance(arguments[0], Tensor) else ()
        self.made.append((operation.overloadpacket.__name__, shape))
        return operation(*arguments, **(named or {}))
