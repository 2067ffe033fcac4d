"""What follows a convolution and is computed with it, by `epilogue.h`."""

from typing import NamedTuple

import torch
from torch import Tensor


class Epilogue(NamedTuple):
    """A max pooling of 2 x 2, then a ReLU."""

    pool: bool = False
    relu: bool = False

    def outputs(
        self, sizes_NPQO: tuple[int, int, int, int], dtype: torch.dtype
    ) -> tuple[Tensor, Tensor | None]:
        """Room for what comes of maps of these sizes, and for the choices of a pooling.

        The first is (N, O, P, Q) in channels_last, P and Q halved if pooled.
        """
        images, rows, columns, outputs = sizes_NPQO
        if self.pool:
            rows, columns = rows // 2, columns // 2
        y_NPQO = torch.empty(images, rows, columns, outputs, dtype=dtype)
        choice = torch.empty_like(y_NPQO, dtype=torch.uint8) if self.pool else None
        return y_NPQO.permute(0, 3, 1, 2), choice

    def kept(self, y: Tensor, choice: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """What of these the gradient asks."""
        return y if self.relu and not self.pool else None, choice


NO_EPILOGUE = Epilogue()
