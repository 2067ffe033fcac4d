"""What it costs to read many runs: `mnist-bench runs` and `report` over made-up run folders.

    python -m benchmarks.reading                10,000 runs: 2,000 settings of five seeds
    python -m benchmarks.reading --runs 500
    python -m benchmarks.reading --write        and into results/reading.md

The folders have what a report reads of a run: summary.json of its usual 4 kB, metrics.csv and
predictions.npz of 10,000 images, in one sweep with its sweep.json. Each verb runs three times in a
process of its own, from its start to its end, with files in the system's cache.
"""

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mnist_bench.config.compose import compose
from mnist_bench.config.identity import computed, digest
from mnist_bench.config.read import to_config
from mnist_bench.config.walk import flatten
from mnist_bench.loggers.console import info
from mnist_bench.runs.records import provenance

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "reading.md"
EPOCHS = 6
CLASSES = 10
VERBS = ("runs", "report")

Settings = Mapping[str, Any]


def write_sweep(
    folder: Path,
    axes: Mapping[str, Sequence[Any]],
    seeds: int,
    mean: Callable[[Settings], float] = lambda settings: 0.99,
    *,
    std: float = 0.0006,
    images: int = 10_000,
    config: Settings | None = None,
    own_predictions: bool = True,
    **summary: Any,
) -> list[Path]:
    """Write completed runs of every combination of values, and the sweep.json that asks for them.

    Test accuracies are normally distributed around `mean` of the settings. `config` are settings,
    and `summary` keys of summary.json, to have in all. Without `own_predictions` all runs share one
    file of them, which saves the disk 0.4 MB each. Returns the folders in order, seeds last.
    """
    rng = np.random.default_rng(0)
    base = {**plain_config(), **(config or {})}
    folder.mkdir(parents=True, exist_ok=True)
    hard = rng.standard_normal(images)  # how hard each image is, for all networks
    shared = folder / "predictions.npz"
    jobs: dict[str, str] = {}
    written: list[Path] = []
    for values in itertools.product(*axes.values()):
        settings = dict(zip(axes, values, strict=True))
        for seed in range(seeds):
            own = {**base, **settings, "seed": seed}
            name = "--".join(f"{k}={v}" for k, v in sorted({**settings, "seed": seed}.items()))
            jobs[digest(computed(own))] = name
            run = folder / name
            run.mkdir()
            accuracy = float(np.clip(mean(settings) + std * rng.standard_normal(), 0, 1))
            wrong = np.argsort(hard + rng.standard_normal(images))[round(images * accuracy) :]
            predictions = run / "predictions.npz" if own_predictions else shared
            if not predictions.exists():
                write_predictions(predictions, wrong, images)
            if not own_predictions:
                (run / "predictions.npz").hardlink_to(shared)
            write_run(run, own, len(wrong), images, rng, len(written), summary)
            written.append(run)
    content = {
        "shared": [],
        "varied": sorted([*axes, "seed"]),
        "moved": sorted([*axes, "seed"]),
        "bases": {},
        "jobs": jobs,
        "command": sweep_command(axes, seeds, folder),
    }
    (folder / "sweep.json").write_text(json.dumps(content))
    return written


@cache
def plain_config() -> dict[str, Any]:
    return flatten(to_config(compose(["model=cnn5x5_single"])[0]))


def sweep_command(axes: Mapping[str, Sequence[Any]], seeds: int, folder: Path) -> str:
    swept = [f"{key}={','.join(map(str, values))}" for key, values in axes.items()]
    parts = ["model=cnn5x5_single", *swept, f"'seed=range({seeds})'", f"sweep.name={folder.name}"]
    return f"python train.py -m {' '.join(parts)}"


def write_predictions(path: Path, wrong: np.ndarray[Any, Any], images: int) -> None:
    labels = np.arange(images, dtype=np.int64) % CLASSES
    logits = np.full((images, CLASSES), -6.0, np.float32)
    logits[np.arange(images), labels] = 6.0
    logits[wrong, (labels[wrong] + 1) % CLASSES] = 9.0
    np.savez(path, logits=logits, labels=labels)


def write_run(
    run: Path,
    config: Settings,
    errors: int,
    images: int,
    rng: np.random.Generator,
    number: int,
    more: Mapping[str, Any],
) -> None:
    """Write summary.json and metrics.csv as a run of 55,000 training images leaves them."""
    losses = [0.25 * math.exp(-0.5 * e) + 0.02 + 0.002 * rng.random() for e in range(EPOCHS)]
    val_losses = [0.1 * math.exp(-0.5 * e) + 0.035 + 0.002 * rng.random() for e in range(EPOCHS)]
    header = "epoch,train_loss,train_accuracy,val_loss,val_accuracy,learning_rate,seconds,"
    rows = [f"{header}images_per_second,val_balanced_accuracy"]
    for epoch, (loss, val_loss) in enumerate(zip(losses, val_losses, strict=True), 1):
        rows.append(f"{epoch},{loss:.7g},0.98,{val_loss:.7g},0.9881,0.001,9.6,5729.1,0.988")
    (run / "metrics.csv").write_text("\n".join(rows) + "\n")
    accuracy = 1 - errors / images
    started = time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime(1_790_000_000 + 60 * number))
    summary = {
        **{"status": "completed", "model": config["model.name"], "experiment": None},
        **{"dataset": config["data.name"], "seed": config["seed"], "imported_from": None},
        **{"parameters": 592_074, "epochs": EPOCHS, "stopped_early": False, "best_epoch": EPOCHS},
        **{"tested_epoch": EPOCHS, "validation": "holdout", "train_loss": losses[-1]},
        **{"train_accuracy": 0.9930, "val_loss": val_losses[-1], "val_accuracy": accuracy - 0.0007},
        **{"test_loss": 3 * (1 - accuracy), "test_accuracy": accuracy, "test_errors": errors},
        **{"warning": None, "val_balanced_accuracy": 0.988, "test_balanced_accuracy": accuracy},
        **{"test_top2_accuracy": 0.998, "train_images": 55_000, "val_images": 5_000},
        **{"test_images": images, "warm_up_seconds": 0.0, "train_seconds": 57.6 + rng.random()},
        **{"images_per_second": 5729.1, "device": "AMD EPYC, 2 threads", "precision": "bf16"},
        **{"compiled": False, "kernels": "compiled C (AVX-512)"},
        "versions": {"mnist-bench": "0.1.0", "python": "3.11.7", "torch": "2.15.0"},
        **{"git_commit": "8724d5fdc0f6e69210651b6feedd82abb93f46e9", "git_changes": ""},
        "started": started,
        "overrides": [f"{key}={config[key]}" for key in ("model.kernel_size", "seed")],
        "digest": digest(computed(dict(config))),
        "config": dict(config),
        **more,
    }
    (run / "summary.json").write_text(json.dumps(summary, indent=2))


# --- Measured ---------------------------------------------------------------------------------


def measure(verb: str, *arguments: str, cwd: Path) -> tuple[float, float, float]:
    """Return what a verb takes in a process of its own: seconds, those of a CPU, and megabytes."""
    code = (
        "import resource, sys\n"
        "from mnist_bench.__main__ import main\n"
        "try:\n    main()\nfinally:\n"
        "    used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "    print(used.ru_utime + used.ru_stime, used.ru_maxrss, file=sys.stderr)"
    )
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, verb, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - begun
    cpu_seconds, kilobytes = map(float, done.stderr.split()[-2:])
    return seconds, cpu_seconds, kilobytes / 1024


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What it costs to read many runs.")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    options = parser.parse_args(arguments)
    # Kernel sizes and dropouts, as many as it takes.
    dropouts = max(1, options.runs // (5 * 5))
    axes = {
        "model.kernel_size": [3, 5, 7, 9, 11],
        "model.dropout": [round(number / (2 * dropouts), 6) for number in range(dropouts)],
    }
    lines = [
        "# What it costs to read many runs",
        "",
        f"`python -m benchmarks.reading --runs {options.runs} --write`, on {_machine()}, commit "
        f"{provenance()['git_commit']}",
        "",
        "| verb | runs | seconds, three times | of them on a CPU | memory at most |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        sweep = Path(scratch, "sweep")
        written = write_sweep(sweep, axes, 5, own_predictions=False)
        info(f"{len(written):,} runs of {dropouts * 5:,} settings are written")
        for verb in VERBS:
            found = [measure(verb, str(sweep), cwd=Path(scratch)) for _ in range(3)]
            clock, cpu = (", ".join(f"{one[i]:.1f}" for one in found) for i in range(2))
            megabytes = max(one[2] for one in found)
            lines.append(f"| `{verb}` | {len(written):,} | {clock} | {cpu} | {megabytes:,.0f} MB |")
            info(lines[-1])
    load = os.getloadavg()[0]
    lines += ["", f"The load of the machine, which had others, was {load:.0f} when this ended."]
    if options.write:
        RESULTS.write_text("\n".join(lines) + "\n")


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'an unknown CPU'}, {os.cpu_count()} threads"


if __name__ == "__main__":
    main()
