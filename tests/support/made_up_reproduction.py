"""Run folders of a reproduction, written by hand."""

import csv
import json
from functools import cache

import numpy as np

from mnist_bench.config.compose import compose
from mnist_bench.reproduction.collect import collect
from mnist_bench.reproduction.plan import recipe
from tests.support.config_files import write_hydra_folder

METRICS = (
    "epoch,train_loss,train_accuracy,val_loss,val_accuracy,learning_rate,seconds,images_per_second"
)


def write_run(
    runs, name, *overrides, loss=0.03, device="machine A", precision="fp32", epochs=20, hour=23
):
    """The folder of a completed run of `name`, such as cnn3x3/seed=0."""
    folder = runs / name
    experiment, seed = folder.parent.name, folder.name.split("--")[0]
    write_hydra_folder(folder, *composed(f"experiment={experiment}", seed, *overrides))
    wrong = np.random.default_rng(0).choice(50, 5, replace=False)
    logits, labels = np.zeros((50, 10), np.float32), np.arange(50) % 10
    logits[np.arange(50), labels] = 1
    logits[wrong] = np.roll(logits[wrong], 1, axis=1)
    np.savez(folder / "predictions.npz", logits=logits, labels=labels)
    rows = [f"{e},0.1,0.9,{loss},0.9{e:02},0.001,{10 + e * e},100" for e in range(1, epochs + 1)]
    (folder / "metrics.csv").write_text("\n".join([METRICS, *rows]) + "\n")
    figures = {"train_loss": 0.1, "train_accuracy": 0.9, "val_loss": loss, "val_accuracy": 0.9}
    summary = {
        **{"status": "completed", "epochs": epochs, "device": device, "precision": precision},
        **figures,
        **{"test_loss": loss, "test_accuracy": 0.9, "test_errors": 5, "test_images": 50},
        "versions": {"torch": "2.15.0", "python": "3.11.7"},
        **{"git_commit": "abc", "started": f"2026-11-21T{hour}:03:24+0000"},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


# Composing takes a second.
@cache
def composed(*overrides):
    return compose(overrides)


@cache
def recipe_of(name):
    return recipe(name, ())


def find(runs):
    return collect(runs, recipe_of)


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def stop(run, epochs):
    """Make a completed run one that was stopped."""
    summary = json.loads((run / "summary.json").read_text())
    null = {key: None for key in summary if key.startswith(("train_", "val_", "test_"))}
    stopped = {**summary, **null, "status": "interrupted", "epochs": epochs}
    (run / "summary.json").write_text(json.dumps(stopped))
    lines = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text("".join(lines[: epochs + 1]))
