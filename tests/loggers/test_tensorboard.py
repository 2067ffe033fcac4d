"""What TensorBoard is given to show."""

import pytest
import torch

from mnist_bench.data.images import Images
from mnist_bench.loggers.tensorboard import _grid


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (16, 1), (20, 2), (100, 4)])
def test_images_stand_in_rows_of_sixteen_with_grey_between(
    images: Images, count: int, rows: int
) -> None:
    """The first 64, each in a frame of one pixel; what is left of the last row is grey."""
    shown = images.test_images[:count]
    expected = torch.full((1, rows * 30, 16 * 30), 128, dtype=torch.uint8)
    for place, image in enumerate(shown[:64]):
        row, column = divmod(place, 16)
        top, left = 30 * row + 1, 30 * column + 1
        expected[0, top : top + 28, left : left + 28] = image
    assert torch.equal(_grid(shown[:, None]), expected)


def test_images_in_colour_are_shown_in_colour(images: Images) -> None:
    shown = images.test_images[:60].view(20, 3, 28, 28)[..., 3:25]  # rows and columns differ
    found = _grid(shown)
    assert found.shape == (3, 2 * 30, 16 * 24)
    for channel in range(3):
        assert torch.equal(found[channel], _grid(shown[:, channel : channel + 1])[0])
