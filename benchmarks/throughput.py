"""Training throughput of every network: ours, Keras on its three back ends, PyTorch, Lightning.

    make throughput                        all nine networks, in fp32 and in bf16
    make throughput ARGS="mnist_cnn --precision fp32"

in an environment of its own: TensorFlow and JAX do not share a process with the tests' packages.

Everyone trains the same network with Adam, batch 128, in a process of its own
(`benchmarks/contenders.py`); they take turns, a round of about a second each, so that a busy moment
of the machine strikes all of them. Results go to benchmarks/results/throughput-<device>.csv as they
come, one network and precision after the other; what is there already is not measured again. The
table and the plot beside it are made from that file.
"""

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contenders import CONTENDERS
from benchmarks.step import MODELS, ROOT, device_name, file_name_part, in_plain_layers
from mnist_bench.config.compose import compose
from mnist_bench.config.read import to_config
from mnist_bench.loggers.console import info
from mnist_bench.models import build_network
from mnist_bench.runs.records import provenance
from mnist_bench.training.device import find_placement

ROUNDS = 5
ROUND_SECONDS = 1.0
# Rows and columns of the matrices whose product tells what a device can do.
PEAK_SIZE = {"cpu": 3000, "cuda": 8192}
EPOCH_STEPS = 468
OURS_AUTO = "ours, auto"


@dataclass(frozen=True)
class Row:
    """One contender's speed. `share_of_peak` is of the direct sums' operations, whoever computes
    them in another way, and of the matrix product in the same precision."""

    network: str
    precision: str
    contender: str
    batch_size: int
    ms_per_step: float
    images_per_second: float
    share_of_peak: float
    # The median over the rounds of (this one's time / ours in the same precision).
    times_ours: float
    device: str
    torch: str
    commit: str
    date: str


class ContenderError(Exception):
    """The last line that a contender's process left when it ended."""


class Contender:
    """A process that trains when it is told to."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]):
        self.process = process
        self.errors = errors

    def train(self, steps: int) -> float:
        """Seconds per step."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return float(self._answer()) / steps

    def wait_until_ready(self) -> None:
        while self._answer() != "ready":
            pass

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise ContenderError((self.errors.read().splitlines() or ["no message"])[-1])
        return line.strip()


@contextmanager
def contender(model: str, name: str, precision: str, batch_size: int) -> Iterator[Contender]:
    command = [sys.executable, "-m", "benchmarks.contenders", name, model, precision]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [*command, str(batch_size)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            yield Contender(process, errors)
        finally:
            process.kill()
            process.wait()


def measure(model: str, precision: str, batch_size: int) -> list[Row]:
    """All contenders for one network, in turns."""
    times: dict[str, list[float]] = {}
    peaks: list[float] = []
    with ExitStack() as stack:
        running: dict[str, tuple[Contender, int]] = {}
        for name in [*CONTENDERS, OURS_AUTO]:
            who = ("ours", "auto") if name == OURS_AUTO else (name, precision)
            entered = stack.enter_context(contender(model, *who, batch_size))
            try:
                entered.wait_until_ready()
                entered.train(3)
                steps = round(ROUND_SECONDS / entered.train(3))
            except ContenderError as error:
                info(f"{model} {precision}: {name} is left out: {error}")
                continue
            running[name] = entered, min(max(steps, 3), EPOCH_STEPS)
            times[name] = []
        for _ in range(ROUNDS):
            peaks.append(matrix_peak(precision))
            for name, (each, steps) in running.items():
                times[name].append(each.train(steps))
    versions, operations = provenance(), step_operations(model, batch_size)
    rows = []
    for name, seconds in times.items():
        median = statistics.median(seconds)
        row = Row(
            network=model,
            precision=precision,
            contender=name,
            batch_size=batch_size,
            ms_per_step=median * 1e3,
            images_per_second=batch_size / median,
            share_of_peak=operations / median / statistics.median(peaks),
            times_ours=statistics.median(
                theirs / our for theirs, our in zip(seconds, times["ours"], strict=True)
            ),
            device=device_name(),
            torch=versions["versions"]["torch"],
            commit=versions["git_commit"],
            date=versions["started"][:10],
        )
        info(f"{model} {precision} {name}: {row.ms_per_step:.1f} ms, {row.times_ours:.2f} of ours")
        rows.append(row)
    return rows


def matrix_peak(precision: str) -> float:
    """Operations per second of a large matrix product, the best of three."""
    device = find_placement(to_config(compose([])[0]).trainer).device
    size = PEAK_SIZE[device.type]
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds[1:])


def step_operations(model: str, batch_size: int) -> int:
    """Multiplications and additions of a step, forward and back, summed directly."""
    with torch.device("meta"):
        network = in_plain_layers(build_network(to_config(compose([f"model={model}"])[0]).model))
        images = torch.empty(batch_size, 1, 28, 28)
    with FlopCounterMode(display=False) as counter:
        network(images).sum().backward()
    return int(counter.get_total_flops())


# --- Files ------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            Row(**{name: Row.__annotations__[name](text) for name, text in line.items()})
            for line in csv.DictReader(file)
        ]


def write_rows(path: Path, rows: list[Row]) -> None:
    beside = path.with_suffix(".partial")
    with beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(Row.__annotations__), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            numbers = {k: f"{v:.5g}" for k, v in asdict(row).items() if isinstance(v, float)}
            writer.writerow(asdict(row) | numbers)
    beside.replace(path)


def as_markdown(rows: list[Row]) -> str:
    """The two ratios that count, and a table of times per step for each precision."""
    lines = [
        f"# Training throughput on {rows[0].device}",
        "",
        "Written by `python -m benchmarks.throughput` from the file of the same name in `.csv`, "
        f"which has date, commit and torch's version of each row. Batch {rows[0].batch_size}, "
        f"Adam, medians of {ROUNDS} rounds in turns.",
        "",
        "*Share of peak* is of the operations of direct sums in ours, over those of a large matrix "
        "product in the same precision; it passes 100 % where a convolution is computed by "
        "Winograd's products or in the frequency domain, which take fewer.",
    ]
    lines += against_keras(rows)
    names = [*CONTENDERS, OURS_AUTO]
    columns = [name.replace("_", " ") for name in names]
    columns += ["share of peak"]
    for precision in ("fp32", "bf16"):
        some = {(r.network, r.contender): r for r in rows if r.precision == precision}
        if not some:
            continue
        lines += [
            "",
            f"## {precision}",
            "",
            f"Milliseconds per step. *{OURS_AUTO}* is `trainer.precision=auto`.",
            "",
            f"| network | {' | '.join(columns)} |",
            "| --- |" + " ---: |" * len(columns),
        ]
        for network in sorted({network for network, _ in some}):
            of = {name: some[network, name] for name in names if (network, name) in some}
            cells = [f"{of[name].ms_per_step:.1f}" if name in of else "-" for name in names]
            share = f"{of['ours'].share_of_peak:.0%}"
            lines.append(f"| `{network}` | {' | '.join([*cells, share])} |")
    return "\n".join(lines) + "\n"


def against_keras(rows: list[Row]) -> list[str]:
    """How many times the images per second of Keras at its fastest, per network."""
    lines = [
        "",
        "## Ours over Keras",
        "",
        "Images per second over those of the fastest Keras: in fp32, and of "
        "`trainer.precision=auto` over Keras's best in any precision. Medians of the ratios of "
        "each round, as rounds differ by more than the contenders.",
        "",
        "| network | fp32 | auto / any precision |",
        "| --- | ---: | ---: |",
    ]
    for network in sorted({row.network for row in rows}):
        of = [row for row in rows if row.network == network]
        fp32 = [row for row in of if row.precision == "fp32"]
        both = [keras_over(fp32, "ours"), keras_over(of, OURS_AUTO)]
        cells = [f"{min(ratios):.2f}" if ratios else "-" for ratios in both]
        lines.append(f"| `{network}` | {' | '.join(cells)} |")
    return lines


def keras_over(rows: list[Row], name: str) -> list[float]:
    """The time of each Keras over that of the contender `name` in the same turns."""
    times = {row.precision: row.times_ours for row in rows if row.contender == name}
    keras = [row for row in rows if row.contender.startswith("keras")]
    return [row.times_ours / times[row.precision] for row in keras]


def draw(rows: list[Row], path: Path) -> None:
    """Images per second of each contender, as a multiple of ours, per network and precision."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    precisions = sorted({row.precision for row in rows}, reverse=True)
    networks = sorted({row.network for row in rows})
    figure, axes = plt.subplots(
        1, len(precisions), figsize=(6 * len(precisions), 0.6 * len(networks) + 2), squeeze=False
    )
    for axis, precision in zip(axes[0], precisions, strict=True):
        for i, name in enumerate(CONTENDERS):
            some = [r for r in rows if r.precision == precision and r.contender == name]
            axis.barh(
                [networks.index(r.network) + 0.1 * (i - 3) for r in some],
                [r.images_per_second for r in some],
                height=0.1,
                label=name.replace("_", " "),
            )
        axis.set(title=precision, xlabel="images per second", xscale="log")
        axis.set_yticks(range(len(networks)), networks)
        axis.invert_yaxis()
    axes[0][-1].legend(loc="lower right", fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("models", nargs="*", default=MODELS, help="networks; all nine by default")
    parser.add_argument("--precision", nargs="*", default=["fp32", "bf16"], help="fp32, bf16")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--folder", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()

    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"throughput-{file_name_part(device_name())}.csv"
    rows = read_rows(path)
    done = {(row.network, row.precision, row.batch_size) for row in rows}
    for model in arguments.models:
        for precision in arguments.precision:
            if (model, precision, arguments.batch_size) not in done:
                rows += measure(model, precision, arguments.batch_size)
                write_rows(path, rows)
    if not rows:
        sys.exit("Nobody could be measured.")
    path.with_suffix(".md").write_text(as_markdown(rows))
    draw(rows, path.with_suffix(".png"))
    info(f"Written to {path.with_suffix('.md')}")


if __name__ == "__main__":
    main()
