"""PyTorch's layers, computed another way where that is faster. All of it is optional.

`accelerate` rewrites a built network; README.md here says what with, when, and how exactly.
"""

from mnist_bench.kernels.rewrite import accelerate, describe, resolve, why_portable

__all__ = ["accelerate", "describe", "resolve", "why_portable"]
