"""FLOPs and bytes of R seeds as one stacked step: `python docs/log/stacked_replicas.py`.

Recomputes the tables of 2026-11-26-stacked-replicas.md on any CPU, with PyTorch alone: tensors are
on PyTorch's `meta` device, so nothing is computed. Steps are of bf16, batch 128, fused Adam. What
was counted or measured elsewhere (nodes of CUDA graphs, milliseconds) stands in STEPS and NODES.
R replicas, N images, C channels, H rows, W columns, K classes, P x P pixels of a map.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

R, N, META, BF16 = 16, 128, torch.device("meta"), torch.bfloat16
HBM, MATRIX = 4.0e12, 790e12  # of an H200: bytes a second as achieved, FLOPs a second at peak


class Spec(NamedTuple):
    channels: list[int]
    kernels: list[int]
    pool_after: list[int]
    dense: list[int]
    dropout: float = 0.5
    batch_norm: bool = False
    same: bool = False


VGG = [64, 64, 128, 128, *[256] * 3, *[512] * 6]
NETWORKS = {
    "cnn5x5_single": Spec([32], [5], [1], [128]),
    "mnist_cnn": Spec([32, 64], [3, 3], [2], [128]),
    "cnn5x5": Spec([32, 64], [5, 5], [2], [128]),
    "wide3x3": Spec([64, 128], [3, 3], [2], [128]),
    "wide3x5_bn": Spec([64, 128], [3, 5], [2], [256], batch_norm=True),
    "wide5x7_bn": Spec([64, 128], [5, 7], [2], [256, 128], batch_norm=True),
    "vgg16": Spec(VGG, [3] * 13, [2, 4, 7, 10], [256, 256], same=True),
    "conv3_dense7744": Spec([32, 64, 64], [3, 3, 3], [3], [7744, 128], dropout=0),
}
# Of one step alone: kernels in its CUDA graph, counted; milliseconds on an H200, measured.
STEPS = {
    "cnn5x5_single": (57, 0.302),
    "mnist_cnn": (69, 0.472),
    "cnn5x5": (69, 0.474),
    "wide3x3": (69, 0.688),
    "wide3x5_bn": (75, 0.835),
    "wide5x7_bn": (93, 1.095),
    "vgg16": (217, 1.782),
    "conv3_dense7744": (87, 1.451),
}
# The same of one alone and of 16 as branches of one graph, in another hour: milliseconds, measured.
BRANCHES = {
    "mnist_cnn": (0.461, 3.994),
    "cnn5x5_single": (0.309, 2.164),
    "wide5x7_bn": (0.965, 9.691),
}
# Kernels in the graph of a stacked step of 16, counted.
NODES = {
    "mnist_cnn": {"autocast": 87, "vmap": 87, "grouped": 78, "im2col": 121},
    "cnn5x5_single": {"autocast": 72, "vmap": 73, "grouped": 66, "im2col": 64},
}
AUTOCAST = {
    "mnist_cnn": 8_875_000_000,
    "cnn5x5_single": 3_103_000_000,
}  # bytes of vmap with it, counted
FUSED = 50  # kernels of a compiled step: assumed


class Layer(NamedTuple):
    name: str
    inputs: int  # channels or features
    outputs: int
    kernel: int
    before: int  # pixels of the map on a side, 1 for a dense layer
    after: int
    pooled: bool

    @property
    def flops(self) -> int:
        """Of one product of N images: forwards, or for one of the two gradients."""
        return 2 * N * self.after**2 * self.kernel**2 * self.inputs * self.outputs

    @property
    def left(self) -> int:
        """Pixels on a side of what goes on to the next layer."""
        return self.after // 2 if self.pooled else self.after


def layers(spec: Spec) -> Iterator[Layer]:
    channels, size = 1, 28
    for i, (outputs, kernel) in enumerate(zip(spec.channels, spec.kernels, strict=True), start=1):
        after = size if spec.same else size - kernel + 1
        yield Layer(f"conv{i}", channels, outputs, kernel, size, after, i in spec.pool_after)
        channels, size = outputs, after // 2 if i in spec.pool_after else after
    features = channels * size**2
    for i, units in enumerate([*spec.dense, 10], start=1):
        yield Layer(f"dense{i}", features, units, 1, 1, 1, False)
        features = units


class Dropout(nn.Dropout):
    def forward(self, input: Tensor) -> Tensor:
        kept, _ = torch.native_dropout(input, self.p, True)  # CUDA's, with a mask of bytes
        return kept


def network(spec: Spec, flatten: nn.Module) -> nn.Sequential:
    """The network as `mnist_bench` has it on CUDA, pooling before the ReLU."""
    parts: list[nn.Module] = []
    *hidden, output = layers(spec)
    for layer in hidden:
        if layer.name.startswith("conv"):
            same = "same" if spec.same else "valid"
            parts += [nn.Conv2d(layer.inputs, layer.outputs, layer.kernel, padding=same)]
            parts += [nn.MaxPool2d(2)] if layer.pooled else []
            parts += [nn.ReLU()]
            continue
        if layer.name == "dense1":
            parts += [flatten]
            parts += [Dropout(0.25)] if spec.dropout and not spec.same else []
        parts += [nn.Linear(layer.inputs, layer.outputs), nn.ReLU()]
        parts += [nn.BatchNorm1d(layer.outputs)] if spec.batch_norm else []
        parts += [Dropout(spec.dropout)] if spec.dropout else []
    parts += [nn.Linear(output.inputs, output.outputs)]
    return nn.Sequential(*parts).to(META).to(memory_format=torch.channels_last)


class PixelByPixel(nn.Module):
    """As Keras flattens; of channels_last maps, which a step alone has, this is a view."""

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        return maps_NCHW.permute(0, 2, 3, 1).flatten(1)


def extent(tensor: Tensor) -> int:
    """Bytes, each number once however often it is repeated."""
    sizes = (n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride)
    return math.prod(sizes) * tensor.element_size()


class Bytes(TorchDispatchMode):
    """Adds up what every operation reads and writes: inputs and outputs, views for nothing."""

    FREE = {"detach", "alias", "_unsafe_view"}
    FREE |= {"empty", "empty_like", "new_empty", "new_empty_strided"}
    WRITES = {"zeros_like", "ones_like", "new_zeros", "zeros", "fill_", "full"}

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        if func.is_view or name in self.FREE:
            return out
        read, written = (
            sum(extent(t) for t in tree_leaves(tree) if isinstance(t, Tensor))
            for tree in ((args, kwargs), out)
        )
        match name:
            case "convolution" if args[2] is not None:  # CUDA adds a bias afterwards
                read += extent(out)
                written *= 2
            case "convolution_backward":  # a kernel for each gradient, the maps' first
                grad, maps, weight = map(extent, args[:3])
                parts = (grad + weight, grad + maps, grad)
                read = sum(part for part, wanted in zip(parts, args[-1], strict=True) if wanted)
            case "max_pool2d_with_indices_backward":  # cleared before it is filled
                read, written = extent(args[0]) + extent(args[-1]), 2 * written
            case "slice_backward":  # zeros, and the gradient copied into them
                written += read
            case "index_select":
                read = written
            case _ if name in self.WRITES:
                read = 0
        self.of[name] += read + written
        return out


def count(
    forward: Callable[[Tensor], Tensor], weights: list[Tensor], replicas: int
) -> Counter[str]:
    """Bytes of a step by operation: images gathered and scaled, forwards, backwards, Adam."""
    images = torch.empty(60000, 28, 28, dtype=torch.uint8, device=META)
    labels = torch.empty(60000, dtype=torch.int64, device=META)
    batch = torch.empty(replicas * N, dtype=torch.int64, device=META)
    with Bytes() as counted:
        pixels = images.index_select(0, batch).float().div_(255)
        target = labels.index_select(0, batch)
        logits = forward(pixels.unflatten(0, (replicas, N))).float().flatten(0, -2)
        losses = F.cross_entropy(logits, target, reduction="none")
        losses.unflatten(0, (replicas, N)).mean(1).sum().backward()
    # Adam reads weight, gradient and two moments, and writes all but the gradient.
    by_operation: Counter[str] = counted.of
    by_operation["fused Adam"] = 7 * sum(map(extent, weights))
    return by_operation


def to_bf16(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as autocast casts them."""
    return {name: weight.to(BF16) for name, weight in weights.items()}


def count_alone(spec: Spec) -> Counter[str]:
    net = network(spec, nn.Flatten())
    named = dict(net.named_parameters())
    norms = [f"{name}." for name, part in net.named_modules() if isinstance(part, nn.BatchNorm1d)]
    cast = {name: w for name, w in named.items() if not name.startswith(tuple(norms))}

    def forward(pixels_1NHW: Tensor) -> Tensor:
        maps_N1HW = pixels_1NHW.transpose(0, 1).to(BF16)
        logits_NK: Tensor = functional_call(net, {**named, **to_bf16(cast)}, (maps_N1HW,))
        return logits_NK

    return count(forward, list(named.values()), 1)


def count_vmap(spec: Spec) -> Counter[str]:
    """With weights cast before `vmap`, as autocast within it would leave the maps in fp32.

    Layout copies inside convolutions (0.66 GB for mnist_cnn) come on top.
    """
    nets = [network(spec, PixelByPixel()) for _ in range(R)]
    weights, _ = stack_module_state(nets)

    def one(weights: dict[str, Tensor], maps_N1HW: Tensor) -> Tensor:
        logits_NK: Tensor = functional_call(nets[0], weights, (maps_N1HW,))
        return logits_NK

    def forward(pixels_RNHW: Tensor) -> Tensor:
        maps = pixels_RNHW.unsqueeze(2).to(BF16)
        logits_RNK: Tensor = vmap(one, randomness="different")(to_bf16(weights), maps)
        return logits_RNK

    return count(forward, list(weights.values()), R)


def count_by_hand(spec: Spec, way: str) -> Counter[str]:
    """Convolutions as `grouped` ones of R groups, or as `im2col` and a batched product."""
    weights: dict[str, Tensor] = {}
    for layer in layers(spec):
        weight = torch.empty(R, layer.kernel**2 * layer.inputs, layer.outputs, device=META)
        bias = torch.empty(R, 1, layer.outputs, device=META)
        if way == "grouped" and layer.name.startswith("conv"):
            sizes = (R * layer.outputs, layer.inputs, layer.kernel, layer.kernel)
            weight = torch.empty(sizes, device=META, memory_format=torch.channels_last)
            bias = torch.empty(R * layer.outputs, device=META)
        weights[layer.name] = weight.requires_grad_()
        weights[layer.name + ".bias"] = bias.requires_grad_()

    def convolve(maps: Tensor, layer: Layer, cast: dict[str, Tensor]) -> Tensor:
        weight, bias = cast[layer.name], cast[layer.name + ".bias"]
        if way == "grouped":
            return F.conv2d(maps, weight, bias, groups=R)
        P, k, maps_NHWC = layer.after, layer.kernel, maps.permute(0, 2, 3, 1)
        taps = [maps_NHWC[:, i : i + P, j : j + P] for i in range(k) for j in range(k)]
        columns = torch.cat(taps, 3).view(R, N * P * P, -1)
        return torch.baddbmm(bias, columns, weight).view(R * N, P, P, -1).permute(0, 3, 1, 2)

    def forward(pixels_RNHW: Tensor) -> Tensor:
        cast, maps = to_bf16(weights), pixels_RNHW.to(BF16)
        if way == "grouped":
            maps = maps.transpose(0, 1).contiguous(memory_format=torch.channels_last)
        else:
            maps = maps.flatten(0, 1)[:, None]
        *hidden, output = layers(spec)
        for layer in hidden:
            if layer.name.startswith("conv"):
                maps = convolve(maps, layer, cast)
                maps = F.relu(F.max_pool2d(maps, 2) if layer.pooled else maps)
                continue
            if layer.name == "dense1":
                maps_NHWC = maps.permute(0, 2, 3, 1)
                if way == "grouped":  # (N, H, W, R, C) to (R, N, H W C)
                    maps_NHWC = maps_NHWC.unflatten(3, (R, -1)).permute(3, 0, 1, 2, 4)
                maps = torch.native_dropout(maps_NHWC.reshape(R, N, -1), 0.25, True)[0]
            product = torch.baddbmm(cast[layer.name + ".bias"], maps, cast[layer.name])
            maps = torch.native_dropout(F.relu(product), spec.dropout, True)[0]
        return torch.baddbmm(cast[output.name + ".bias"], maps, cast[output.name])

    return count(forward, list(weights.values()), R)


def fused(spec: Spec) -> int:
    """Bytes of one replica where one kernel does all between two products, both ways.

    Convolutions write their sums and one kernel follows them; a pooling keeps a byte for each
    maximum, a dropout one for each number; Adam writes the bf16 copies of the weights too.
    """
    total, dropout = 0, True
    for layer in layers(spec):
        convolves = layer.name.startswith("conv")
        before = 2 * N * layer.inputs * layer.before**2
        sums = 2 * N * layer.outputs * layer.after**2
        after = 2 * N * layer.outputs * layer.left**2
        weight = layer.kernel**2 * layer.inputs * layer.outputs
        kept = after // 2 * (layer.pooled + (not convolves and dropout))
        total += before + 2 * weight + sums  # forwards
        total += sums + after + kept  # bias, pooling, ReLU, dropout
        total += after + kept + after + sums  # their gradients
        total += sums + before + 2 * weight  # the weight's
        if layer.name != "conv1":
            total += sums + 2 * weight + before
        total += 28 * weight
    return total


def flops(spec: Spec) -> int:
    """Of one replica: three products a layer, but no gradient of the images."""
    return sum(layer.flops * (2 if layer.name == "conv1" else 3) for layer in layers(spec))


def fit() -> tuple[float, float, float]:
    """Seconds per kernel, byte and FLOP: least squares of relative errors over the steps alone."""
    rows = [
        (STEPS[name][0], count_alone(spec).total(), flops(spec)) for name, spec in NETWORKS.items()
    ]
    measured = torch.tensor([STEPS[name][1] / 1e3 for name in NETWORKS], dtype=torch.float64)
    matrix = torch.tensor(rows, dtype=torch.float64)
    scaled = matrix / measured[:, None] / matrix.mean(0)
    ones = torch.ones(len(rows), 1, dtype=torch.float64)
    costs = torch.linalg.lstsq(scaled, ones).solution.flatten() / matrix.mean(0)
    kernel, byte, flop = costs.tolist()
    print(f"\n{kernel * 1e6:.1f} us a kernel, {1e-12 / byte:.1f} TB/s, {1e-12 / flop:.0f} TFLOP/s")
    print("\n| network | kernels | MB | GFLOP | ms, fitted | measured |")
    for name, row, ms in zip(NETWORKS, rows, (matrix @ costs * 1e3).tolist(), strict=True):
        print(
            f"| {name} | {row[0]} | {row[1] / 1e6:.0f} | {row[2] / 1e9:.1f} "
            f"| {ms:.3f} | {STEPS[name][1]} |"
        )
    for name, (_, ms) in BRANCHES.items():
        spec = NETWORKS[name]
        rest = ms / 1e3 - R * (count_alone(spec).total() * byte + flops(spec) * flop)
        print(f"{name}: {rest / R / STEPS[name][0] * 1e6:.1f} us a kernel in 16 branches")
    return kernel, byte, flop


def main() -> None:
    print("| layer | GFLOP of 16: forward, images, weights | at the peak | GB | at HBM, ms |")
    for name in ("mnist_cnn", "cnn5x5_single"):
        for layer in layers(NETWORKS[name]):
            first = layer.name == "conv1"
            gflop = [R * layer.flops * (not first or i != 1) / 1e9 for i in range(3)]
            maps = N * (layer.inputs * layer.before**2 + layer.outputs * layer.after**2)
            weight = layer.kernel**2 * layer.inputs * layer.outputs
            size = (2 if first else 3) * 2 * R * (maps + weight)  # each product meets all three
            print(
                f"| {name} {layer.name} | {gflop[0]:.1f} {gflop[1]:.1f} {gflop[2]:.1f} "
                f"| {sum(gflop) * 1e12 / MATRIX:.3f} | {size / 1e9:.3f} | {size / HBM * 1e3:.3f} |"
            )
    print("\n| operation of mnist_cnn, grouped | GB |")
    for operation, moved in count_by_hand(NETWORKS["mnist_cnn"], "grouped").most_common(12):
        print(f"| {operation} | {moved / 1e9:.2f} |")
    kernel, byte, flop = fit()
    print("\n| 16 of | way | kernels | GB | at HBM | ms predicted | of 16 alone | TFLOP/s needed |")
    for name in ("mnist_cnn", "cnn5x5_single"):
        spec, alone = NETWORKS[name], R * BRANCHES[name][0] / 1e3
        rows = {
            "as many alone": (R * STEPS[name][0], R * count_alone(spec).total()),
            "autocast": (NODES[name]["autocast"], AUTOCAST[name]),
            "vmap": (NODES[name]["vmap"], count_vmap(spec).total()),
            "grouped": (NODES[name]["grouped"], count_by_hand(spec, "grouped").total()),
            "im2col": (NODES[name]["im2col"], count_by_hand(spec, "im2col").total()),
            "fused": (FUSED, R * fused(spec)),
        }
        for way, (kernels, size) in rows.items():
            rest = kernels * kernel + size * byte
            seconds, left = rest + R * flops(spec) * flop, alone / 4 - rest
            needed = f"{R * flops(spec) / left / 1e12:.0f}" if left > 0 else "-"
            print(
                f"| {name} | {way} | {kernels} | {size / 1e9:.2f} | {size / HBM * 1e3:.2f} "
                f"| {seconds * 1e3:.2f} | {seconds / alone:.2f} | {needed} |"
            )


if __name__ == "__main__":
    main()
