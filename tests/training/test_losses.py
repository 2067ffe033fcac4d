"""The two losses and the two ways of counting right answers, against NumPy in float64.

N images, K classes.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from mnist_bench.training.losses import binary_cross_entropy, build_objective, cross_entropy
from mnist_bench.training.metrics import count_binary_correct, count_correct

N, K = 37, 10
# Keras's 1e-7 and 1 - 1e-7, as the float32 that its clipping works with.
LOW, HIGH = float(np.float32(1e-7)), float(np.float32(1 - 1e-7))


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def keras_categorical(logits: np.ndarray, labels: np.ndarray) -> float:
    shifted = logits - logits.max(1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(1))
    return float((log_sums - shifted[np.arange(len(labels)), labels]).mean())


def keras_binary(logits: np.ndarray, labels: np.ndarray) -> float:
    p = np.clip(softmax(logits), LOW, HIGH)
    targets = np.eye(logits.shape[1])[labels]
    return float(-(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean())


REFERENCES = [(cross_entropy, keras_categorical), (binary_cross_entropy, keras_binary)]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Reference = Callable[[np.ndarray, np.ndarray], float]


def draw(scale: float, count: int = N) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, scale, (count, K)).astype(np.float32).astype(np.float64)
    return logits, rng.integers(0, K, count)


def tensors(logits: np.ndarray, labels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(logits).float(), torch.from_numpy(labels)


@pytest.mark.parametrize(("loss", "reference"), REFERENCES)
@pytest.mark.parametrize("scale", [0.01, 1, 4])
def test_loss_equals_its_closed_form(loss: Loss, reference: Reference, scale: float) -> None:
    logits, labels = draw(scale)
    assert loss(*tensors(logits, labels)).item() == pytest.approx(
        reference(logits, labels), rel=1e-5
    )


@pytest.mark.parametrize("smoothing", [0.1, 0.5])
def test_smoothed_labels_share_with_the_other_classes(smoothing: float) -> None:
    logits, labels = draw(2)
    targets = (1 - smoothing) * np.eye(K)[labels] + smoothing / K
    expected = float(-(targets * np.log(softmax(logits))).sum(1).mean())
    objective = build_objective(cross_entropy, smoothing)
    assert objective(*tensors(logits, labels)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize(("loss", "reference"), REFERENCES)
def test_loss_of_a_saturated_image(loss: Loss, reference: Reference, right: bool) -> None:
    logits = np.full((1, K), -100.0)
    logits[0, 3] = 100.0
    labels = np.array([3 if right else 4])
    found = loss(*tensors(logits, labels)).item()
    # 1 - 1e-7 has one digit left in float32, and that is all that a right answer costs.
    assert found == pytest.approx(reference(logits, labels), rel=1e-4, abs=3e-8)
    if right:
        assert found < 2e-7
    else:
        # Unclipped, a probability of e^-200 costs 200; clipped, -log(1e-7) for each of two outputs.
        clipped = (-np.log(LOW) - np.log(1 - HIGH)) / K
        assert found == pytest.approx(clipped if loss is binary_cross_entropy else 200, rel=1e-4)


@pytest.mark.parametrize(("loss", "reference"), REFERENCES)
def test_gradient_equals_finite_differences(loss: Loss, reference: Reference) -> None:
    logits, labels = draw(2, count=5)
    differences = np.zeros_like(logits)
    for index in np.ndindex(*logits.shape):
        step = np.zeros_like(logits)
        step[index] = 1e-5
        rise = reference(logits + step, labels) - reference(logits - step, labels)
        differences[index] = rise / 2e-5
    variable = tensors(logits, labels)[0].requires_grad_()
    loss(variable, torch.from_numpy(labels)).backward()
    np.testing.assert_allclose(variable.grad, differences, rtol=1e-4, atol=1e-7)


def test_clipped_outputs_pass_no_gradient() -> None:
    logits = torch.full((1, K), -100.0)
    logits[0, 3] = 100.0
    logits.requires_grad_()
    binary_cross_entropy(logits, torch.tensor([4])).backward()
    assert not logits.grad.any()


@pytest.mark.parametrize(("loss", "reference"), REFERENCES)
def test_half_precision_logits_are_summed_in_float32(loss: Loss, reference: Reference) -> None:
    logits, labels = draw(3)
    half = torch.from_numpy(logits).bfloat16()
    found = loss(half, torch.from_numpy(labels))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(reference(half.double().numpy(), labels), rel=1e-5)


def test_counts_equal_loops_over_images_and_outputs() -> None:
    logits, labels = draw(3, count=200)
    correct = binary_correct = 0
    for row, label in zip(softmax(logits), labels, strict=True):
        correct += max(range(K), key=lambda k: row[k]) == label
        for k in range(K):
            binary_correct += (row[k] > 0.5) == (k == label)
    assert 0 < correct < 200
    assert count_correct(*tensors(logits, labels)).item() == correct
    assert count_binary_correct(*tensors(logits, labels)).item() == binary_correct


def test_a_confident_mistake_costs_two_of_ten_outputs() -> None:
    """Why 99.79 % of the outputs right was 98.9 % of the digits."""
    labels = torch.zeros(1000, dtype=torch.int64)
    answers = labels.clone()
    answers[:11] = 7
    logits = 20.0 * torch.nn.functional.one_hot(answers, K)
    assert count_correct(logits, labels).item() == 989
    assert count_binary_correct(logits, labels).item() == 10_000 - 2 * 11


def test_an_undecided_image_costs_one_output_even_if_its_largest_is_right() -> None:
    logits, label = torch.tensor([[0.2] + [0.0] * 9]), torch.tensor([0])
    assert count_correct(logits, label).item() == 1
    assert count_binary_correct(logits, label).item() == 9
