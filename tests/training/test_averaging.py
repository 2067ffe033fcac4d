"""The running mean of the weights, against a sum over the steps."""

import math

import torch
from torch import nn

from mnist_bench.training.averaging import WeightAverage


def take_steps(
    decay: float, count: int
) -> tuple[nn.Module, WeightAverage, list[list[torch.Tensor]]]:
    """A network whose weights wander, its mean, and its weights and statistics after each step."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = WeightAverage(network, decay)
    history = [[value.clone() for value in network.state_dict().values()]]
    for step in range(count):
        average.begin_step(step)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += torch.randn_like(parameter)
        network(torch.randn(8, 3))
        average.update()
        history.append([value.clone() for value in network.state_dict().values()])
    return network, average, history


def test_the_mean_forgets_exponentially() -> None:
    decay, count = 0.6, 40
    _, average, history = take_steps(decay, count)
    kept = [1.0] + [1 - min(decay, (1 + t) / (10 + t)) for t in range(count)]
    shares = [
        share * math.prod(1 - later for later in kept[i + 1 :]) for i, share in enumerate(kept)
    ]
    assert abs(sum(shares) - 1) < 1e-9
    for index, mean in enumerate(average.network.state_dict().values()):
        if mean.is_floating_point():
            expected = sum(
                share * values[index].double()
                for share, values in zip(shares, history, strict=True)
            )
            torch.testing.assert_close(mean.double(), expected, rtol=1e-4, atol=1e-5)


def test_the_mean_begins_without_the_first_weights_and_trains_nothing() -> None:
    """After one step nine tenths are of the new weights."""
    network, average, (first, second) = take_steps(0.999, 1)
    expected = 0.1 * first[0] + 0.9 * second[0]
    torch.testing.assert_close(average.network.state_dict()["0.weight"], expected)
    assert not any(p.requires_grad for p in average.network.parameters())
    assert all(p.requires_grad for p in network.parameters())
