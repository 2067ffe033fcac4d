"""PyTorch's CUDA build over a runtime without a GPU: see README.md."""

from .build import environment, why_not

__all__ = ["environment", "why_not"]
