"""Full trainings against the figures they have to reach; minutes each, `make test-slow`."""

import csv
import json

import pytest

from tests.support.committed import RESULTS, prediction_interval, read_csv
from tests.support.train_command import run_train

pytestmark = pytest.mark.slow

# Published validation accuracy (on the test set) after each of the 20 epochs of notebook 003.
PUBLISHED = {
    "cnn3x3": [
        *(0.9728, 0.9842, 0.9866, 0.989, 0.989, 0.9884, 0.9906, 0.9894, 0.9911, 0.9899),
        *(0.9917, 0.992, 0.9911, 0.9915, 0.9908, 0.9919, 0.9915, 0.9919, 0.9912, 0.9926),
    ],
    "cnn5x5_single": [
        *(0.9566, 0.9767, 0.982, 0.9839, 0.9863, 0.9857, 0.9875, 0.9871, 0.989, 0.989),
        *(0.989, 0.9902, 0.9891, 0.99, 0.991, 0.9899, 0.9898, 0.9899, 0.991, 0.9913),
    ],
}


def train(*arguments, cwd, data_root):
    process = run_train(*arguments, "hydra.run.dir=run", cwd=cwd, data_root=data_root, limit=3600)
    assert process.returncode == 0, process.stderr
    summary = json.loads((cwd / "run" / "summary.json").read_text())
    with (cwd / "run" / "metrics.csv").open() as file:
        return summary, list(csv.DictReader(file))


def test_the_default_training_ends_where_those_of_ten_seeds_did(tmp_path, mnist_root):
    """Below 99 % one run in ten or so does end: 98.90 % with seed 0 on a CPU without AVX-512."""
    summary, _ = train(cwd=tmp_path, data_root=mnist_root)
    rows = read_csv(RESULTS / "networks.csv") + read_csv(RESULTS / "default_on_a_cpu.csv")
    ours = [row["test_accuracy"] for row in rows if row.get("model", "mnist_cnn") == "mnist_cnn"]
    low, high = prediction_interval([float(accuracy) for accuracy in ours], confidence=0.999)
    assert len(ours) == 10 and low > 0.98
    assert low <= summary["test_accuracy"] <= high


@pytest.mark.parametrize("model", ["mnist_cnn", "cnn3x3", "cnn5x5", "cnn5x5_single", "wide3x3"])
def test_one_default_epoch_reaches_97_percent(tmp_path, mnist_root, model):
    summary, _ = train(f"model={model}", "trainer.epochs=1", cwd=tmp_path, data_root=mnist_root)
    assert summary["test_accuracy"] >= 0.97


@pytest.mark.parametrize(
    ("model", "limit"),
    [
        ("conv3_dense7744", 6400),
        ("wide3x5_bn", 6400),
        ("wide5x7_bn", 6400),
        ("vgg16", "null"),  # at its low rate it needs some hundred steps before it learns
    ],
)
def test_the_large_networks_train(tmp_path, mnist_root, model, limit):
    summary, _ = train(
        *(f"model={model}", "trainer.epochs=1", f"data.limit={limit}"),
        cwd=tmp_path,
        data_root=mnist_root,
    )
    assert summary["test_accuracy"] >= 0.5


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_the_published_recipe_gives_the_published_curve(tmp_path, mnist_root, experiment):
    summary, rows = train(f"experiment={experiment}", cwd=tmp_path, data_root=mnist_root)
    published = PUBLISHED[experiment]
    assert summary["experiment"] == experiment
    assert summary["val_accuracy"] == pytest.approx(published[-1], abs=0.002)
    for row, accuracy in zip(rows[1:], published[1:], strict=True):
        assert float(row["val_accuracy"]) == pytest.approx(accuracy, abs=0.005)
