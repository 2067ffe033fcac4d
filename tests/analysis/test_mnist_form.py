"""Pictures in MNIST's form, held against MNIST itself, and against plain loops over pixels."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from mnist_bench.analysis.predict.mnist_form import FORMS, to_mnist
from mnist_bench.errors import DataError

NEAREST, BICUBIC = Image.Resampling.NEAREST, Image.Resampling.BICUBIC


def centre_of_mass(pixels):
    """Row and column, by one loop over all pixels."""
    total = row_sum = column_sum = 0
    for row in range(28):
        for column in range(28):
            value = int(pixels[row, column])
            total += value
            row_sum += row * value
            column_sum += column * value
    return row_sum / total, column_sum / total


def box(pixels, level=0):
    rows, columns = (pixels > level).any(1).nonzero()[0], (pixels > level).any(0).nonzero()[0]
    return rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1


def drawn(size=(400, 400), ground=255, ink=0, width=24, line=((120, 90), (280, 90), (190, 320))):
    image = Image.new("L", size, ground)
    ImageDraw.Draw(image).line(line, ink, width, joint="curve")
    return image


@pytest.fixture(scope="module")
def digits(images):
    return images.test_images[:150].numpy()


def test_mnist_itself_has_the_form(digits) -> None:
    """What its authors wrote: a box of 20, and the centre of mass within half a pixel of 14."""
    for digit in digits:
        assert max(box(digit)) == 20
        assert all(13.5 <= place < 14.5 for place in centre_of_mass(digit))


def test_a_light_mark_on_dark_of_28_by_28_stays_to_the_bit(images) -> None:
    for digit in images.test_images.numpy():
        assert np.array_equal(to_mnist(Image.fromarray(digit)), digit)


@pytest.mark.parametrize(("size", "inverted"), [(28, True), (280, False), (280, True)])
def test_other_sizes_and_dark_on_light_come_back_as_mnist_has_them(digits, size, inverted) -> None:
    """All but a few whose centre of mass is between two pixels, and then beside by one."""
    different = []
    for digit in digits:
        picture = Image.fromarray(digit).resize((size, size), NEAREST)
        found = to_mnist(ImageOps.invert(picture) if inverted else picture)
        different.append(np.abs(found.astype(int) - digit).mean())
    assert np.mean(np.array(different) < 1) > 0.95
    assert max(different) < 25


def test_the_mark_fits_the_box_and_its_mass_is_in_the_middle() -> None:
    for size, line in [
        ((400, 400), ((120, 90), (280, 90), (190, 320))),
        ((900, 300), ((700, 40), (860, 60), (720, 260))),
        ((60, 1500), ((20, 1100), (40, 1120), (25, 1180))),
    ]:
        found = to_mnist(drawn(size, line=line, width=6))
        assert found.shape == (28, 28) and found.dtype == np.uint8
        assert found.max() >= 250
        assert abs(max(box(found)) - 20) <= 1
        assert all(abs(place - 14) <= 0.75 for place in centre_of_mass(found))


def test_the_aspect_ratio_stays() -> None:
    image = Image.new("L", (300, 300), 255)
    ImageDraw.Draw(image).rectangle((50, 140, 249, 179), 0)  # 200 x 40
    assert box(to_mnist(image), 100) == (4, 20)


def test_a_hairline_can_be_seen() -> None:
    found = to_mnist(drawn((600, 600), width=1, line=((150, 120), (420, 120), (260, 500))))
    assert found.max() == 255
    assert (found > 120).sum() >= 20


def test_dust_and_noise_and_uneven_light_do_not_move_the_mark() -> None:
    clean = drawn()
    expected = to_mnist(clean).astype(int)
    draw = np.random.default_rng(0)
    dusty = clean.copy()
    for x, y in ((8, 8), (390, 20), (15, 380), (380, 385)):
        ImageDraw.Draw(dusty).rectangle((x, y, x + 4, y + 4), 60)
    y, x = np.mgrid[-1:1:400j, -1:1:400j]
    paper = 190 + 35 * x - 25 * y - 110 * (1 - np.asarray(clean) / 255.0)
    photo = Image.fromarray((paper + draw.normal(0, 4, x.shape)).clip(0, 255).astype(np.uint8))
    for picture in (dusty, photo):
        assert np.abs(to_mnist(picture).astype(int) - expected).mean() < 6


def test_a_mark_that_touches_the_border_is_still_told_from_the_ground() -> None:
    line = ((120, 0), (280, 0), (190, 399))
    dark, light = drawn(line=line), drawn(ground=0, ink=255, line=line)
    assert np.abs(to_mnist(dark).astype(int) - to_mnist(light)).max() <= 2


@pytest.mark.parametrize(
    "levels",
    [
        np.full((28, 28), 0.0),
        np.full((28, 28), 255.0),
        np.full((300, 200), 128.0),
        np.random.default_rng(0).normal(200, 6, (300, 300)),
        np.broadcast_to(np.linspace(90, 210, 300), (300, 300)),
        200 + 4 * np.eye(300),
    ],
    ids=["black", "white", "grey", "noise", "uneven light", "a trace"],
)
def test_where_nothing_is_drawn_a_sentence_says_so(levels) -> None:
    with pytest.raises(DataError, match="nothing is drawn"):
        to_mnist(Image.fromarray(levels.round().clip(0, 255).astype(np.uint8)))


def test_fashion_fills_the_field_and_stands_in_its_middle() -> None:
    image = Image.new("L", (300, 300), 255)
    ImageDraw.Draw(image).polygon(((50, 100), (250, 100), (50, 180)), 0)
    found = to_mnist(image, FORMS["fashion_mnist"])
    rows, columns = (found > 100).any(1).nonzero()[0], (found > 100).any(0).nonzero()[0]
    assert columns[-1] - columns[0] + 1 >= 27
    assert abs((rows[0] + rows[-1]) / 2 - 13.5) <= 1
