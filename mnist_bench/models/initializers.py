"""Keras's initialisers for convolution and dense kernels.

Source: Keras `VarianceScaling`. Keras's normals are truncated at two standard deviations, and
widened so that the variance after truncation is the one asked for.
"""

import math

import torch
from torch import Tensor, nn

from mnist_bench.config.schema import Initializer

# Standard deviation of a unit normal truncated to [-2, 2].
TRUNCATED_NORMAL_STD = 0.87962566103423978


@torch.no_grad()
def initialise(weight: Tensor, initializer: Initializer) -> None:
    """Fill a kernel in place: a convolution's (O, I, k, k) or a dense layer's (O, I)."""
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(weight)
    match initializer:
        case Initializer.glorot_uniform | Initializer.glorot_normal:
            variance = 2 / (fan_in + fan_out)
        case Initializer.he_uniform | Initializer.he_normal:
            variance = 2 / fan_in
    match initializer:
        case Initializer.glorot_uniform | Initializer.he_uniform:
            limit = math.sqrt(3 * variance)
            nn.init.uniform_(weight, -limit, limit)
        case Initializer.glorot_normal | Initializer.he_normal:
            std = math.sqrt(variance) / TRUNCATED_NORMAL_STD
            nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
