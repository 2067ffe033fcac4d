"""What a training step costs, ours beside the same step written by hand in plain PyTorch.

    python -m benchmarks.step                          all nine networks, where auto places them
    python -m benchmarks.step mnist_cnn wide3x3        some of them
    python -m benchmarks.step --write                  and write benchmarks/results/step-<device>.md

Both sides use the same precision, layout, batch and fused Adam. Ours also gathers the batch from
the uint8 images, scales it, steps the schedule and keeps the running loss and accuracy. Rounds of
the two alternate, and the ratio is the median over the rounds' own ratios.
"""

import argparse
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from mnist_bench.config import TrainConfig, register_schemas, to_config
from mnist_bench.prepare import prepare
from mnist_bench.records import provenance
from mnist_bench.run import build_learner
from mnist_bench.screen import say

ROOT = Path(__file__).parents[1]
MODELS = sorted(path.stem for path in (ROOT / "conf" / "model").glob("*.yaml"))
ROUNDS = 7
# A round is at least this long, so that a clock tick or a passing process does not decide it.
ROUND_SECONDS = 1.0


@dataclass(frozen=True)
class Measurement:
    model: str
    precision: str
    batch_size: int
    ours_ms: float
    plain_ms: float
    ratio: float

    @property
    def images_per_second(self) -> float:
        return self.batch_size / self.ours_ms * 1e3


def measure(model: str, overrides: list[str]) -> tuple[Measurement, str]:
    """Time one network; returns the figures and the device's name."""
    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = to_config(compose("train", overrides=[f"model={model}", *overrides]))
    ours, plain, precision, device_name, synchronize = build_steps(config)

    steps = calibrate(plain, synchronize)
    calibrate(ours, synchronize)
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(ROUNDS):
        times["ours"].append(time_steps(ours, steps, synchronize))
        times["plain"].append(time_steps(plain, steps, synchronize))
    ratios = [a / b for a, b in zip(times["ours"], times["plain"], strict=True)]
    measurement = Measurement(
        model,
        precision,
        config.trainer.batch_size,
        statistics.median(times["ours"]) * 1e3,
        statistics.median(times["plain"]) * 1e3,
        statistics.median(ratios),
    )
    return measurement, device_name


def build_steps(
    config: TrainConfig,
) -> tuple[Callable[[], None], Callable[[], None], str, str, Callable[[], None]]:
    """Our step and the plain one, each a function that takes one step on the first batch."""
    prepared = prepare(config, say)
    placement = prepared.placement
    splits = prepared.splits.to(placement.device)
    learner = build_learner(config, placement, splits)
    totals = learner.new_totals()
    batch = torch.arange(config.trainer.batch_size, device=placement.device)

    def ours() -> None:
        learner.step(splits.train.images[batch], splits.train.labels[batch], totals)

    images, labels = splits.scaling(splits.train.images[batch]), splits.train.labels[batch]
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(placement.precision.name)
    network = build_learner(config, placement, splits).network
    plain = plain_step(network, images, labels, config.optimizer.lr, dtype)
    return ours, plain, placement.precision.name, placement.device_name, placement.synchronize


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


def calibrate(step: Callable[[], None], synchronize: Callable[[], None]) -> int:
    """Warm up, and find how many steps make a round."""
    time_steps(step, 3, synchronize)
    return max(3, round(ROUND_SECONDS / time_steps(step, 3, synchronize)))


def time_steps(step: Callable[[], None], count: int, synchronize: Callable[[], None]) -> float:
    """Seconds per step."""
    synchronize()
    start = time.perf_counter()
    for _ in range(count):
        step()
    synchronize()
    return (time.perf_counter() - start) / count


def as_markdown(measurements: list[Measurement], device_name: str, command: str) -> str:
    versions = provenance()
    lines = [
        f"# Training step on {device_name}",
        "",
        f"`{command}` on {versions['started'][:10]}, commit {versions['git_commit']}, "
        f"torch {versions['versions']['torch']}, Python {versions['versions']['python']}. "
        f"Medians of {ROUNDS} rounds of at least {ROUND_SECONDS:g} s, ours and plain in turn; "
        "the ratio is the median of the rounds' ratios.",
        "",
        "| network | precision | batch | ours, ms/step | plain PyTorch, ms/step | ours / plain "
        "| ours, images/s |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| `{m.model}` | {m.precision} | {m.batch_size} | {m.ours_ms:.2f} | {m.plain_ms:.2f} "
        f"| {m.ratio:.3f} | {m.images_per_second:,.0f} |"
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
            say(
                f"{m.model} {m.precision}: {m.ours_ms:.2f} ms, plain {m.plain_ms:.2f} ms, "
                f"ratio {m.ratio:.3f}, {m.images_per_second:,.0f} images/s"
            )
    if arguments.write:
        command = f"python -m benchmarks.step --precision {' '.join(arguments.precision)}"
        arguments.write.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"\W+", "-", device_name).strip("-").lower()
        path = arguments.write / f"step-{name}.md"
        path.write_text(as_markdown(measurements, device_name, command))
        say(f"Written to {path}")


if __name__ == "__main__":
    main()
