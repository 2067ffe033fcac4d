"""A convolution's shape, and what follows it and is computed with it, by `epilogue.h`."""

import ctypes
from typing import NamedTuple, Self

import torch
from torch import Tensor


class Epilogue(NamedTuple):
    """A max pooling of 2 x 2, then a ReLU."""

    pool: bool = False
    relu: bool = False

    def outputs(
        self, sizes_NPQO: tuple[int, int, int, int], dtype: torch.dtype
    ) -> tuple[Tensor, Tensor | None]:
        """Room for what comes of maps of these sizes, and for what the gradient asks of it.

        The first is (N, O, P, Q) in channels_last, P and Q halved if pooled. The second has for
        each of its values a byte, the place of a maximum, or a bit, whether a ReLU lets it pass.
        """
        images, rows, columns, outputs = sizes_NPQO
        if self.pool:
            rows, columns = rows // 2, columns // 2
        y_NPQO = torch.empty(images, rows, columns, outputs, dtype=dtype)
        size = y_NPQO.numel() if self.pool else y_NPQO.numel() // 8 if self.relu else 0
        choice = torch.empty(size, dtype=torch.uint8) if size else None
        return y_NPQO.permute(0, 3, 1, 2), choice


NO_EPILOGUE = Epilogue()


class Shape(ctypes.Structure):
    """`shape` of epilogue.h."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("n", "h", "w", "c", "p", "q", "k", "padding", "pool", "relu")
    ]

    @classmethod
    def of(cls, x_NIHW: Tensor, weight_OIkk: Tensor, padding: int, epilogue: Epilogue) -> Self:
        """A convolution of stride 1, padded alike on either side."""
        images, inputs, height, width = x_NIHW.shape
        outputs, _, k, _ = weight_OIkk.shape
        rows, columns = height + 2 * padding - k + 1, width + 2 * padding - k + 1
        return cls(images, height, width, inputs, rows, columns, outputs, padding, *epilogue)
