"""What a step computes on CUDA, in every precision, against float64 on the CPU.

Each tensor (logits, loss, every gradient) may err by three times what plain PyTorch errs by on the
CPU in the same precision, or by three roundings of its own type where that is more. Biases are away
from zero: over an image's background, zero biases make pre-activations that are exactly zero, and
what a ReLU does with the rounding errors there is chance.
"""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.step import MODELS, in_plain_layers
from mnist_bench.config.schema import TrainConfig
from mnist_bench.data.images import Images
from mnist_bench.data.splits import ImageSet, split_images
from mnist_bench.training.device import find_placement
from mnist_bench.training.learner import build_learner

Compose = Callable[..., TrainConfig]

IMAGES = 32
# What rounding to a type can move a number by, as a share of it.
ROUNDING = {"fp32": 2.0**-24, "tf32": 2.0**-11, "bf16": 2.0**-8, "fp16": 2.0**-11}
# fp16 has nothing below 6e-8: the loss is scaled, as in training, so that gradients are above.
SCALE = 2.0**12


def errors(found: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """The norm of the error as a share of the norm, of each tensor."""
    return {
        name: ((found[name].double().cpu() - value).norm() / value.norm()).item()
        for name, value in exact.items()
    }


def compute(network: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    logits = network(images)
    loss = F.cross_entropy(logits if logits.dtype is torch.float64 else logits.float(), labels)
    (loss * SCALE).backward()
    return torch.cat([logits.detach().double().flatten(), loss.detach().double().view(1)])


def tensors(network: nn.Module, outputs: Tensor) -> dict[str, Tensor]:
    """Logits, loss, and gradients in the order of the parameters."""
    gradients = {f"gradient {i}": p.grad / SCALE for i, p in enumerate(network.parameters())}
    return {"logits": outputs[:-1], "loss": outputs[-1:], **gradients}


class RoundToTf32(torch.autograd.Function):
    """A product's factors as a GPU's matrix units take them: the nearest number of 10 bits."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        bits = x.contiguous().view(torch.int32)
        odd = (bits >> 13) & 1
        return ((bits + 0xFFF + odd) & ~0x1FFF).view(torch.float32).view_as(x)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad


class RoundGradientToTf32(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return RoundToTf32.forward(ctx, grad)


def in_tf32(plain: nn.Module, images: Tensor) -> Tensor:
    """The plain network on a CPU, its products those of a GPU in TF32."""
    maps = images
    for layer in plain:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weight = RoundToTf32.apply(layer.weight)
            product = torch.func.functional_call(
                layer,
                {"weight": weight, "bias": torch.zeros_like(layer.bias)},
                RoundToTf32.apply(maps),
            )
            bias = layer.bias if product.ndim == 2 else layer.bias[:, None, None]
            maps = RoundGradientToTf32.apply(product) + bias
        else:
            maps = layer(maps)
    return maps


def take_step(
    compose: Compose, images: Images, model: str, device: str, precision: str
) -> tuple[dict[str, float], dict[str, float]]:
    """The errors of our network on a device, and those of plain PyTorch on the CPU."""
    config = compose(
        f"model={model}",
        "model.dropout=0",
        f"trainer.precision={precision}",
        f"trainer.gpus={device}",
    )
    placement = find_placement(config.trainer)
    splits = split_images(images, config.data)
    learner = build_learner(config, placement, splits.to(placement.device))
    network = learner.network.train()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.1)
    plain = in_plain_layers(copy.deepcopy(network).cpu()).train()
    exact, alike = copy.deepcopy(plain).double(), copy.deepcopy(plain)

    chosen: ImageSet = splits.train[:IMAGES]
    inputs, labels = splits.scaling(chosen.images), chosen.labels
    reference = tensors(exact, compute(exact, inputs.double(), labels))
    if precision == "tf32":
        theirs = compute(lambda x: in_tf32(alike, x), inputs, labels)
    else:
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            theirs = compute(alike, inputs, labels)
    with placement.autocast():
        ours = compute(network, inputs.to(placement.device), labels.to(placement.device))

    # The plain network's dense layer behind the maps reads them channel by channel, ours pixel by
    # pixel: gradients are compared in our order.
    reference, expected = (
        in_our_order(one, plain, network) for one in (reference, tensors(alike, theirs))
    )
    return errors(tensors(network, ours.cpu()), reference), errors(expected, reference)


def in_our_order(
    of_plain: dict[str, Tensor], plain: nn.Module, network: nn.Module
) -> dict[str, Tensor]:
    channels = [layer.out_channels for layer in plain if isinstance(layer, nn.Conv2d)][-1]
    names = [name for name, _ in network.named_parameters()]
    first = next(i for i, name in enumerate(names) if name.startswith("classifier."))
    key = f"gradient {first}"
    gradient_OCS = of_plain[key].unflatten(1, (channels, -1))
    return {**of_plain, key: gradient_OCS.transpose(1, 2).flatten(1)}


def assert_as_exact(ours: dict[str, float], theirs: dict[str, float], precision: str) -> None:
    # One number, as the loss is, can be right by luck; it follows the logits.
    theirs = {**theirs, "loss": max(theirs["loss"], theirs["logits"])}
    bad = {
        name: (error, theirs[name])
        for name, error in ours.items()
        if not error <= 3 * max(theirs[name], ROUNDING[precision])
    }
    assert not bad


@pytest.mark.needs_cuda
@pytest.mark.parametrize("precision", list(ROUNDING))
@pytest.mark.parametrize("model", MODELS)
def test_cuda_errs_as_little_as_plain_pytorch(
    compose: Compose, images: Images, model: str, precision: str
) -> None:
    assert_as_exact(*take_step(compose, images, model, "1", precision), precision)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model", ["cnn5x5_single", "wide3x5_bn"])
def test_so_do_our_layers_on_the_cpu(
    compose: Compose, images: Images, model: str, precision: str
) -> None:
    assert_as_exact(*take_step(compose, images, model, "0", precision), precision)


def test_the_tf32_that_cuda_is_compared_with_rounds_to_ten_bits() -> None:
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    mantissa, exponent = torch.frexp(x.double())
    expected = torch.ldexp((mantissa * 2**11).round() / 2**11, exponent).float()
    assert torch.equal(RoundToTf32.apply(x), expected)
