"""The most accurate networks, alone and together: `python -m benchmarks.accuracy [FOLDER]`.

Trains `experiment=accuracy` with kernels of 3, 5 and 7 pixels, ten seeds of each side by side, into
run folders under FOLDER, going on with what is there; minutes on a large GPU, days on a CPU. An
ensemble is the three networks of one seed, and its answer the mean of their probabilities.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.step import ROOT, file_name_part
from mnist_bench.checkpoint import LAST
from mnist_bench.folders import replica_folders
from mnist_bench.records import PREDICTIONS, provenance, read_summary
from mnist_bench.screen import say

MODELS = ["simple3x3", "simple5x5", "simple7x7"]
SEEDS = 10


def train(model: str, folder: Path, overrides: list[str]) -> None:
    """Train the seeds of a model that have not been trained to the end."""
    if is_trained(folder):
        return
    seeds = replica_folders(folder, 0, SEEDS)
    command = [f'resume="{folder}"']
    if not any((seed / LAST).exists() for seed in seeds):
        shutil.rmtree(folder, ignore_errors=True)  # what a training left that was cut off early
        command = ["experiment=accuracy", f"model={model}", f"trainer.replicas={SEEDS}"]
        command += [f'hydra.run.dir="{folder}"', *overrides]
    subprocess.run([sys.executable, "train.py", *command], cwd=ROOT, check=True)


def is_trained(folder: Path) -> bool:
    summaries = map(read_summary, replica_folders(folder, 0, SEEDS))
    return all(summary.get("status") == "completed" for summary in summaries)


def accuracies(folders: dict[str, Path]) -> dict[str, list[float]]:
    """Test accuracy of every seed, for each network and for the ensemble."""
    found: dict[str, list[float]] = {name: [] for name in [*folders, "ensemble"]}
    runs = zip(*(replica_folders(folder, 0, SEEDS) for folder in folders.values()), strict=True)
    for of_a_seed in runs:
        saved = [np.load(run / PREDICTIONS) for run in of_a_seed]
        answers = [torch.from_numpy(file["logits"]).double().softmax(1) for file in saved]
        labels = torch.from_numpy(saved[0]["labels"])
        for name, answer in zip(found, [*answers, torch.stack(answers).mean(0)], strict=True):
            found[name].append((answer.argmax(1) == labels).double().mean().item())
    return found


def as_markdown(folders: dict[str, Path]) -> str:
    summaries = {
        name: [read_summary(run) for run in replica_folders(folder, 0, SEEDS)]
        for name, folder in folders.items()
    }
    first = next(iter(summaries.values()))[0]
    versions = provenance()
    lines = [
        f"# The most accurate networks on {first['device']}",
        "",
        f"`python -m benchmarks.accuracy` on {versions['started'][:10]}, commit "
        f"{first['git_commit']}, torch {first['versions']['torch']}. {SEEDS} seeds of "
        f"`experiment=accuracy`, side by side, in {first['precision']}, {first['epochs']} epochs. "
        "Seconds are those of all seeds together.",
        "",
        "| | test accuracy, mean | standard deviation | lowest | highest | training, s |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, values in accuracies(folders).items():
        seconds = f"{summaries[name][0]['train_seconds']:.1f}" if name in summaries else "-"
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
    folders = {model: arguments.folder.resolve() / model for model in MODELS}
    for model in arguments.models:
        train(model, folders[model], arguments.override)
    missing = [model for model, folder in folders.items() if not is_trained(folder)]
    if missing:
        say(f"For the table, {' and '.join(missing)} have to be trained.")
        return
    report = as_markdown(folders)
    say(report)
    if arguments.write:
        device = read_summary(replica_folders(folders[MODELS[0]], 0, SEEDS)[0])["device"]
        path = arguments.write / f"accuracy-{file_name_part(device)}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(report)
        say(f"Written to {path}")


if __name__ == "__main__":
    main()
