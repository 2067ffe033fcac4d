"""A made-up sweep of two kernel sizes and two dropout rates, and a report on it."""

from pathlib import Path

from benchmarks.reading import write_sweep
from mnist_bench.analysis.collect import collect
from mnist_bench.analysis.report import Options
from mnist_bench.analysis.report.build import Report, build

AXES = {"model.kernel_size": [3, 5], "model.dropout": [0.0, 0.25]}


def better_by_kernel(settings: dict[str, float]) -> float:
    return 0.98 + 0.004 * (settings["model.kernel_size"] == 5)


def write_kernels(folder: Path) -> Path:
    """Write 2 x 2 settings of four seeds; 5 is truly better than 3."""
    write_sweep(folder, AXES, 4, better_by_kernel, std=0.0008, images=4000)
    return folder


def built(sweep: Path, **options: object) -> Report:
    return build(collect([sweep]), Options(**options))  # type: ignore[arg-type]
