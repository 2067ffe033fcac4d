"""What a dataset of one's own may yield, and images made grey or brought to a size."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from mnist_bench.data import Dataset, Images
from mnist_bench.data.labels import describe_rare_classes
from mnist_bench.data.loading import load, resize, to_grey
from mnist_bench.errors import DataError


class Given(Dataset):
    """Yields what it was given."""

    def __init__(self, given: Any):
        self.given = given

    def load(self, announce: Callable[[str], None]) -> Images:
        return self.given


@pytest.fixture
def few(images: Images) -> Images:
    return replace(
        images,
        **{
            f"train_{kind}": getattr(images, f"train_{kind}")[:300] for kind in ("images", "labels")
        },
        **{f"test_{kind}": getattr(images, f"test_{kind}")[:100] for kind in ("images", "labels")},
    )


@pytest.fixture
def coloured(images: Images) -> torch.Tensor:
    """Digits in three channels, uint8 (N, 28, 28, 3)."""
    return images.train_images[:600].view(200, 3, 28, 28).permute(0, 2, 3, 1).contiguous()


# --- Grey, and sizes --------------------------------------------------------------------------


def test_grey_is_pillows(coloured: torch.Tensor) -> None:
    noise = torch.randint(256, (50, 28, 28, 3), dtype=torch.uint8)
    for pixels in (coloured, noise):
        expected = [np.asarray(Image.fromarray(image.numpy()).convert("L")) for image in pixels]
        np.testing.assert_array_equal(to_grey(pixels), np.stack(expected))


def test_what_is_grey_stays_as_it_is(few: Images) -> None:
    three_alike = few.train_images[..., None].expand(-1, -1, -1, 3)
    assert torch.equal(to_grey(three_alike), few.train_images)
    assert to_grey(few.train_images) is few.train_images


@pytest.mark.parametrize("size", [(32, 32), (14, 14), (20, 45), (1, 1), (27, 28)])
def test_sizes_are_torchvisions_and_near_pillows(
    few: Images, coloured: torch.Tensor, size: tuple[int, int]
) -> None:
    """Pillow computes in whole numbers, and may be one off."""
    for pixels in (few.train_images[:50], coloured[:50], few.train_images[:50, ..., None]):
        found = resize(pixels, size)
        assert found.dtype == torch.uint8 and found.shape == (50, *size, *pixels.shape[3:])
        maps = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
        theirs = transforms.resize(maps.float(), list(size), antialias=True).round().byte()
        ours = found.unsqueeze(1) if pixels.ndim == 3 else found.permute(0, 3, 1, 2)
        assert torch.equal(ours, theirs)
        for image, copy in zip(pixels, found, strict=True):
            pillow = Image.fromarray(image.squeeze().numpy())
            pillow = np.asarray(pillow.resize(size[::-1], Image.Resampling.BILINEAR))
            assert (
                np.abs(pillow.astype(int) - copy.squeeze().numpy().reshape(pillow.shape)).max() <= 1
            )


def test_all_parts_are_changed(few: Images, coloured: torch.Tensor) -> None:
    given = Images(
        *(coloured[:100], few.train_labels[:100], coloured[100:150], few.test_labels[:50]),
        few.class_names,
        *(coloured[150:], few.test_labels[50:100]),
    )
    lines: list[str] = []
    found = load(Given(given), lines.append, image_size=(32, 30), grey=True)
    assert found.train_images.shape == (100, 32, 30)
    assert found.validation_images is not None
    assert torch.equal(found.validation_images, resize(to_grey(coloured[150:]), (32, 30)))
    assert torch.equal(found.test_images, resize(to_grey(coloured[100:150]), (32, 30)))
    assert torch.equal(given.train_images, coloured[:100])
    assert lines[-1] == "Images of 28 x 28 become 32 x 30."


def test_images_that_have_the_size_are_left_alone(few: Images) -> None:
    found = load(Given(few), lambda line: None, image_size=(28, 28))
    assert found.train_images is few.train_images


# --- What a dataset yields --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_images": [1]}, "train_images of list, expected a tensor of torch.uint8"),
        ({"train_images": torch.zeros(300, 28, 28)}, "of torch.float32 and shape (300, 28, 28), e"),
        ({"train_images": torch.zeros(300, 784, dtype=torch.uint8)}, "shape (300, 784), expected"),
        (
            {"test_images": torch.zeros(100, 3, 28, 28, dtype=torch.uint8)},
            "test_images of torch.uint8 and shape (100, 3, 28, 28), expected a tensor",
        ),
        ({"test_images": torch.zeros(100, 0, 28, dtype=torch.uint8)}, "there must be some"),
        (
            {"test_images": torch.zeros(100, 32, 32, dtype=torch.uint8)},
            "images of 32 x 32 to test on, unlike those of 28 x 28 to train on",
        ),
        (
            {"test_images": torch.zeros(100, 28, 28, 3, dtype=torch.uint8)},
            "images of 28 x 28 in 3 channels to test on, unlike those of 28 x 28 to train",
        ),
        ({"train_labels": torch.zeros(300)}, "train_labels of torch.float32 and shape (300,), exp"),
        ({"train_labels": torch.zeros(299, dtype=torch.int64)}, "one for each of the 300 images"),
        ({"test_labels": torch.full((100,), 10)}, "test_labels from 10 to 10, expected 0 to 9"),
        ({"test_labels": torch.full((100,), -1)}, "test_labels from -1 to -1, expected 0 to 9"),
        ({"class_names": ["a", "b"]}, "class_names=['a', 'b'], expected a tuple of str"),
        ({"class_names": ("a",)}, "has images of 1 class, a: a classifier needs two or more"),
        ({"class_names": (0, 1)}, "class_names=(0, 1), expected a tuple of str"),
        (
            {"validation_images": torch.zeros(5, 28, 28, dtype=torch.uint8)},
            "validation_labels of N",
        ),
        ({"validation_labels": torch.zeros(5, dtype=torch.int64)}, "validation_images of NoneType"),
    ],
)
def test_nonsense_is_refused_by_the_name_of_the_class(
    few: Images, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError) as refusal:
        load(Given(replace(few, **changes)), lambda line: None)
    assert f"{Given.__module__}.Given" in str(refusal.value) and said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_something_else_than_images_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"Given\.load gave dict, expected mnist_bench\.data\.Images"
    ):
        load(Given({}), lambda line: None)


# --- Rare classes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ([6000] * 10, None),
        ([6000] * 10 + [1], "class 10 has 1 image of 60,001"),
        ([50, 50, 2], "class 2 has 2 images of 102"),
        ([50, 50, 3], None),
        ([100, 0, 100], "class 1 has 0 images of 200"),
        # As uneven as DermaMNIST, which is as it should be.
        ([228, 359, 769, 80, 779, 4693, 99], None),
        (
            [100] * 20 + [1, 2, 3, 4, 1],
            "class 20 has 1 image, class 21 has 2 images, class 22 has 3 images of 2,011 "
            "and 2 other classes hardly more",
        ),
    ],
)
def test_classes_with_very_few_images_are_named(counts: list[int], said: str | None) -> None:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    names = tuple(str(number) for number in range(len(counts)))
    assert describe_rare_classes(labels, names) == said


def test_one_odd_label_is_announced(few: Images) -> None:
    labels = few.train_labels.clone()
    labels[7] = 10
    names = (*few.class_names, "10")
    lines: list[str] = []
    load(Given(replace(few, train_labels=labels, class_names=names)), lines.append)
    assert lines == ["Of the images to train on, class 10 has 1 image of 300."]
    load(Given(few), lines.append)
    assert len(lines) == 1
