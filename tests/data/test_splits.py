"""Which real MNIST images train, validate and test, and how pixels become the network's input."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from mnist_bench.config.schema import TrainConfig
from mnist_bench.data.images import Images
from mnist_bench.data.splits import ImageSet, Splits, epoch_order, split_images
from mnist_bench.errors import ConfigError

Compose = Callable[..., TrainConfig]


@pytest.fixture
def split(compose: Compose, images: Images) -> Callable[..., Splits]:
    return lambda *overrides: split_images(images, compose(*overrides).data)


def assert_same(part: ImageSet, images: torch.Tensor, labels: torch.Tensor) -> None:
    assert len(part) == len(labels)
    assert torch.equal(part.images, images.unsqueeze(1))
    assert torch.equal(part.labels, labels)


# Overrides, then the training images that train, and the images that validate.
TEST = "test"
SPLITS = [
    ("", slice(0, 55_000), slice(55_000, 60_000)),
    ("experiment=vgg16", slice(0, 45_000), slice(45_000, 60_000)),
    ("experiment=cnn3x3", slice(5_000, 60_000), TEST),
    ("experiment=mnist_cnn", slice(0, 60_000), TEST),
    ("data.holdout_from=first", slice(5_000, 60_000), slice(0, 5_000)),
    ("data.holdout_from=first data.holdout_size=0.1", slice(6_000, 60_000), slice(0, 6_000)),
    ("data.validation=test", slice(0, 55_000), TEST),
    ("data.holdout_size=1", slice(0, 59_999), slice(59_999, 60_000)),
    ("data.holdout_size=59999", slice(0, 1), slice(1, 60_000)),
]


@pytest.mark.parametrize(("overrides", "train", "validation"), SPLITS)
def test_splits_are_slices_of_the_files(
    split: Callable[..., Splits],
    images: Images,
    overrides: str,
    train: slice,
    validation: slice | str,
) -> None:
    # Pixels unscaled: these are the images themselves.
    found = split(*overrides.split(), "data.scaling=raw")
    assert_same(found.train, images.train_images[train], images.train_labels[train])
    assert_same(found.test, images.test_images, images.test_labels)
    if validation == TEST:
        assert_same(found.validation, images.test_images, images.test_labels)
    else:
        held_out = images.train_images[validation], images.train_labels[validation]
        assert_same(found.validation, *held_out)
    assert found.num_classes == 10


def test_limit_applies_to_each_part_after_the_split(
    split: Callable[..., Splits], images: Images
) -> None:
    found = split("data.limit=300", "data.holdout_size=200", "data.holdout_from=first")
    assert_same(found.train, images.train_images[200:500], images.train_labels[200:500])
    assert_same(found.validation, images.train_images[:200], images.train_labels[:200])
    assert_same(found.test, images.test_images[:300], images.test_labels[:300])


@pytest.mark.parametrize("size", ["60000", "70000", "0.999999"])
def test_a_holdout_that_leaves_nothing_to_train_on_is_refused(
    split: Callable[..., Splits], size: str
) -> None:
    with pytest.raises(ConfigError, match=rf"data\.holdout_size={size} .*60000 training images"):
        split(f"data.holdout_size={size}")


@pytest.mark.parametrize("size", ["0", "0.0", "1e-06"])
def test_a_holdout_without_a_single_image_is_refused(
    split: Callable[..., Splits], size: str
) -> None:
    with pytest.raises(ConfigError, match=rf"data\.holdout_size={size} .*data\.validation=test"):
        split(f"data.holdout_size={size}")
    assert len(split(f"data.holdout_size={size}", "data.validation=test").train) == 60_000


@pytest.mark.parametrize("held_out_from", ["last", "first"])
@pytest.mark.parametrize("size", ["5000", "0.25", "7", "59990"])
def test_a_stratified_holdout_has_each_class_in_proportion(
    split: Callable[..., Splits], images: Images, held_out_from: str, size: str
) -> None:
    """The last or first images of each class; counts within one of the exact share."""
    found = split(
        "data.stratified=true", f"data.holdout_from={held_out_from}", f"data.holdout_size={size}"
    )
    count = round(float(size) * 60_000) if "." in size else int(size)
    assert len(found.validation) == count and len(found.train) == 60_000 - count
    chosen = np.zeros(60_000, bool)
    labels = images.train_labels.numpy()
    for label in range(10):
        of_class = [row for row in range(60_000) if labels[row] == label]
        held = int((found.validation.labels == label).sum())
        assert abs(held - count * len(of_class) / 60_000) < 1
        rows = of_class[len(of_class) - held :] if held_out_from == "last" else of_class[:held]
        chosen[rows] = True
    assert_same(found.validation, images.train_images[chosen], images.train_labels[chosen])
    assert_same(found.train, images.train_images[~chosen], images.train_labels[~chosen])


def test_nothing_held_out_of_each_class_is_nothing(split: Callable[..., Splits]) -> None:
    found = split("data.stratified=true", "data.holdout_size=0", "data.validation=test")
    assert len(found.train) == 60_000


@pytest.mark.parametrize("validation", ["holdout", "test"])
def test_images_to_validate_on_leave_the_training_images_whole(
    compose: Compose, images: Images, validation: str
) -> None:
    given = replace(
        images,
        validation_images=images.train_images[:700],
        validation_labels=images.train_labels[:700],
    )
    config = compose(f"data.validation={validation}", "data.holdout_size=60000").data
    found = split_images(given, config)
    assert_same(found.train, images.train_images, images.train_labels)
    if validation == "test":
        assert_same(found.validation, images.test_images, images.test_labels)
    else:
        assert_same(found.validation, images.train_images[:700], images.train_labels[:700])


def test_classes_and_shape_are_those_of_the_dataset(split: Callable[..., Splits]) -> None:
    found = split("data.limit=10")
    assert found.class_names == tuple("0123456789") and found.image_shape == (1, 28, 28)


# --- Colours ----------------------------------------------------------------------------------


@pytest.fixture
def coloured(images: Images) -> Images:
    """Digits in three channels of different darkness, 28 x 20."""

    def stack(pixels: torch.Tensor) -> torch.Tensor:
        digits = pixels[:3000, :, 4:24].reshape(-1, 3, 28, 20).permute(0, 2, 3, 1)
        return (digits * torch.tensor([1.0, 0.5, 0.1])).byte()

    return Images(
        *(stack(images.train_images), images.train_labels[:1000]),
        *(stack(images.test_images), images.test_labels[:1000], images.class_names),
    )


def test_coloured_images_come_channel_by_channel(compose: Compose, coloured: Images) -> None:
    found = split_images(coloured, compose("data.holdout_size=100").data)
    assert found.image_shape == (3, 28, 20)
    for channel in range(3):
        for part, images in (
            (found.train, coloured.train_images[:900]),
            (found.validation, coloured.train_images[900:]),
            (found.test, coloured.test_images),
        ):
            assert torch.equal(part.images[:, channel], images[..., channel])


def test_one_channel_behind_is_as_none(compose: Compose, images: Images) -> None:
    config = compose("data.scaling=standardised").data
    behind = replace(
        images,
        train_images=images.train_images.unsqueeze(3),
        test_images=images.test_images.unsqueeze(3),
    )
    found, plain = split_images(behind, config), split_images(images, config)
    assert torch.equal(found.train.images, plain.train.images)
    assert found.scaling == plain.scaling


@pytest.mark.parametrize("scaling", ["unit", "raw", "standardised"])
def test_colours_are_scaled_each_by_itself(
    compose: Compose, coloured: Images, scaling: str
) -> None:
    config = compose("data.holdout_size=100", f"data.scaling={scaling}").data
    found = split_images(coloured, config)
    pixels = coloured.test_images.numpy().astype(np.float64).transpose(0, 3, 1, 2)
    if scaling == "unit":
        pixels = pixels / 255
    elif scaling == "standardised":
        for channel in range(3):
            seen = coloured.train_images[:900, ..., channel].numpy()
            pixels[:, channel] -= seen.mean(dtype=np.float64)
            pixels[:, channel] /= seen.std(dtype=np.float64)
    scaled = found.scaling(found.test.images)
    assert scaled.shape == (1000, 3, 28, 20) and scaled.dtype == torch.float32
    np.testing.assert_allclose(scaled, pixels, rtol=1e-5, atol=1e-6)


def test_a_channel_of_one_value_becomes_zero(compose: Compose, coloured: Images) -> None:
    coloured.train_images[..., 2] = 7
    config = compose("data.scaling=standardised", "data.holdout_size=9").data
    found = split_images(coloured, config)
    assert (found.scaling(found.train.images)[:, 2] == 0).all()


# --- Pixels -----------------------------------------------------------------------------------


def test_unit_scaling_divides_by_255(split: Callable[..., Splits], images: Images) -> None:
    found = split("data.limit=10").scaling(images.test_images[:50, None])
    assert found.shape == (50, 1, 28, 28) and found.dtype == torch.float32
    expected = images.test_images[:50].numpy().astype(np.float64) / 255
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6)


def test_raw_scaling_changes_nothing(split: Callable[..., Splits], images: Images) -> None:
    found = split("data.limit=10", "data.scaling=raw").scaling(images.test_images[:50, None])
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found[:, 0], images.test_images[:50])


@pytest.mark.parametrize("limit", ["null", "700"])
def test_standardised_scaling_knows_the_training_images_only(
    split: Callable[..., Splits], images: Images, limit: str
) -> None:
    """With the statistics of what trains: without what is held out, and after the limit."""
    overrides = ["data.holdout_from=first", "data.holdout_size=0.25", "data.scaling=standardised"]
    scaling = split(*overrides, f"data.limit={limit}").scaling
    end = 60_000 if limit == "null" else 15_700
    seen = images.train_images[15_000:end].numpy()
    mean, deviation = seen.mean(dtype=np.float64), seen.std(dtype=np.float64)
    pixels = images.test_images[:50].numpy().astype(np.float64)
    found = scaling(images.test_images[:50, None])[:, 0]
    np.testing.assert_allclose(found, (pixels - mean) / deviation, rtol=1e-5, atol=1e-6)


def test_mnists_own_statistics_are_the_well_known_ones(split: Callable[..., Splits]) -> None:
    scaling = split(
        "data.scaling=standardised", "data.holdout_size=0", "data.validation=test"
    ).scaling
    assert scaling.offset / 255 == pytest.approx(0.1307, abs=5e-5)
    assert scaling.divisor / 255 == pytest.approx(0.3081, abs=5e-5)


@pytest.mark.parametrize("scaling", ["unit", "raw", "standardised"])
def test_scaling_leaves_the_images_as_they_were(
    split: Callable[..., Splits], images: Images, scaling: str
) -> None:
    before = images.train_images[:20].clone()
    split("data.limit=20", f"data.scaling={scaling}").scaling(images.train_images[:20, None])
    assert torch.equal(images.train_images[:20], before)


# --- Order ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 55_000])
def test_epoch_order_has_each_image_once(count: int) -> None:
    order = epoch_order(count, seed=0, epoch=1)
    assert order.dtype == torch.int64
    np.testing.assert_array_equal(np.sort(order.numpy()), np.arange(count))


def test_epoch_order_is_a_function_of_seed_and_epoch() -> None:
    first = epoch_order(1000, seed=3, epoch=2)
    torch.manual_seed(99)
    torch.rand(5)
    assert torch.equal(epoch_order(1000, seed=3, epoch=2), first)
    state = torch.get_rng_state()
    epoch_order(1000, seed=3, epoch=2)
    assert torch.equal(torch.get_rng_state(), state)  # and takes nothing from dropout's generator


def test_epoch_order_differs_by_seed_and_epoch() -> None:
    """Also across the diagonal: seed 1 in epoch 2 is not seed 2 in epoch 1."""
    orders = {
        tuple(epoch_order(100, seed, epoch).tolist()) for seed in range(8) for epoch in range(8)
    }
    assert len(orders) == 64


def test_epoch_order_shuffles_well() -> None:
    """Over 400 epochs the first place goes to each of ten images about equally often."""
    first = [int(epoch_order(10, seed=0, epoch=epoch)[0]) for epoch in range(400)]
    counts = np.bincount(first, minlength=10)
    assert ((counts - 40) ** 2 / 40).sum() < 33.7  # chi-square, 9 degrees of freedom, p = 1e-4
