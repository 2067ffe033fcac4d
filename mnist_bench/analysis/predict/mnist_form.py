"""Any picture of a digit in the form of MNIST's images, as its authors made them.

"The original black and white (bilevel) images from NIST were size normalized to fit in a 20x20
pixel box while preserving their aspect ratio. The resulting images contain grey levels as a result
of the anti-aliasing technique used by the normalization algorithm. The images were centered in a
28x28 image by computing the center of mass of the pixels, and translating the image so as to
position this point at the center of the 28x28 field." (LeCun, Cortes, Burges: the MNIST database.)

H rows, W columns; levels are 0 to 255.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from mnist_bench.errors import DataError

FIELD = 28
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Form:
    """The box that a mark is scaled to fit, and whether its centre of mass is what is centred."""

    box: int
    by_mass: bool


# What the publishers of each dataset did. EMNIST's letters stand in the middle of a square with a
# margin of two pixels (Cohen and others, 2017); Fashion-MNIST's and KMNIST's pictures fill the
# field. Of MNIST, tests/analysis/test_mnist_form.py has it measured.
FORMS = {
    "mnist": Form(20, True),
    "qmnist": Form(20, True),
    "emnist": Form(24, False),
    "fashion_mnist": Form(28, False),
    "kmnist": Form(28, False),
}

# A mark that stands out by fewer levels, or by less than so many times the ground's noise, is none.
LEAST_CONTRAST = 12.0
LEAST_OVER_NOISE = 8.0
# Where a mark ends, as a part of its own contrast.
EDGE = 0.1
# Pictures are looked at no larger than this.
ENOUGH = 640
# The grid on which parts of a mark are told from specks, and what a speck is beside the largest.
GRID = 64
SPECK = 0.03
# Lines that are thinner in the field than those of 199 in 200 of MNIST's digits become as wide as
# by a pen; and how many pixels each of the box has while they are made so.
HAIRLINE, PEN = 1.2, 1.8
FINENESS = 4


def to_mnist(image: Image.Image, form: Form = FORMS["mnist"]) -> NDArray[np.uint8]:
    """Return a grey picture (mode L, any size) as uint8 (28, 28): a light mark on black.

    One of 28 x 28 that is light on dark is returned as it is.

    Raises:
        DataError: nothing is drawn on it.
    """
    if image.size == (FIELD, FIELD):
        pixels = np.asarray(image)
        if _ground(pixels) < 128 and np.ptp(pixels) >= LEAST_CONTRAST:
            return np.array(pixels)
    factor = -(-max(image.size) // ENOUGH)
    if factor > 1:
        image = image.reduce(factor)
    ink_HW = find_ink(np.asarray(image, np.float32))
    rows, columns = _box_of(_without_specks(ink_HW))
    return _centred(_scaled(ink_HW[rows, columns], form.box), form)


def _ground(levels_HW: NDArray[np.generic]) -> float:
    """Return the level of what is drawn on: the middle one along the border."""
    return float(np.median(np.concatenate(_border(levels_HW))))


def _border(values_HW: NDArray[np.generic]) -> tuple[NDArray[np.generic], ...]:
    return values_HW[0], values_HW[-1], values_HW[:, 0], values_HW[:, -1]


def find_ink(levels_HW: Floats) -> Floats:
    """Return how much of a mark is at each pixel, 0 to 1, whether it is lighter or darker.

    Raises:
        DataError: nothing stands out from the ground.
    """
    distance_HW = levels_HW - _evenly_lit(levels_HW)
    # 1.4826 makes a median deviation a standard one; half a level is rounding.
    edge = np.concatenate(_border(distance_HW))
    noise = 1.4826 * float(np.median(np.abs(edge)))
    if noise <= 0.75:
        noise = 0.0
    highest, lowest = float(distance_HW.max()), float(distance_HW.min())
    if -lowest > highest:
        distance_HW = -distance_HW
    peak = max(highest, -lowest)
    if peak < max(LEAST_CONTRAST, LEAST_OVER_NOISE * noise):
        raise DataError("nothing is drawn on it")
    above_HW = distance_HW - 3 * noise
    of_mark = above_HW[above_HW > 0.3 * (peak - 3 * noise)]
    ink_HW: Floats = (above_HW / np.percentile(of_mark, 90)).clip(0, 1)
    return ink_HW


def _evenly_lit(levels_HW: Floats) -> Floats | np.float32:
    """Return the level of the ground: one for all pixels, or a plane through the border.

    That has the least absolute deviations, by reweighting, so that a mark that reaches the border
    in places does not tilt it.
    """
    height, width = levels_HW.shape
    levels = np.concatenate(_border(levels_HW)).astype(np.float64)
    constant = float(np.median(levels))
    if np.median(np.abs(levels - constant)) == 0:  # as in what a program drew
        return np.float32(constant)
    y_H1 = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x_1W = np.linspace(-1, 1, width, dtype=np.float32)[None]
    x, y = (np.concatenate(_border(np.broadcast_to(v, levels_HW.shape))) for v in (x_1W, y_H1))
    terms = np.stack([np.ones_like(x), x, y], 1)
    plane = np.array([constant, 0.0, 0.0])
    for _ in range(15):
        weight = 1 / np.sqrt(np.maximum(np.abs(levels - terms @ plane), 0.5))
        plane = np.linalg.lstsq(terms * weight[:, None], levels * weight, rcond=None)[0]
    middle, across, down = plane.astype(np.float32)
    ground_HW: Floats = middle + across * x_1W + down * y_H1
    return ground_HW


def _without_specks(ink_HW: Floats) -> Floats:
    """Return the ink without parts that are tiny beside the largest, such as dust on paper."""
    height, width = ink_HW.shape
    side = max(1, -(-max(height, width) // GRID))
    padded = np.pad(ink_HW > EDGE, ((0, -height % side), (0, -width % side)))
    cells = padded.reshape(padded.shape[0] // side, side, padded.shape[1] // side, side)
    mass = cells.sum((1, 3))
    parts = _connected(mass > 0)
    sizes = np.bincount(parts.ravel(), mass.ravel())
    sizes[0] = 0
    keep = (sizes >= SPECK * sizes.max())[parts]
    if keep.all() or keep[mass > 0].all():
        return ink_HW
    kept_HW = keep.repeat(side, 0).repeat(side, 1)[:height, :width]
    return np.where(kept_HW, ink_HW, np.float32(0))


def _connected(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number the parts of a mask whose cells touch, at corners too; 0 is where it is not."""
    numbers = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        around = np.pad(numbers, 1)
        largest = np.maximum(np.maximum(around[:-2], around[1:-1]), around[2:])
        largest = np.maximum(np.maximum(largest[:, :-2], largest[:, 1:-1]), largest[:, 2:])
        # Each takes the number of the cell that its own one is the place of: the way doubles.
        largest = np.concatenate([[0], largest.ravel()])[largest]
        spread = np.where(mask, largest, 0)
        if np.array_equal(spread, numbers):
            return np.unique(numbers, return_inverse=True)[1].reshape(mask.shape)
        numbers = spread


def _box_of(ink_HW: Floats) -> tuple[slice, slice]:
    """Return the rows and columns that the mark takes."""
    mark_HW = ink_HW > EDGE
    rows, columns = np.flatnonzero(mark_HW.any(1)), np.flatnonzero(mark_HW.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _scaled(ink_HW: Floats, box: int) -> Floats:
    """Fit a mark into a square box, its longer side from edge to edge, without aliasing."""
    if _width_of_lines(ink_HW) * box / max(ink_HW.shape) < HAIRLINE:
        ink_HW = _thickened(ink_HW, box)
    return _fitted(ink_HW, box)


def _fitted(ink_HW: Floats, box: int) -> Floats:
    height, width = ink_HW.shape
    scale = box / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    way = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    scaled: Floats = np.asarray(Image.fromarray(ink_HW).resize(size, way)).clip(0, 1)
    # A line that has become faint is lit up again.
    brightest = np.percentile(scaled[scaled > 0.3 * scaled.max()], 90)
    lit: Floats = (scaled / np.float32(brightest)).clip(0, 1)
    return lit


def _width_of_lines(ink_HW: Floats) -> float:
    """Return how wide the lines of a mark are on average, in pixels: two areas by its outline."""
    mark_HW = np.pad(ink_HW > 0.5, 1)
    steps = np.count_nonzero(np.diff(mark_HW, axis=0)) + np.count_nonzero(np.diff(mark_HW, axis=1))
    # Counted along rows and columns, an outline of all directions is longer by 4 / pi.
    return 2 * np.count_nonzero(mark_HW) / max(steps * np.pi / 4, 1)


def _thickened(ink_HW: Floats, box: int) -> Floats:
    """Give thin lines the width of a PEN, at a few pixels for each of the box."""
    fine = FINENESS * box
    if max(ink_HW.shape) > fine:
        ink_HW = _fitted(ink_HW, fine)
    wanted = PEN * max(ink_HW.shape) / box
    reach = max(1, round((wanted - _width_of_lines(ink_HW)) / 2))
    levels = np.pad(ink_HW * 255, reach).round().astype(np.uint8)
    thick = Image.fromarray(levels).filter(ImageFilter.MaxFilter(2 * reach + 1))
    thick_HW: Floats = np.asarray(thick, np.float32) / np.float32(255)
    return thick_HW[_box_of(thick_HW)]


def _centred(ink_HW: Floats, form: Form) -> NDArray[np.uint8]:
    """Place a mark in the field, by its centre of mass or its middle, and not beyond its edges."""
    height, width = ink_HW.shape
    if form.by_mass:  # in MNIST within half a pixel of row and column 14, counted from 0
        total = ink_HW.sum()
        middle_y = float(ink_HW.sum(1) @ np.arange(height) / total)
        middle_x = float(ink_HW.sum(0) @ np.arange(width) / total)
        top, left = (int(np.ceil(FIELD / 2 - m - 0.5)) for m in (middle_y, middle_x))
    else:
        top, left = (FIELD - height) // 2, (FIELD - width) // 2
    top, left = min(max(top, 0), FIELD - height), min(max(left, 0), FIELD - width)
    field = np.zeros((FIELD, FIELD), np.uint8)
    field[top : top + height, left : left + width] = (ink_HW * 255).round()
    return field
