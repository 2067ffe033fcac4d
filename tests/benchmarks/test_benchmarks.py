import sys

import numpy as np
import pytest
import torch

from benchmarks import accuracy, speedrun, step, throughput
from mnist_bench.config.compose import compose as compose_text
from mnist_bench.config.read import to_config
from mnist_bench.data.datasets import MNIST
from mnist_bench.data.images import Images
from mnist_bench.data.published import load_images
from mnist_bench.models import ConvNet
from mnist_bench.runs.records import read_summary
from mnist_bench.training.device import find_placement


def test_the_step_benchmark_writes_its_table(tmp_path, mnist_root, monkeypatch):
    """With rounds too short to mean anything."""
    monkeypatch.setitem(step.ROUND_SECONDS, "cpu", 0.001)
    monkeypatch.setattr(step, "ROUNDS", 1)
    monkeypatch.setenv("MNIST_BENCH_DATA", str(mnist_root))
    arguments = ["step", "cnn5x5_single", "--precision", "fp32", "bf16", "--batch-size", "16"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--write", str(tmp_path)])
    step.main()
    (report,) = tmp_path.glob("step-*.md")
    rows = [line for line in report.read_text().splitlines() if line.startswith("| `")]
    assert [row.split(" | ")[:3] for row in rows] == [
        ["| `cnn5x5_single`", "fp32", "16"],
        ["| `cnn5x5_single`", "bf16", "16"],
    ]
    assert f"torch {torch.__version__.split('+')[0]}" in report.read_text()


def test_the_plain_step_is_adam_on_the_cross_entropy():
    """From zero weights, Adam first moves each by its rate against the sign of its gradient."""
    network = torch.nn.Linear(4, 3, bias=False)
    torch.nn.init.zeros_(network.weight)
    images, labels = torch.eye(4)[:2] + 0.5, torch.tensor([0, 2])
    step.plain_step(network, images, labels, lr=0.01, dtype=None)()
    targets = torch.nn.functional.one_hot(labels, 3).float()
    gradient = (torch.full((2, 3), 1 / 3) - targets).T @ images / 2
    torch.testing.assert_close(
        network.weight.detach(), -0.01 * gradient.sign(), rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("stride", ["1", "[2,1]"])
def test_the_plain_network_is_the_same_function_in_the_usual_order(compose, mnist_root, stride):
    network = ConvNet(compose("model=cnn3x3", f"model.stride={stride}").model)
    plain = step.in_plain_layers(network)
    assert [type(layer).__name__ for layer in plain] == [
        *("Conv2d", "ReLU", "Conv2d", "ReLU", "MaxPool2d", "Flatten", "Dropout"),
        *("Linear", "ReLU", "Dropout", "Linear"),
    ]
    assert all(type(layer).__module__.startswith("torch.nn") for layer in plain)
    images = (load_images(MNIST, mnist_root).test_images[:20, None] / 255).double()
    with torch.inference_mode():
        expected = network.double().eval()(images)
        torch.testing.assert_close(plain.double().eval()(images), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_the_throughput_benchmark_goes_on_from_what_it_measured(tmp_path, mnist_root, monkeypatch):
    """With rounds too short to mean anything, and a contender that does not run."""
    contenders = {name: throughput.CONTENDERS[name] for name in ("ours", "plain")}
    monkeypatch.setattr(throughput, "CONTENDERS", {**contenders, "nobody": None})
    monkeypatch.setattr(throughput, "ROUND_SECONDS", 0.001)
    monkeypatch.setitem(throughput.PEAK_SIZE, "cpu", 100)  # minutes where bf16 is emulated
    monkeypatch.setattr(throughput, "ROUNDS", 2)
    monkeypatch.setenv("MNIST_BENCH_DATA", str(mnist_root))
    arguments = ["throughput", "cnn5x5_single", "--batch-size", "16", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--precision", "fp32"])
    throughput.main()
    (path,) = tmp_path.glob("throughput-*.csv")
    (first,) = tmp_path.glob("throughput-*.md")
    rows = throughput.read_rows(path)
    assert [(r.contender, r.precision) for r in rows] == [
        ("ours", "fp32"),
        ("plain", "fp32"),
        ("ours, auto", "fp32"),
    ]
    assert rows[0].images_per_second == pytest.approx(16e3 / rows[0].ms_per_step, rel=1e-3)

    monkeypatch.setattr(sys, "argv", [*arguments, "--precision", "fp32", "bf16"])
    throughput.main()
    again = throughput.read_rows(path)
    assert again[:3] == rows
    assert {r.precision for r in again[3:]} == {"bf16"}
    # Beside Keras, which was not measured, and in either precision.
    assert first.read_text().count("| `cnn5x5_single` |") == 3
    assert "| `cnn5x5_single` | - | - |" in first.read_text()


def test_ours_is_held_against_the_fastest_keras():
    """In fp32; and as `auto`, in the turns of either precision, against whatever is fastest."""

    def row(precision, contender, times_ours):
        rest = (times_ours, "a device", "2.15.0", "a commit", "2026-11-22")
        return throughput.Row("cnn3x3", precision, contender, 128, 0.0, 0.0, 0.0, *rest)

    rows = [
        *(row("fp32", "ours", 1.0), row("fp32", "ours, auto", 0.5)),
        *(row("fp32", "keras_jax", 3.0), row("fp32", "keras_torch", 1.5)),
        *(row("bf16", "ours", 1.0), row("bf16", "ours, auto", 1.1)),
        *(row("bf16", "keras_jax", 2.75), row("bf16", "plain", 0.1)),
    ]
    assert throughput.against_keras(rows)[-1] == "| `cnn3x3` | 1.50 | 2.50 |"


def test_a_steps_operations_are_those_of_the_direct_sums():
    """Forward, and twice that backward, but for the images' own gradient."""
    first, second = 24 * 24 * 32 * 25, 20 * 20 * 64 * 32 * 25
    dense = 10 * 10 * 64 * 128 + 128 * 10
    expected = 2 * 16 * (2 * first + 3 * second + 3 * dense)
    assert throughput.step_operations("cnn5x5", 16) == expected


def test_the_speed_record_trains_both_anew_for_every_seed(
    tmp_path, images, mnist_root, monkeypatch
):
    """On 1,000 images. In the memory of another seed, a seed is what it is alone."""
    few = Images(
        *(images.train_images[:1000], images.train_labels[:1000]),
        *(images.test_images[:1000], images.test_labels[:1000], images.class_names),
    )
    monkeypatch.setattr(speedrun, "read_images", lambda *_: few)
    arguments = ["speedrun", "--seeds", "3", "--write", str(tmp_path), "data.holdout_size=100"]
    monkeypatch.setattr(sys, "argv", arguments)
    speedrun.main()
    (report,) = tmp_path.glob("speedrun-*.md")
    rows = [line for line in report.read_text().splitlines() if line.startswith("| `exp")]
    assert len(rows) == 1 and "3 seeds" in report.read_text()

    config = to_config(compose_text(["experiment=speedrun", "data.holdout_size=100"])[0])
    config.trainer.gpus = 0
    placement = find_placement(config.trainer)
    ours = speedrun.Ours(config, few, placement)
    logits = [ours(seed)(few.test_images).detach() for seed in (5, 6, 5)]
    assert torch.equal(logits[0], logits[2]) and not torch.equal(logits[0], logits[1])
    assert torch.equal(speedrun.Ours(config, few, placement)(6)(few.test_images), logits[1])


@pytest.mark.slow
def test_the_ensemble_answers_with_the_mean_probability(tmp_path, mnist_root, monkeypatch):
    """Small networks on few images; what is trained already is not trained again."""
    monkeypatch.setattr(accuracy, "SEEDS", 2)
    monkeypatch.setenv("MNIST_BENCH_DATA", str(mnist_root))
    changes = ("data.limit=500", "trainer.epochs=1", "model.channels=[4]", "model.kernel_size=9")
    overrides = [part for change in changes for part in ("--override", change)]
    arguments = ["accuracy", str(tmp_path / "runs"), "--write", str(tmp_path), *overrides]
    monkeypatch.setattr(sys, "argv", arguments)
    accuracy.main()
    (report,) = tmp_path.glob("accuracy-*.md")
    first = report.read_text()
    assert first.count("| simple") == 3 and first.count("| ensemble") == 1

    runs = {model: accuracy.run_folders(tmp_path / "runs", model) for model in accuracy.MODELS}
    found = accuracy.accuracies(runs)
    for seed in range(2):
        total = 0
        for model in accuracy.MODELS:
            saved = np.load(runs[model][seed] / "predictions.npz")
            total = total + torch.from_numpy(saved["logits"]).double().softmax(1)
            summary = read_summary(runs[model][seed])
            assert found[model][seed] == summary["test_accuracy"]
        right = (total.argmax(1).numpy() == saved["labels"]).mean()
        assert found["ensemble"][seed] == right

    def when_written():
        return [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("summary.json"))]

    before = when_written()
    accuracy.main()
    assert when_written() == before
