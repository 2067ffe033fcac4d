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


def caption(predicted: str, truth: str, confidence: float | None = None) -> str:
    """Return `7 / 1  98%`: what an image was called and what it is, short enough to stand above it.

    With `confidence`, the probability of what it was called.
    """
    percent = "" if confidence is None else f"  {_percent(confidence)}"
    return f"{_cut(predicted)} / {_cut(truth)}{percent}"


# Letters of a class's name, where two stand side by side.
LETTERS = 8


def _cut(name: str) -> str:
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"


def _percent(share: float) -> str:
    """A probability as people read it; what is not certain is not called so."""
    return f"{min(share, 0.9999):.2%}" if share > 0.995 else f"{share:.0%}"


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
