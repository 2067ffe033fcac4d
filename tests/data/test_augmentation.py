"""Augmentation against SciPy's interpolation and the limits that it is given."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from mnist_bench.config.schema import TrainConfig
from mnist_bench.data.augmentation import Augmentation, build_augmentation, resample
from mnist_bench.data.images import Images

Compose = Callable[..., TrainConfig]


def draw_sources(compose: Compose, count: int, *overrides: str) -> Tensor:
    """Points (N, 28, 28, 2) that an augmentation with nothing but `overrides` draws."""
    torch.manual_seed(0)
    config = compose(*(f"augmentation.{override}" for override in overrides)).augmentation
    augmentation = build_augmentation(config)
    assert augmentation is not None
    return augmentation.draw_sources(torch.zeros(count, 1, 28, 28, dtype=torch.uint8))


# The middle of an image lies between its pixels; one of those around it is (0.5, 0.5).
X, Y = (torch.arange(28) - 13.5).expand(28, 28), (torch.arange(28) - 13.5)[:, None].expand(28, 28)


def test_resampling_is_scipys(compose: Compose, images: Images) -> None:
    batch = images.train_images[:20, None].float()
    limits = ("rotation=40", "translation=5", "scale=0.3", "shear=0.3", "elastic=2")
    sources = draw_sources(compose, 20, *limits)
    found = resample(batch, sources)
    for image, points, copy in zip(batch, sources, found, strict=True):
        rows_and_columns = points.flip(2).permute(2, 0, 1) + 13.5
        expected = ndimage.map_coordinates(
            np.pad(image[0].numpy(), 1), rows_and_columns.numpy() + 1, order=1, mode="grid-constant"
        )
        np.testing.assert_allclose(copy[0], expected, atol=0.01)


def test_images_that_come_from_where_they_are_stay_what_they_are(images: Images) -> None:
    batch = images.train_images[:20, None].float()
    unmoved = resample(batch, torch.stack([X, Y], 2).expand(20, -1, -1, -1))
    torch.testing.assert_close(unmoved, batch, rtol=0, atol=0.01)


def test_a_rotation_turns_by_any_angle_up_to_the_limit(compose: Compose) -> None:
    sources = draw_sources(compose, 4000, "rotation=30")
    angles = torch.atan2(sources[..., 1], sources[..., 0]) - torch.atan2(Y, X)
    angles = torch.remainder(angles + math.pi, 2 * math.pi) - math.pi
    assert (angles - angles[:, :1, :1]).abs().max() < 1e-4
    torch.testing.assert_close(sources.norm(dim=3), torch.hypot(X, Y).expand(4000, -1, -1))
    degrees = angles[:, 0, 0].rad2deg()
    assert degrees.abs().max() < 30 and degrees.abs().max() > 29.5
    assert degrees.mean().abs() < 1 and degrees.std() == pytest.approx(30 / math.sqrt(3), rel=0.03)


def test_a_shift_moves_every_pixel_alike_and_the_axes_apart(compose: Compose) -> None:
    moved = draw_sources(compose, 4000, "translation=3") - torch.stack([X, Y], 2)
    assert (moved - moved[:, :1, :1]).abs().max() < 1e-4
    shift = moved[:, 0, 0]
    assert (shift.abs().amax(0) > 2.95).all() and shift.abs().max() <= 3
    assert torch.corrcoef(shift.T)[0, 1].abs() < 0.05


def test_a_scale_enlarges_and_shrinks(compose: Compose) -> None:
    """A copy of `1 + s` times the size takes its pixels from 1 / (1 + s) of the way."""
    sources = draw_sources(compose, 4000, "scale=0.2")
    sizes = torch.hypot(X, Y)[0, 0] / sources[:, 0, 0].norm(dim=1)
    torch.testing.assert_close(
        sources * sizes.view(-1, 1, 1, 1), torch.stack([X, Y], 2).expand(4000, -1, -1, -1)
    )
    assert sizes.min() == pytest.approx(0.8, abs=0.002)
    assert sizes.max() == pytest.approx(1.2, abs=0.002)


def test_a_shear_moves_rows_against_each_other(compose: Compose) -> None:
    moved = draw_sources(compose, 4000, "shear=0.25") - torch.stack([X, Y], 2)
    assert moved[..., 1].abs().max() < 1e-5
    slopes = moved[..., 0] / Y
    assert (slopes - slopes[:, :1, :1]).abs().max() < 1e-4
    assert slopes.max() == pytest.approx(0.25, abs=0.002)


def test_elastic_displacements_have_the_deviation_and_smoothness_asked_for(
    compose: Compose,
) -> None:
    """White noise under a Gaussian is correlated at distance d by exp(-d² / (4 sigma²))."""
    moved = draw_sources(compose, 3000, "elastic=1.5", "smoothness=3") - torch.stack([X, Y], 2)
    middle = moved[:, 14, 9:20]
    assert middle.std() == pytest.approx(1.5, rel=0.03)
    assert middle.mean().abs() < 0.1
    for distance in (2, 5):
        pairs = torch.stack([moved[:, 14, 10, 0], moved[:, 14, 10 + distance, 0]])
        expected = math.exp(-(distance**2) / (4 * 3**2))
        assert torch.corrcoef(pairs)[0, 1].item() == pytest.approx(expected, abs=0.04)


def test_every_image_is_distorted_anew_and_by_the_seed(compose: Compose, images: Images) -> None:
    augmentation = build_augmentation(compose("augmentation=affine_elastic").augmentation)
    assert isinstance(augmentation, Augmentation)
    same = images.train_images[:1, None].expand(3, -1, -1, -1)
    torch.manual_seed(1)
    first, second = augmentation(same), augmentation(same)
    assert first.dtype == torch.float32 and first.min() >= 0 and first.max() <= 255
    assert not torch.equal(first[0], first[1]) and not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(augmentation(same), first)


def test_nothing_to_distort_leaves_the_step_alone(compose: Compose) -> None:
    assert build_augmentation(compose().augmentation) is None
    assert build_augmentation(compose("augmentation.smoothness=2").augmentation) is None


# --- Mirrors and crops ------------------------------------------------------------------------


@pytest.mark.parametrize("axis", ["horizontal", "vertical"])
def test_half_of_the_images_are_mirrored(compose: Compose, images: Images, axis: str) -> None:
    batch = images.train_images[:4000, None]
    augmentation = build_augmentation(compose(f"augmentation.{axis}_flip=true").augmentation)
    assert augmentation is not None
    torch.manual_seed(0)
    found = augmentation(batch)
    assert found.dtype == torch.float32
    mirrored = np.flip(batch.numpy(), 3 if axis == "horizontal" else 2)
    is_mirrored = (found.numpy() == mirrored).all((1, 2, 3))
    is_same = (found.numpy() == batch.numpy()).all((1, 2, 3))
    assert (is_mirrored | is_same).all()
    assert abs(is_mirrored.mean() - 0.5) < 4 * 0.5 / math.sqrt(4000)


def test_crops_are_taken_from_anywhere_in_a_black_frame(compose: Compose, images: Images) -> None:
    """Each of the 49 places of a frame of 3 pixels about equally often."""
    batch = images.train_images[:1, None].expand(4900, -1, -1, -1)
    augmentation = build_augmentation(compose("augmentation.crop=3").augmentation)
    assert augmentation is not None
    torch.manual_seed(0)
    found = [copy.tobytes() for copy in augmentation(batch).byte().numpy()]
    frame = np.pad(images.train_images[0].numpy(), 3)
    counts = [
        found.count(frame[top : top + 28, left : left + 28].tobytes())
        for top in range(7)
        for left in range(7)
    ]
    assert sum(counts) == 4900
    assert sum((count - 100) ** 2 / 100 for count in counts) < 93.2  # chi-square, 48, p = 1e-4


def test_every_image_keeps_its_own_crop(compose: Compose, images: Images) -> None:
    batch = images.train_images[:200, None, :, 4:20]  # rows and columns differ
    augmentation = build_augmentation(compose("augmentation.crop=2").augmentation)
    assert augmentation is not None
    found = augmentation(batch).byte().numpy()
    assert found.shape == (200, 1, 28, 16)
    for image, copy in zip(batch[:, 0].numpy(), found[:, 0], strict=True):
        frame = np.pad(image, 2)
        places = [(top, left) for top in range(5) for left in range(5)]
        assert any((frame[t : t + 28, j : j + 16] == copy).all() for t, j in places)


@pytest.mark.parametrize(
    "overrides",
    ["augmentation=affine_elastic", "augmentation=flip_crop augmentation.vertical_flip=true"],
)
def test_colours_of_an_image_move_together(
    compose: Compose, images: Images, overrides: str
) -> None:
    augmentation = build_augmentation(compose(*overrides.split()).augmentation)
    assert augmentation is not None
    grey = images.train_images[:50, None]
    torch.manual_seed(0)
    found = augmentation(grey.expand(-1, 3, -1, -1))
    torch.manual_seed(0)
    alone = augmentation(grey)
    assert found.shape == (50, 3, 28, 28)
    assert all(torch.equal(found[:, channel], alone[:, 0]) for channel in range(3))


def test_mirrors_and_crops_come_before_what_distorts(compose: Compose, images: Images) -> None:
    """And take their random numbers first; without them, the draws are what they were."""
    batch = images.train_images[:20, None]
    both = build_augmentation(compose("augmentation=affine", "augmentation.crop=2").augmentation)
    crop = build_augmentation(compose("augmentation.crop=2").augmentation)
    affine = build_augmentation(compose("augmentation=affine").augmentation)
    assert both is not None and crop is not None and affine is not None
    torch.manual_seed(3)
    found = both(batch)
    torch.manual_seed(3)
    assert torch.equal(affine(crop(batch)), found)
