"""Dropout's masks by their counts, and its function by a loop over elements."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mnist_bench.kernels import build
from mnist_bench.kernels.dropout import Coins, Dropout, drop

RATES = [0.25, 0.5, 0.1, 0.3, 1 / 256, 0.9, 0.9999, 1e-9]
COUNT = 4_000_000


@pytest.fixture(params=["in C", "by PyTorch's operations"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "in C" and build.compiler() is None:
        pytest.skip("needs AVX-512 and a C compiler")
    if request.param != "in C":
        monkeypatch.setattr(build, "library", lambda name, dtype: None)
    return request.param


def dropped(count: int, rate: float) -> Tensor:
    return Dropout(rate)(torch.ones(count)) == 0


@pytest.mark.parametrize("rate", RATES)
def test_a_mask_drops_its_rate(rate: float) -> None:
    torch.manual_seed(0)
    found = int(dropped(COUNT, rate).sum())
    deviation = np.sqrt(COUNT * rate * (1 - rate))
    assert abs(found - COUNT * rate) < 4 * deviation


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.3])
@pytest.mark.parametrize("distance", [1, 2, 3, 4, 7, 8, 9, 16, 4096, COUNT // 8])
def test_elements_are_dropped_independently(rate: float, distance: int) -> None:
    """Neighbours, draws of one generator (16 apart), of two in turn (4096 apart), bits of a word of
    coins (the next bit is COUNT // 8 away) and of the word next to it.
    """
    torch.manual_seed(1)
    mask = dropped(COUNT, rate)
    both = int((mask[:-distance] & mask[distance:]).sum())
    expected = (COUNT - distance) * rate**2
    deviation = np.sqrt(expected * (1 - rate**2) * 3)  # overlapping pairs: at most three times
    assert abs(both - expected) < 4 * deviation


@pytest.mark.parametrize("rate", [0.25, 0.5, 0.3])
def test_steps_are_independent(rate: float) -> None:
    torch.manual_seed(2)
    both = int((dropped(COUNT, rate) & dropped(COUNT, rate)).sum())
    assert abs(both - COUNT * rate**2) < 4 * np.sqrt(COUNT * rate**2 * (1 - rate**2))


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (2, 3, 4, 5), (5, 4099)])
@pytest.mark.parametrize("rate", [0.25, 0.3])
def test_every_shape_has_a_mask(shape: tuple[int, ...], rate: float) -> None:
    output = Dropout(rate)(torch.ones(shape))
    assert output.shape == shape
    assert set((output * (1 - rate)).round(decimals=6).flatten().tolist()) <= {0, 1}


@pytest.mark.parametrize("way", ["in C"], indirect=True)
def test_numbers_are_those_of_xoshiro() -> None:
    """Against both generators as their authors print them, in Python's integers."""
    lanes, piece, count, seed = 16, 4096, 5000, 2**62 + 12345

    def splitmix(number: int) -> int:
        z = (seed + number * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    def rotate(x: int, by: int) -> int:
        return (x << by | x >> (32 - by)) % 2**32

    def xoshiro(s: list[int]) -> int:
        drawn = (rotate((s[0] + s[3]) % 2**32, 7) + s[0]) % 2**32
        shifted = (s[1] << 9) % 2**32
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= shifted
        s[3] = rotate(s[3], 11)
        return drawn

    expected = []
    for first in range(0, count, piece):
        states = []
        for lane in range(lanes):
            words = [splitmix(2 * (first // piece * lanes + lane) + half) for half in (1, 2)]
            states.append([part for word in words for part in (word % 2**32, word >> 32)])
        expected += [xoshiro(states[i % lanes]) for i in range(piece)]
    for rate in (0.5, 0.3):
        kept = drop(torch.ones(count), Coins.of(seed, rate)) != 0
        assert kept.tolist() == [number >= round(rate * 2**32) for number in expected[:count]]


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
        masks.append(dropped(1000, 0.5))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])
