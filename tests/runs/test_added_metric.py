"""A metric is a line of one table: nothing else has to know of it."""

import csv
import json

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_bench.config.compose import compose
from mnist_bench.config.read import to_config
from mnist_bench.runs.session import carry_out
from mnist_bench.training import metrics
from mnist_bench.training.metrics import Metric
from tests.support.config_files import write_hydra_folder


def test_a_metric_of_the_table_is_a_column_a_key_and_a_tag(tmp_path, mnist_root, monkeypatch):
    """The errors among the images, running; and how many classes are answered, of whole sets."""
    added = {
        "errors": Metric(lambda logits, labels: (logits.argmax(1) != labels).sum(), running=True),
        "classes": Metric(
            lambda logits, labels: logits.argmax(1).unique().numel() + 0 * logits.sum(),
            parts=("val", "test"),
        ),
    }
    monkeypatch.setattr(metrics, "METRICS", metrics.METRICS | added)
    composed, hydra = compose(
        [
            *(f"data.root={mnist_root}", "data.limit=300", "trainer.epochs=2", "trainer.gpus=0"),
            *("trainer.precision=fp32", "model.channels=[4,4]", "model.dense=[8]"),
        ]
    )
    folder = tmp_path / "run"
    write_hydra_folder(folder, composed, hydra)
    carry_out(to_config(composed), folder)

    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    for row in rows:
        for part in ("train", "val"):
            errors, accuracy = float(row[f"{part}_errors"]), float(row[f"{part}_accuracy"])
            assert errors == pytest.approx(1 - accuracy, abs=1e-6)
        assert float(row["val_classes"]) in range(1, 11)
    summary = json.loads((folder / "summary.json").read_text())
    with np.load(folder / "predictions.npz") as saved:
        assert summary["test_classes"] == len(set(saved["logits"].argmax(1)))
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert {"errors/train", "errors/val", "classes/val", "classes/test"} <= set(
        events.Tags()["scalars"]
    )
    assert len(events.Scalars("errors/val")) == 2
