"""What there is to draw of a run, as plain arrays: `drawing.py` draws it, in a process of its own.

N images, C channels (1 or 3), H rows, W columns, K classes, O kernels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class Tiles:
    """N images, uint8 (N, C, H, W), each with a line of text and whether that tells a mistake."""

    images: Array
    captions: Sequence[str]
    mistaken: bool = False


@dataclass(frozen=True)
class RunPictures:
    """All that is drawn of a run. What is None, or empty, has no picture."""

    name: str
    result: str  # in a line
    class_names: tuple[str, ...]
    # A mapping for each epoch, by the columns of metrics.csv.
    history: Sequence[Mapping[str, float]]
    tested_epoch: int | None
    samples: Tiles
    right: Tiles
    wrong: Tiles
    mistakes: Tiles
    # How many images of each class (rows) were called what (columns): int (K, K).
    confusion: Array
    # Weights of the first layer, float32 (O, C, H, W), if that is a convolution of images.
    kernels: Array | None
