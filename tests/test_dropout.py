"""Dropout's masks by their counts, and its function by a loop over elements."""

import numpy as np
import pytest
import torch

from mnist_bench.models.dropout import Dropout, draw_mask

RATES = [0.25, 0.5, 0.1, 0.3, 1 / 256, 0.9, 0.9999, 1e-9]
COUNT = 4_000_000


@pytest.mark.parametrize("rate", RATES)
def test_a_mask_drops_its_rate(rate: float) -> None:
    torch.manual_seed(0)
    dropped = int((draw_mask(torch.Size([COUNT]), rate) == 0).sum())
    deviation = np.sqrt(COUNT * rate * (1 - rate))
    assert abs(dropped - COUNT * rate) < 4 * deviation


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.3])
@pytest.mark.parametrize("distance", [1, 2, 3, 4, 7, 8, 9, COUNT // 8])
def test_elements_are_dropped_independently(rate: float, distance: int) -> None:
    """Bits of a word of coins (the next bit is COUNT // 8 away), and of the word next to it."""
    torch.manual_seed(1)
    dropped = draw_mask(torch.Size([COUNT]), rate) == 0
    both = int((dropped[:-distance] & dropped[distance:]).sum())
    expected = (COUNT - distance) * rate**2
    deviation = np.sqrt(expected * (1 - rate**2) * 3)  # overlapping pairs: at most three times
    assert abs(both - expected) < 4 * deviation


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("rate", [0.25, 0.3])
def test_a_mask_has_the_shape_asked_for(shape: tuple[int, ...], rate: float) -> None:
    mask = draw_mask(torch.Size(shape), rate)
    assert (mask.shape, mask.dtype) == (torch.Size(shape), torch.int8)
    assert set(mask.flatten().tolist()) <= {0, 1}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.25, 0.3])
def test_what_is_kept_is_scaled_and_its_gradient_too(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    values = torch.linspace(1, 2, 1000).to(dtype).requires_grad_()
    output = Dropout(rate)(values)
    output.backward(torch.ones_like(output))
    assert values.grad is not None
    kept = output != 0
    assert 0 < kept.sum() < 1000
    for value, result, gradient, stays in zip(
        values.tolist(), output.tolist(), values.grad.tolist(), kept.tolist(), strict=True
    ):
        factor = 1 / (1 - rate) if stays else 0
        tolerance = 2e-7 if dtype is torch.float32 else 2**-8  # half a unit in the last place
        assert result == pytest.approx(factor * value, rel=tolerance)
        assert gradient == pytest.approx(factor, rel=tolerance)


def test_nothing_is_dropped_in_evaluation() -> None:
    values = torch.linspace(1, 2, 1000)
    assert torch.equal(Dropout(0.5).eval()(values), values)


def test_the_seed_decides_the_mask() -> None:
    masks = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        masks.append(draw_mask(torch.Size([1000]), 0.5))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
