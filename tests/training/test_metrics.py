"""The table of metrics, against loops over images."""

import pytest
import torch

from mnist_bench.training.metrics import METRICS, measure_all, metrics_for, tag


@pytest.fixture
def answers() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are often wrong, of classes of very different sizes, one of them empty."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 50 + [1] * 5 + [2] * 20 + [4])
    logits = torch.randn(len(labels), 5, generator=generator)
    logits[torch.arange(len(labels)), labels] += 1
    return logits, labels


def test_top2_and_balanced_accuracy_are_those_of_loops(answers) -> None:
    logits, labels = answers
    top2, right, total = 0, [0] * 5, [0] * 5
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        order = sorted(range(5), key=lambda k: -row[k])
        top2 += label in order[:2]
        total[label] += 1
        right[label] += order[0] == label
    recalls = [r / t for r, t in zip(right, total, strict=True) if t]
    found = measure_all(METRICS, "test", logits, labels)
    assert found["top2_accuracy"] == pytest.approx(top2 / len(labels))
    assert found["balanced_accuracy"] == pytest.approx(sum(recalls) / 4)
    assert found["top2_accuracy"] != found["balanced_accuracy"]


def test_a_metric_is_measured_of_its_parts_alone(answers) -> None:
    assert set(measure_all(METRICS, "val", *answers)) == {"balanced_accuracy"}
    assert set(measure_all(METRICS, "test", *answers)) == {"balanced_accuracy", "top2_accuracy"}


def test_only_a_binary_loss_has_binary_accuracy(compose) -> None:
    assert "binary_accuracy" not in metrics_for(compose().loss)
    assert "binary_accuracy" in metrics_for(compose("loss=binary_cross_entropy").loss)


def test_a_column_is_shown_by_its_metric() -> None:
    assert tag("val_top2_accuracy") == "top2_accuracy/val"
    assert tag("learning_rate") == "learning_rate"
