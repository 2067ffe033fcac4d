"""Whether a search finds better settings than the network's own: `python -m benchmarks.search`.

    python -m benchmarks.search --write     and write benchmarks/results/search.md

`mnist-bench search` looks at 30 trials over learning rate, dropout and kernel size (conf/search/
small.yaml), each of one seed. Then the best of them and the defaults are each trained with five
seeds that neither has seen, and Welch's test compares their validation losses. What is there
already is read.
"""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

from benchmarks.step import ROOT
from mnist_bench.analysis.statistics import describe, welch
from mnist_bench.config.compose import compose
from mnist_bench.launch.jobs import PROGRAM, train_command
from mnist_bench.loggers.console import info
from mnist_bench.runs.records import provenance, read_summary

NAME = "benchmark"
TRIALS = 30
NETWORK = ("model=cnn5x5_single", "data.limit=5000", "trainer.epochs=4")
SEEDS = range(100, 105)
# Nobody looks at the curves.
QUIET = ("logger=none", "trainer.figures=false")


def run(folder: Path, command: list[str]) -> None:
    data = Path(ROOT, compose([])[0].data.root).resolve()
    subprocess.run(
        command, cwd=folder, env={**os.environ, "MNIST_BENCH_DATA": str(data)}, check=True
    )


def search_options() -> list[str]:
    return ["search", NAME, *NETWORK, *QUIET, "--space", "small", "--trials", str(TRIALS)]


def train(folder: Path, sweep: str, *arguments: str) -> list[Path]:
    """Train with the new seeds; return the folders of the runs."""
    seeds = f"seed=range({SEEDS.start},{SEEDS.stop})"
    run(folder, train_command("-m", *arguments, f"sweep.name={sweep}", seeds, *QUIET))
    return [folder / "outputs" / "sweeps" / sweep / f"seed={seed}" for seed in SEEDS]


def as_markdown(searched: list[Path], defaults: list[Path]) -> str:
    origin = provenance()
    runs = {"the best of the search": searched, "the network's defaults": defaults}
    summaries = {name: [read_summary(path) for path in paths] for name, paths in runs.items()}
    losses = {name: [s["val_loss"] for s in found] for name, found in summaries.items()}
    first = summaries["the best of the search"][0]
    keys = ("optimizer.lr", "model.dropout", "model.kernel_size")
    difference = welch(*losses.values())
    assert difference.interval is not None
    lines = [
        f"# A search beside the defaults, on {first['device']}",
        "",
        f"`python -m benchmarks.search` on {origin['started'][:10]}, commit "
        f"{origin['git_commit']}, torch {first['versions']['torch']}, Python "
        f"{first['versions']['python']}, {first['precision']}, kernels: {first['kernels']}. The "
        f"search is `mnist-bench {shlex.join(search_options())}`. Validation figures of "
        f"{first['val_images']:,} images, over {len(SEEDS)} seeds that the search has not seen "
        f"({SEEDS.start} to {SEEDS.stop - 1}), with standard deviations.",
        "",
        f"| | {' | '.join(keys)} | validation loss | validation accuracy |",
        f"| --- |{' ---: |' * (len(keys) + 2)}",
    ]
    for name, found in summaries.items():
        settings = [_brief(found[0]["config"][key]) for key in keys]
        loss = describe(losses[name])
        accuracy = describe([s["val_accuracy"] for s in found])
        lines.append(
            f"| {name} | {' | '.join(settings)} | {loss.mean:.4f} ± {loss.std:.4f} "
            f"| {accuracy.mean:.2%} ± {accuracy.std:.2%} |"
        )
    low, high = difference.interval.low, difference.interval.high
    lines += [
        "",
        f"The difference of the losses is {difference.mean:+.4f} ({low:+.4f} to {high:+.4f} with "
        f"95 % confidence; Welch's test, p = {difference.p_value:.2g}).",
    ]
    return "\n".join(lines) + "\n"


def _brief(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "outputs" / "search")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    run(folder, [sys.executable, str(PROGRAM), *search_options()])
    found = folder / "outputs" / "searches" / NAME
    best = train(folder, "best", "--config-dir", str(found), "experiment=best")
    report = as_markdown(best, train(folder, "defaults", *NETWORK))
    info(report)
    if arguments.write:
        path = ROOT / "benchmarks" / "results" / "search.md"
        path.write_text(report)
        info(f"Written to {path}")


if __name__ == "__main__":
    main()
