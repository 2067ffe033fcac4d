"""What our layers save on a CPU: `python -m benchmarks.layers [--write]`.

Each published layer that `mnist_bench/kernels/` computes in another way, forward and backward,
beside PyTorch's own in channels_last; and some that are left to PyTorch, to show why. Last, the
same steps with and without `keep_freed_memory`. Rounds of the contenders alternate; times are
medians, ratios medians over the rounds' own ratios.
"""

import argparse
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.step import ROOT, device_name, file_name_part
from mnist_bench.kernels.amx import amx_conv2d
from mnist_bench.kernels.amx_linear import MAX_IMAGES, amx_linear, amx_linear_serves
from mnist_bench.kernels.direct import direct_conv2d
from mnist_bench.kernels.dispatch import MKL_IS_FASTER, Convolution, convolution_way
from mnist_bench.kernels.dropout import Dropout
from mnist_bench.kernels.epilogue import NO_EPILOGUE, Epilogue
from mnist_bench.kernels.fourier import fourier_conv2d
from mnist_bench.kernels.layers import POOL_SIZE, Conv2d, MaxPool2d, onednn_linear
from mnist_bench.kernels.winograd import winograd_conv2d, winograd_serves
from mnist_bench.loggers.console import info
from mnist_bench.runs.records import provenance
from mnist_bench.training.device import keep_freed_memory

IMAGE_SIZE = 28
ROUNDS = 7
BATCH_SIZE = 128
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
NO_POOLING, POOLING = Epilogue(relu=True), Epilogue(pool=True, relu=True)
# Channels in and out, size of the map, of the kernel: as in the published networks.
FOURIER = [
    *((64, 128, 24, 7), (64, 128, 26, 5), (32, 64, 24, 5)),
    *((64, 128, 26, 3), (32, 64, 26, 3)),
]
# And the padding. The last four are of vgg16.
CONVOLUTIONS = [
    *((32, 64, 26, 3, "valid"), (64, 128, 26, 3, "valid")),
    *((32, 64, 24, 5, "valid"), (64, 128, 26, 5, "valid"), (64, 128, 24, 7, "valid")),
    *((64, 64, 28, 3, "same"), (128, 128, 14, 3, "same")),
    *((256, 256, 7, 3, "same"), (512, 512, 3, 3, "same")),
]
# With the pooling and the ReLU behind: outputs of the first convolution and the side of its kernel;
# a second convolution as above.
DIRECT = [(32, 3, NO_POOLING), (64, 3, NO_POOLING), (32, 5, POOLING)]
POOLED_CONVOLUTIONS = [(32, 64, 26, 3, "valid"), (32, 64, 12, 5, "valid")]
# Kernels that do not overlap: that of the speed record, and one like it.
APART = [(32, 64, 9, 3), (32, 96, 8, 2)]
ONE_PIXEL = 512
# Channels and size of the map; pixel-major behind the frequency domain.
POOLED = [(64, 24), (32, 24)]
POOLED_PIXEL_MAJOR = [(128, 18)]
DROPPED = [(9216, 0.25), (18432, 0.5), (9216, 0.3)]
# Images, inputs and outputs: the largest dense layer, at the batch size of its recipe too.
DENSE = [(128, 7744, 7744), (32, 7744, 7744)]
# By AMX smaller ones too, and more images than it is used for.
DENSE_BF16 = [*DENSE, (128, 10368, 256), (128, 9216, 128), (32, 9216, 128), (512, 9216, 128)]
MEMORY, MEMORY_BATCHES = (32, 64, 24, 5, "valid"), [128, 512]

Step = Callable[[], object]
# A convolution of maps by kernels, with biases and padding, and what follows it.
Way = Callable[[Tensor, Tensor, Tensor, int, Epilogue], Tensor]


def time_in_turns(ours: Step, theirs: Step) -> tuple[float, float, float]:
    """Milliseconds of each, and the ratio."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS + 1):
        for step, found in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            step()
            found.append((time.perf_counter() - start) * 1e3)
    ratios = [a / b for a, b in zip(times[0][1:], times[1][1:], strict=True)]
    medians = [statistics.median(found[1:]) for found in times]  # the first warms up
    return medians[0], medians[1], statistics.median(ratios)


def forward_and_backward(layer: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor) -> Step:
    return lambda: layer(x).backward(grad)


def both(ours: nn.Module, plain: nn.Module, x: Tensor, grad: Tensor) -> tuple[Step, Step]:
    x.requires_grad_()
    return forward_and_backward(ours, x, grad), forward_and_backward(plain, x, grad)


def pixel_major(x_NCHW: Tensor) -> Tensor:
    return x_NCHW.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def fourier(shape: tuple[int, int, int, int], dtype: torch.dtype) -> tuple[Step, Step]:
    """Ours from channels_last to pixel-major, as behind a first convolution."""
    inputs, outputs, size, k = shape
    plain = nn.Conv2d(inputs, outputs, k).to(memory_format=torch.channels_last).to(dtype)
    weight, bias = plain.weight.float().detach().requires_grad_(), plain.bias
    x = channels_last(torch.rand(BATCH_SIZE, inputs, size, size).to(dtype)).requires_grad_()
    grad = torch.randn(BATCH_SIZE, outputs, size - k + 1, size - k + 1).to(dtype)
    assert bias is not None

    def ours(x: Tensor) -> Tensor:
        y_PPNO = fourier_conv2d(x.permute(2, 3, 0, 1).contiguous(), weight, bias)
        return y_PPNO.permute(2, 3, 0, 1)

    return (
        forward_and_backward(ours, x, pixel_major(grad)),
        forward_and_backward(plain, x, channels_last(grad)),
    )


def followed(plain: nn.Conv2d, epilogue: Epilogue) -> nn.Sequential:
    """By PyTorch's own layers, the pooling first, as that is faster."""
    return nn.Sequential(plain, *[nn.MaxPool2d(2)] * epilogue.pool, *[nn.ReLU()] * epilogue.relu)


def direct(shape: tuple[int, int, Epilogue], dtype: torch.dtype) -> tuple[Step, Step]:
    outputs, k, epilogue = shape
    plain = nn.Conv2d(1, outputs, k).to(memory_format=torch.channels_last).to(dtype)
    weight, bias = (p.float().detach().requires_grad_() for p in plain.parameters())
    x = torch.rand(BATCH_SIZE, 1, IMAGE_SIZE, IMAGE_SIZE)
    theirs, x_theirs = followed(plain, epilogue), channels_last(x.to(dtype))
    grad = channels_last(torch.randn_like(theirs(x_theirs)))
    return (
        lambda: direct_conv2d(x, weight, bias, dtype, 1, "valid", epilogue).backward(grad),
        forward_and_backward(theirs, x_theirs, grad),
    )


def in_c(
    convolution: Way,
    shape: tuple[int, int, int, int, str],
    dtype: torch.dtype,
    batch_size: int = BATCH_SIZE,
    epilogue: Epilogue = NO_EPILOGUE,
) -> tuple[Step, Step]:
    """Ours with kernels in fp32, which PyTorch's autocast would round."""
    inputs, outputs, size, k, padding = shape
    plain = nn.Conv2d(inputs, outputs, k, padding=padding)
    plain = plain.to(memory_format=torch.channels_last).to(dtype)
    weight, bias = (p.float().detach().requires_grad_() for p in plain.parameters())
    around = k // 2 if padding == "same" else 0
    x = channels_last(torch.rand(batch_size, inputs, size, size).to(dtype)).requires_grad_()
    theirs = followed(plain, epilogue)
    grad = channels_last(torch.randn_like(theirs(x)))
    return (
        forward_and_backward(lambda x: convolution(x, weight, bias, around, epilogue), x, grad),
        forward_and_backward(theirs, x, grad),
    )


def blocks(shape: tuple[int, int, int, int], dtype: torch.dtype) -> tuple[Step, Step]:
    inputs, outputs, size, k = shape
    plain = nn.Conv2d(inputs, outputs, k, k).to(memory_format=torch.channels_last).to(dtype)
    ours = Conv2d(inputs, outputs, k, k, "valid").to(plain.weight)
    x = channels_last(torch.rand(BATCH_SIZE, inputs, size, size).to(dtype))
    grad = channels_last(torch.randn(BATCH_SIZE, outputs, size // k, size // k).to(dtype))
    return both(ours, plain, x, grad)


def of_one_pixel(channels: int, dtype: torch.dtype) -> tuple[Step, Step]:
    plain = nn.Conv2d(channels, channels, 3, padding="same")
    plain = plain.to(memory_format=torch.channels_last).to(dtype)
    ours = Conv2d(channels, channels, 3, 1, "same").to(plain.weight)
    x = torch.rand(BATCH_SIZE, channels, 1, 1).to(dtype)
    return both(ours, plain, x, torch.randn_like(x))


def pooling(
    shape: tuple[int, int], dtype: torch.dtype, layout: Callable[[Tensor], Tensor]
) -> tuple[Step, Step]:
    channels, size = shape
    x = layout(torch.randn(BATCH_SIZE, channels, size, size).to(dtype))
    grad = layout(torch.randn(BATCH_SIZE, channels, size // 2, size // 2).to(dtype))
    return both(MaxPool2d(POOL_SIZE), nn.MaxPool2d(POOL_SIZE), x, grad)


def dropout(features: int, rate: float, dtype: torch.dtype) -> tuple[Step, Step]:
    x = torch.randn(BATCH_SIZE, features).to(dtype)
    return both(Dropout(rate), nn.Dropout(rate), x, torch.randn_like(x))


def dense(
    way: Callable[[Tensor, Tensor, Tensor], Tensor],
    shape: tuple[int, int, int],
    dtype: torch.dtype,
) -> tuple[Step, Step]:
    """PyTorch's under autocast, if not in fp32."""
    images, inputs, outputs = shape
    plain = nn.Linear(inputs, outputs)
    x = torch.rand(images, inputs).to(dtype).requires_grad_()
    grad = torch.randn(images, outputs).to(dtype)

    def theirs(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            output: Tensor = plain(x)
        return output

    return (
        forward_and_backward(lambda x: way(x, plain.weight, plain.bias), x, grad),
        forward_and_backward(theirs, x, grad),
    )


def contenders() -> Iterator[tuple[str, str, tuple[Step, Step]]]:
    """What is computed, the precision, and the two who compute it."""
    for precision, dtype in DTYPES.items():
        ways: list[tuple[str, Way]] = [("Winograd", winograd_conv2d)]
        by_amx = way_of(32, 32, 3, "valid", dtype) == "amx"
        if by_amx:
            ways.insert(0, ("AMX", amx_conv2d))
        plain = [(shape, NO_EPILOGUE) for shape in CONVOLUTIONS]
        pooled = [(shape, POOLING) for shape in POOLED_CONVOLUTIONS]
        for (name, way), (shape, epilogue) in itertools.product(ways, plain + pooled):
            inputs, outputs, size, k, padding = shape
            if way is winograd_conv2d and not winograd_serves(inputs, outputs, k, dtype):
                continue
            used = way_of(inputs, outputs, k, padding, dtype) == name.lower()
            what = f"{named(name, used)}{', pooling, ReLU' * epilogue.pool}: {k}x{k}, "
            what += f"{inputs} to {outputs} channels, from {size} x {size}"
            what += ", padded" * (padding == "same")
            yield what, precision, in_c(way, shape, dtype, epilogue=epilogue)
        for outputs, k, epilogue in DIRECT:
            what = f"direct sum{' by AMX' * by_amx}{', pooling' * epilogue.pool}, ReLU: "
            what += f"{k}x{k}, 1 to {outputs} channels, from {IMAGE_SIZE} x {IMAGE_SIZE}"
            yield what, precision, direct((outputs, k, epilogue), dtype)
        for inputs, outputs, size, k in FOURIER:
            used = way_of(inputs, outputs, k, "valid", dtype) == "fourier"
            what = f"{named('Fourier', used)}: {k}x{k}, {inputs} to {outputs} channels, "
            what += f"from {size} x {size}"
            yield what, precision, fourier((inputs, outputs, size, k), dtype)
        for inputs, outputs, size, k in APART:
            what = (
                f"blocks: {k}x{k} every {k}, {inputs} to {outputs} channels, from {size} x {size}"
            )
            yield what, precision, blocks((inputs, outputs, size, k), dtype)
        yield (
            f"same padding: 3x3, {ONE_PIXEL} to {ONE_PIXEL} channels, from 1 x 1",
            precision,
            of_one_pixel(ONE_PIXEL, dtype),
        )
        for channels, size in POOLED:
            what = f"pooling: {channels} channels, {size} x {size}"
            yield what, precision, pooling((channels, size), dtype, channels_last)
        for channels, size in POOLED_PIXEL_MAJOR:
            what = f"pooling, pixel-major: {channels} channels, {size} x {size}"
            yield what, precision, pooling((channels, size), dtype, pixel_major)
        for features, rate in DROPPED:
            yield f"dropout: {rate} of {features}", precision, dropout(features, rate, dtype)
    for images, inputs, outputs in DENSE:
        what = f"{named('dense', not MKL_IS_FASTER)}: {inputs} to {outputs}, batch {images}"
        yield what, "fp32", dense(onednn_linear, (images, inputs, outputs), torch.float32)
    for images, inputs, outputs in DENSE_BF16:
        what = (
            f"{named('dense by AMX', images <= MAX_IMAGES)}: {inputs} to {outputs}, batch {images}"
        )
        if amx_linear_serves(torch.empty(1, inputs), torch.empty(outputs, inputs)):
            yield what, "bf16", dense(amx_linear, (images, inputs, outputs), torch.bfloat16)


def way_of(inputs: int, outputs: int, k: int, padding: str, dtype: torch.dtype) -> str:
    return convolution_way(Convolution(inputs, outputs, k, 1, padding, dtype))


def named(way: str, used: bool) -> str:
    return way if used else f"{way}, not used"


def row(what: str, precision: str, ours: float, theirs: float, ratio: float) -> str:
    line = f"| {what} | {precision} | {ours:.1f} | {theirs:.1f} | {ratio:.2f} |"
    info(line)
    return line


def memory_row(batch_size: int) -> str:
    """The large convolution of `cnn5x5`, in processes that keep freed memory and that do not."""
    command = [sys.executable, "-m", "benchmarks.layers", "--one", str(batch_size)]
    found: dict[str, list[float]] = {"--keep": [], "--return": []}
    for _ in range(3):
        for what, times in found.items():
            output = subprocess.check_output([*command, what], cwd=ROOT, text=True)
            times.append(float(output))
    kept, returned = (statistics.median(times) for times in found.values())
    ratio = statistics.median(a / b for a, b in zip(*found.values(), strict=True))
    return row(f"freed memory kept: Winograd, batch {batch_size}", "fp32", kept, returned, ratio)


def time_one(batch_size: int, keep: bool) -> float:
    """Milliseconds of the large convolution of `cnn5x5`, forward and backward."""
    if keep:
        keep_freed_memory()
    ours, _ = in_c(winograd_conv2d, MEMORY, torch.float32, batch_size)
    return time_in_turns(ours, lambda: None)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--write", type=Path, nargs="?", const=ROOT / "benchmarks" / "results")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--return", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(time_one(arguments.one, arguments.keep))
        return

    memory = [memory_row(batch_size) for batch_size in MEMORY_BATCHES]
    keep_freed_memory()
    lines = [
        *(row(what, name, *time_in_turns(*pair)) for what, name, pair in contenders()),
        *memory,
    ]
    if arguments.write:
        device, versions = device_name(), provenance()
        header = [
            f"# Layers on {device}",
            "",
            f"`python -m benchmarks.layers` on {versions['started'][:10]}, commit "
            f"{versions['git_commit']}, torch {versions['versions']['torch']}. Forward and "
            f"backward, batch {BATCH_SIZE} unless it says otherwise, medians of {ROUNDS} rounds in "
            "turns. *Not used* is where another way is faster.",
            "",
            "| layer | precision | ours, ms | PyTorch's, ms | ours / PyTorch's |",
            "| --- | --- | ---: | ---: | ---: |",
        ]
        path = arguments.write / f"layers-{file_name_part(device)}.md"
        path.write_text("\n".join([*header, *lines]) + "\n")
        info(f"Written to {path}")


if __name__ == "__main__":
    main()
