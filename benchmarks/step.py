"""What a training step costs, ours beside the same step written by hand in plain PyTorch.

    python -m benchmarks.step                          all nine networks, where auto places them
    python -m benchmarks.step mnist_cnn wide3x3        some of them
    python -m benchmarks.step --write                  and write benchmarks/results/step-<device>.md

Both sides use the same precision, layout (channels_last), batch and fused Adam. Plain pools behind
the ReLU and drops with `nn.Dropout`, as anyone would write it. Ours also gathers
the batch from the uint8 images, scales it, steps the schedule and keeps the running loss and
accuracy. A third contender is the plain step in PyTorch's default layout, and on CUDA a fourth is
ours without CUDA graphs. Rounds of all alternate, and ratios are medians over the rounds' own.
"""

import argparse
import copy
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnist_bench.config.compose import CONF, compose
from mnist_bench.config.read import to_config
from mnist_bench.config.schema import Kernels, TrainConfig
from mnist_bench.data.splits import Splits
from mnist_bench.loggers.console import info
from mnist_bench.models import ConvNet
from mnist_bench.runs.prepare import Prepared, prepare
from mnist_bench.runs.records import provenance
from mnist_bench.training.device import Placement, find_placement, keep_freed_memory
from mnist_bench.training.graphs import Stepper
from mnist_bench.training.learner import build_learner

ROOT = Path(__file__).parents[1]
# The published networks: those that have a recipe of their own name.
MODELS = sorted(
    path.stem
    for path in (CONF / "model").glob("*.yaml")
    if (CONF / "experiment" / path.name).exists()
)
ROUNDS = 7
# Steps before the first round.
WARM_UP_STEPS = 6
# A round is about this long or longer, so that a passing process does not decide it.
ROUND_SECONDS = {"cpu": 1.0, "cuda": 0.2}


@dataclass(frozen=True)
class Measurement:
    model: str
    precision: str
    batch_size: int
    ours_ms: float
    plain_ms: float
    default_layout_ms: float
    without_graph_ms: float | None  # on CUDA only
    ratio: float

    @property
    def images_per_second(self) -> float:
        return self.batch_size / self.ours_ms * 1e3


def measure(model: str, overrides: list[str]) -> tuple[Measurement, str]:
    """Time one network; returns the figures and the device's name."""
    config = to_config(compose([f"model={model}", *overrides])[0])
    prepared = prepare(config, info)
    placement = prepared.placement
    steps = build_steps(config, prepared)
    seconds = ROUND_SECONDS[placement.device.type]
    count = min(calibrate(step, placement.synchronize, seconds) for step in steps.values())
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            times[name].append(time_steps(step, count, placement.synchronize))
    ratios = [a / b for a, b in zip(times["ours"], times["plain"], strict=True)]
    medians = {name: statistics.median(seconds) * 1e3 for name, seconds in times.items()}
    measurement = Measurement(
        model,
        placement.precision.name,
        config.trainer.batch_size,
        medians["ours"],
        medians["plain"],
        medians["default layout"],
        medians.get("without graph"),
        statistics.median(ratios),
    )
    return measurement, placement.device_name


def build_steps(config: TrainConfig, prepared: Prepared) -> dict[str, Callable[[], None]]:
    """The contenders by name, each a function that takes one step on the first batch."""
    placement = prepared.placement
    splits = prepared.splits.to(placement.device)
    keep_freed_memory()  # as train.py does; whoever is in the process has it
    contenders = {
        "ours": our_step(config, placement, splits),
        **plain_steps(config, placement, splits),
    }
    if placement.device.type == "cuda":
        without = replace(config, trainer=replace(config.trainer, cuda_graphs=False))
        contenders["without graph"] = our_step(without, placement, splits)
    return contenders


def our_step(config: TrainConfig, placement: Placement, splits: Splits) -> Callable[[], None]:
    """A step of `train.py`, warmed up as it does; `splits` are on the device."""
    learner = build_learner(config, placement, splits)
    stepper = Stepper(learner, splits.train, learner.new_totals())
    stepper.warm_up([config.trainer.batch_size])
    batch_N = torch.arange(config.trainer.batch_size, device=placement.device)
    return lambda: stepper.step(batch_N)


def plain_steps(
    config: TrainConfig, placement: Placement, splits: Splits
) -> dict[str, Callable[[], None]]:
    """The same step in plain PyTorch, channels_last and in the default layout."""
    batch_N = torch.arange(config.trainer.batch_size, device=placement.device)
    images, labels = splits.scaling(splits.train.images[batch_N]), splits.train.labels[batch_N]
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(placement.precision.name)
    off = replace(config, trainer=replace(config.trainer, kernels=Kernels.off))
    network = in_plain_layers(build_learner(off, placement, splits).network)
    default_layout = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    lr = config.optimizer.lr
    return {
        "plain": plain_step(network, images, labels, lr, dtype),
        "default layout": plain_step(default_layout, images, labels, lr, dtype),
    }


def in_plain_layers(network: nn.Module) -> nn.Module:
    """A copy of a network, not accelerated, as anyone would write it: one plain chain of layers."""
    assert isinstance(network, ConvNet)
    copied = copy.deepcopy(network)
    plain = nn.Sequential(*copied.features, nn.Flatten(), *copied.classifier)
    # `nn.Flatten` runs over channels first.
    channels = [layer.out_channels for layer in plain if isinstance(layer, nn.Conv2d)][-1]
    dense = next(layer for layer in plain if isinstance(layer, nn.Linear))
    weight_OSC = dense.weight.detach().unflatten(1, (-1, channels))
    dense.weight = nn.Parameter(weight_OSC.transpose(1, 2).flatten(1))
    return plain


def plain_step(
    network: nn.Module, images: Tensor, labels: Tensor, lr: float, dtype: torch.dtype | None
) -> Callable[[], None]:
    """The step that anyone would write."""
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, fused=True)
    scaler = torch.amp.GradScaler(images.device.type, enabled=dtype is torch.float16)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(images.device.type, dtype=dtype, enabled=dtype is not None):
            loss = F.cross_entropy(network(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


def calibrate(step: Callable[[], None], synchronize: Callable[[], None], seconds: float) -> int:
    """Warm up, and find how many steps make a round of so many seconds."""
    time_steps(step, WARM_UP_STEPS, synchronize)
    return max(3, round(seconds / time_steps(step, 3, synchronize)))


def time_steps(step: Callable[[], None], count: int, synchronize: Callable[[], None]) -> float:
    """Seconds per step."""
    synchronize()
    start = time.perf_counter()
    for _ in range(count):
        step()
    synchronize()
    return (time.perf_counter() - start) / count


def device_name() -> str:
    """Of the device that `trainer.gpus=auto` finds."""
    return find_placement(to_config(compose([])[0]).trainer).device_name


def file_name_part(device_name: str) -> str:
    """A device's name with nothing in it but small letters, digits and hyphens."""
    return re.sub(r"\W+", "-", device_name).strip("-").lower()


def as_markdown(measurements: list[Measurement], device_name: str, command: str) -> str:
    versions = provenance()
    lines = [
        f"# Training step on {device_name}",
        "",
        f"`{command}` on {versions['started'][:10]}, commit {versions['git_commit']}, "
        f"torch {versions['versions']['torch']}, Python {versions['versions']['python']}. "
        f"Medians of {ROUNDS} rounds in turn; the ratio is the median of the rounds' ratios.",
        "",
        "| network | precision | batch | ours, ms/step | plain PyTorch, ms/step | ours / plain "
        "| plain in the default layout, ms/step | ours without CUDA graphs, ms/step "
        "| ours, images/s |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| `{m.model}` | {m.precision} | {m.batch_size} | {m.ours_ms:.2f} | {m.plain_ms:.2f} "
        f"| {m.ratio:.3f} | {m.default_layout_ms:.2f} "
        f"| {'-' if m.without_graph_ms is None else f'{m.without_graph_ms:.2f}'} "
        f"| {m.images_per_second:,.0f} |"
        for m in measurements
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("models", nargs="*", default=MODELS, help="networks; all nine by default")
    parser.add_argument("--precision", nargs="*", default=["auto"], help="auto, fp32, bf16, fp16")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--write", type=Path, nargs="?", const=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()

    measurements = []
    device_name = ""
    for model in arguments.models:
        for precision in arguments.precision:
            batch = f"trainer.batch_size={arguments.batch_size}"
            m, device_name = measure(model, [f"trainer.precision={precision}", batch])
            measurements.append(m)
            info(
                f"{m.model} {m.precision}: {m.ours_ms:.2f} ms, plain {m.plain_ms:.2f} ms, "
                f"ratio {m.ratio:.3f}, default layout {m.default_layout_ms:.2f} ms, "
                f"{m.images_per_second:,.0f} images/s"
            )
    if arguments.write:
        command = f"python -m benchmarks.step --precision {' '.join(arguments.precision)}"
        arguments.write.mkdir(parents=True, exist_ok=True)
        path = arguments.write / f"step-{file_name_part(device_name)}.md"
        path.write_text(as_markdown(measurements, device_name, command))
        info(f"Written to {path}")


if __name__ == "__main__":
    main()
