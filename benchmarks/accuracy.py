"""The most accurate networks, alone and together: `python -m benchmarks.accuracy [FOLDER]`.

Trains `experiment=accuracy` with kernels of 3, 5 and 7 pixels, ten seeds of each, one after the
other, into run folders under FOLDER, going on with what is there; days on a CPU. An ensemble is the
three networks of one seed, and its answer the mean of their probabilities.
"""

import argparse
import shutil
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.step import ROOT, file_name_part
from mnist_bench.launch.jobs import train_command
from mnist_bench.loggers.console import info
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.records import provenance, read_summary

MODELS = ["simple3x3", "simple5x5", "simple7x7"]
SEEDS = 10


def train(model: str, seed: int, run: Path, overrides: Sequence[str]) -> None:
    """Train a network to its end, going on with what is there."""
    if is_trained(run):
        return
    command = [f'resume="{run}"']
    if not RunFolder(run).last.exists():
        shutil.rmtree(run, ignore_errors=True)  # what a training left that was cut off early
        command = ["experiment=accuracy", f"model={model}", f"seed={seed}"]
        command += [f'hydra.run.dir="{run}"', *overrides]
    subprocess.run(train_command(*command), cwd=ROOT, check=True)


def run_folders(folder: Path, model: str) -> list[Path]:
    return [folder / model / f"seed={seed}" for seed in range(SEEDS)]


def is_trained(run: Path) -> bool:
    return bool(read_summary(run).get("status") == "completed")


def accuracies(runs: dict[str, list[Path]]) -> dict[str, list[float]]:
    """Test accuracy of every seed, for each network and for the ensemble."""
    found: dict[str, list[float]] = {name: [] for name in [*runs, "ensemble"]}
    for of_a_seed in zip(*runs.values(), strict=True):
        saved = [np.load(RunFolder(run).predictions) for run in of_a_seed]
        answers = [torch.from_numpy(file["logits"]).double().softmax(1) for file in saved]
        labels = torch.from_numpy(saved[0]["labels"])
        for name, answer in zip(found, [*answers, torch.stack(answers).mean(0)], strict=True):
            found[name].append((answer.argmax(1) == labels).double().mean().item())
    return found


def as_markdown(runs: dict[str, list[Path]]) -> str:
    summaries = {name: [read_summary(run) for run in of_model] for name, of_model in runs.items()}
    first = next(iter(summaries.values()))[0]
    versions = provenance()
    lines = [
        f"# The most accurate networks on {first['device']}",
        "",
        f"`python -m benchmarks.accuracy` on {versions['started'][:10]}, commit "
        f"{first['git_commit']}, torch {first['versions']['torch']}. {SEEDS} seeds of "
        f"`experiment=accuracy` in {first['precision']}, {first['epochs']} epochs. Seconds are the "
        "median of the seeds'.",
        "",
        "| | test accuracy, mean | standard deviation | lowest | highest | training, s |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, values in accuracies(runs).items():
        times = [summary["train_seconds"] for summary in summaries.get(name, [])]
        seconds = f"{statistics.median(times):.1f}" if times else "-"
        lines.append(
            f"| {name} | {statistics.mean(values):.3%} | {statistics.stdev(values):.3%} "
            f"| {min(values):.2%} | {max(values):.2%} | {seconds} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "outputs" / "accuracy")
    parser.add_argument("--models", nargs="*", default=MODELS, help="what to train; all by default")
    parser.add_argument("--override", action="append", default=[], help="of experiment=accuracy")
    parser.add_argument("--write", type=Path, nargs="?", const=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    runs = {model: run_folders(folder, model) for model in MODELS}
    for model in arguments.models:
        for seed, run in enumerate(runs[model]):
            train(model, seed, run, arguments.override)
    missing = [model for model, of_model in runs.items() if not all(map(is_trained, of_model))]
    if missing:
        info(f"For the table, {' and '.join(missing)} have to be trained.")
        return
    report = as_markdown(runs)
    info(report)
    if arguments.write:
        device = read_summary(runs[MODELS[0]][0])["device"]
        path = arguments.write / f"accuracy-{file_name_part(device)}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(report)
        info(f"Written to {path}")


if __name__ == "__main__":
    main()
