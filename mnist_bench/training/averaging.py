"""A running mean of a network's weights, which errs less than the weights of any one step."""

import copy

import torch
from torch import Tensor, nn


class WeightAverage:
    """A copy of a network that keeps the share `decay` of its weights at each step.

    The rest is taken from the network that trains; so are batch norm's running statistics. Before
    step 9 / (1 - decay) or so less is kept, (1 + t) / (10 + t) after t steps, so that the first
    weights are soon forgotten (as TensorFlow's ExponentialMovingAverage does with `num_updates`).
    """

    def __init__(self, network: nn.Module, decay: float):
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False)
        pairs = [
            (mean, value)
            for mean, value in zip(
                self.network.state_dict().values(), network.state_dict().values(), strict=True
            )
            if isinstance(mean, Tensor) and mean.is_floating_point()
        ]
        self.means, self.values = ([pair[i] for pair in pairs] for i in range(2))
        # On the device, where a CUDA graph reads it.
        self.share = torch.zeros((), device=self.means[0].device)

    def begin_step(self, steps: int) -> None:
        self.share.fill_(1 - min(self.decay, (1 + steps) / (10 + steps)))

    def begin_anew(self, network: nn.Module) -> None:
        """Forget all weights but those of a network like the one that trains."""
        self.network.load_state_dict(network.state_dict())

    @torch.no_grad()
    def update(self) -> None:
        differences = torch._foreach_sub(self.values, self.means)
        torch._foreach_mul_(differences, self.share)
        torch._foreach_add_(self.means, differences)
