"""Images in folders, against Pillow by hand and torchvision's ImageFolder, with MNIST's digits."""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder as TorchvisionsFolder
from torchvision.transforms.v2 import functional as transforms

from mnist_bench.data import image_folder
from mnist_bench.data.image_folder import ImageFolder, read_image
from mnist_bench.data.images import Images
from mnist_bench.data.loading import load
from mnist_bench.errors import BenchError, ConfigError, DataError

TRAIN, TEST = slice(0, 300), slice(300, 400)


def write_digits(folder: Path, images: Images, rows: slice) -> Path:
    """MNIST's test images as folder/LABEL/NUMBER.png."""
    for number in range(rows.start, rows.stop):
        path = folder / str(int(images.test_labels[number])) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images.test_images[number].numpy()).save(path)
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, images: Images) -> Path:
    """A folder with train/ and test/. Not to be written to."""
    root = tmp_path_factory.mktemp("digits")
    write_digits(root / "train", images, TRAIN)
    write_digits(root / "test", images, TEST)
    return root


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    """A copy of it, to spoil."""
    return shutil.copytree(written, tmp_path / "digits")


def read(root: Path, **arguments: object) -> Images:
    return load(ImageFolder(str(root), **arguments), lambda line: None)


def counted(pixels: torch.Tensor, labels: torch.Tensor) -> Counter:
    """Images with their labels, in whatever order."""
    return Counter(
        (image.numpy().tobytes(), int(label)) for image, label in zip(pixels, labels, strict=True)
    )


# --- Folders ----------------------------------------------------------------------------------


def test_each_part_has_the_images_and_classes_that_torchvision_finds(written: Path) -> None:
    found = read(written)
    for part in ("train", "test"):
        reference = TorchvisionsFolder(written / part)
        assert found.class_names == tuple(reference.classes)
        expected = Counter(
            (np.asarray(image.convert("L")).tobytes(), label) for image, label in reference
        )
        assert (
            counted(getattr(found, f"{part}_images"), getattr(found, f"{part}_labels")) == expected
        )
    assert found.validation_images is None
    assert found.train_images.shape == (300, 28, 28) and found.train_images.dtype == torch.uint8


def test_any_part_of_the_images_has_some_of_every_class(written: Path, tmp_path: Path) -> None:
    """The order is a draw from the seed, and the same wherever the folder lies."""
    first = read(written)
    assert len(set(first.train_labels[:100].tolist())) == 10
    assert len(set(first.train_labels[-100:].tolist())) == 10
    moved = read(shutil.copytree(written, tmp_path / "elsewhere"))
    assert torch.equal(moved.train_images, first.train_images)
    other = read(written, seed=1)
    assert not torch.equal(other.train_images, first.train_images)
    assert counted(other.train_images, other.train_labels) == counted(
        first.train_images, first.train_labels
    )


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.001, 0.999])
@pytest.mark.parametrize("below", [False, True], ids=["CLASS", "train/CLASS"])
def test_a_fraction_of_each_class_is_set_aside_to_test_on(
    written: Path, tmp_path: Path, fraction: float, below: bool
) -> None:
    """Rounded, but one at least on either side."""
    root = shutil.copytree(written / "train", tmp_path / "one" / ("train" if below else ""))
    root = root.parent if below else root
    found = read(root, test_fraction=fraction)
    whole = counted(
        torch.cat([found.train_images, found.test_images]),
        torch.cat([found.train_labels, found.test_labels]),
    )
    together = read(written)
    assert whole == counted(together.train_images, together.train_labels)
    sizes = together.train_labels.bincount()
    for label in range(10):
        size = int(sizes[label])
        expected = min(max(round(fraction * size), 1), size - 1)
        assert int((found.test_labels == label).sum()) == expected
    again = read(root, test_fraction=fraction)
    assert torch.equal(again.test_images, found.test_images)
    if fraction == 0.5:
        other = read(root, test_fraction=fraction, seed=1)
        assert counted(other.test_images, other.test_labels) != counted(
            found.test_images, found.test_labels
        )


@pytest.mark.parametrize("name", ["validation", "val", "valid"])
def test_a_folder_of_images_to_validate_on_is_used(root: Path, images: Images, name: str) -> None:
    write_digits(root / name, images, slice(400, 450))
    found = read(root)
    assert found.validation_images is not None and found.validation_labels is not None
    assert counted(found.validation_images, found.validation_labels) == counted(
        images.test_images[400:450], images.test_labels[400:450]
    )
    assert len(found.train_labels) == 300 and len(found.test_labels) == 100


def test_hidden_files_and_notes_beside_the_classes_are_passed_over(root: Path) -> None:
    expected = read(root)
    (root / "train" / "3" / ".DS_Store").write_bytes(b"x")
    (root / "train" / ".cache").mkdir()
    (root / "train" / "labels.csv").write_text("0,1")
    (root / "README.txt").write_text("digits")
    assert torch.equal(read(root).train_images, expected.train_images)


# --- Files ------------------------------------------------------------------------------------

LOSSLESS = [
    *(("png", {}), ("bmp", {}), ("gif", {}), ("tiff", {}), ("webp", {"lossless": True})),
    *(("PNG", {}), ("tif", {"compression": "tiff_lzw"})),
]


@pytest.mark.parametrize(("suffix", "options"), LOSSLESS)
def test_grey_pixels_are_those_written(
    tmp_path: Path, images: Images, suffix: str, options: dict[str, object]
) -> None:
    """GIF and WebP are in colour always: their three channels are alike."""
    digit = images.test_images[0].numpy()
    Image.fromarray(digit).save(tmp_path / f"digit.{suffix}", **options)
    found = read_image(tmp_path / f"digit.{suffix}")
    expected = np.stack([digit] * 3, 2) if suffix in ("gif", "webp") else digit
    np.testing.assert_array_equal(found, expected)


def coloured(images: Images, number: int = 0) -> np.ndarray:
    """Three digits as the channels of one image, (28, 28, 3)."""
    return images.test_images[number : number + 3].permute(1, 2, 0).contiguous().numpy()


@pytest.mark.parametrize(("suffix", "options"), [o for o in LOSSLESS if o[0] != "gif"])
def test_colours_are_those_written(
    tmp_path: Path, images: Images, suffix: str, options: dict[str, object]
) -> None:
    digits = coloured(images)
    Image.fromarray(digits).save(tmp_path / f"digit.{suffix}", **options)
    np.testing.assert_array_equal(read_image(tmp_path / f"digit.{suffix}"), digits)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_is_what_pillow_reads(tmp_path: Path, images: Images, mode: str) -> None:
    Image.fromarray(coloured(images)).convert(mode).save(tmp_path / "digit.jpg")
    with Image.open(tmp_path / "digit.jpg") as reference:
        np.testing.assert_array_equal(read_image(tmp_path / "digit.jpg"), np.asarray(reference))


def test_palettes_bits_and_opaque_alpha_are_read_exactly(tmp_path: Path, images: Images) -> None:
    digit = Image.fromarray(images.test_images[0].numpy())
    bits = digit.point(lambda value: 255 * (value > 127)).convert("1")
    bits.save(tmp_path / "bits.png")
    np.testing.assert_array_equal(
        read_image(tmp_path / "bits.png"), np.asarray(bits) * np.uint8(255)
    )
    palette = Image.fromarray(coloured(images)).quantize(16)
    palette.save(tmp_path / "palette.gif")
    np.testing.assert_array_equal(
        read_image(tmp_path / "palette.gif"), np.asarray(palette.convert("RGB"))
    )
    opaque = Image.fromarray(coloured(images)).convert("RGBA")
    opaque.save(tmp_path / "opaque.png")
    np.testing.assert_array_equal(read_image(tmp_path / "opaque.png"), coloured(images))


def test_grey_files_among_coloured_ones_are_of_three_equal_channels(
    root: Path, images: Images
) -> None:
    digits = coloured(images, 500)
    Image.fromarray(digits).save(root / "train" / "3" / "colour.png")
    found, grey = read(root), read(root.parent / "digits")
    assert found.train_images.shape == (301, 28, 28, 3)
    assert found.test_images.shape == (100, 28, 28, 3)
    is_colour = (found.train_images != found.train_images[..., :1]).flatten(1).any(1)
    assert int(is_colour.sum()) == 1
    np.testing.assert_array_equal(found.train_images[is_colour][0], digits)
    assert torch.equal(found.test_images[..., 0], read(root).test_images[..., 2])
    assert grey.class_names == found.class_names


def test_files_of_differing_sizes_are_each_brought_to_the_size_asked_for(
    root: Path, images: Images
) -> None:
    big = transforms.resize(images.test_images[500][None], [40, 50])[0].numpy()
    Image.fromarray(big).save(root / "train" / "3" / "big.png")
    with pytest.raises(DataError, match=r"is 40 x 50, unlike .* of 28 x 28: set data\.image_size"):
        read(root)
    found = load(ImageFolder(str(root)), lambda line: None, image_size=(20, 24))
    assert found.train_images.shape == (301, 20, 24)
    expected = Counter()
    for path in (root / "train").glob("*/*"):
        with Image.open(path) as image:
            pixels = torch.from_numpy(np.array(image))[None].float()
        resized = transforms.resize(pixels, [20, 24], antialias=True).round().byte()
        expected[resized.numpy().tobytes(), int(path.parent.name)] += 1
    assert counted(found.train_images, found.train_labels) == expected


def test_long_reading_says_how_far_it_is(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_folder, "PROGRESS_SECONDS", -1.0)
    lines: list[str] = []
    ImageFolder(str(written)).load(lines.append)
    assert lines[0] == "1 of 400 images read" and len(lines) == 401
    assert lines[-1] == f"{written}: 300 to train + 100 to test on, of 28 x 28, in 10 classes"


# --- What is refused --------------------------------------------------------------------------


def _empty_class(root: Path) -> None:
    (root / "train" / "x").mkdir()


def _unknown_test_class(root: Path) -> None:
    (root / "train" / "7").rename(root / "7")


def _no_image(root: Path) -> None:
    (root / "train" / "7" / "Thumbs.db").write_bytes(b"not an image")


def _cut(root: Path) -> None:
    path = next((root / "train" / "7").iterdir())
    path.write_bytes(path.read_bytes()[:60])


def _folder_in_a_class(root: Path) -> None:
    (root / "train" / "7" / "more").mkdir()


def _pipe(root: Path) -> None:
    os.mkfifo(root / "train" / "7" / "pipe.png")


def _loose(root: Path) -> None:
    next((root / "train" / "7").iterdir()).rename(root / "train" / "loose.png")


def _sixteen_bits(root: Path) -> None:
    deep = np.full((28, 28), 1000, np.uint16)
    Image.fromarray(deep).save(root / "train" / "7" / "deep.png")


def _transparent(root: Path) -> None:
    Image.new("RGBA", (28, 28), (255, 0, 0, 254)).save(root / "train" / "7" / "glass.png")


def _frames(root: Path) -> None:
    frames = [Image.new("L", (28, 28), value) for value in (0, 255)]
    frames[0].save(root / "train" / "7" / "film.gif", save_all=True, append_images=frames[1:])


def _no_test(root: Path) -> None:
    (root / "test").rename(root / ".test")


def _no_train(root: Path) -> None:
    (root / "train").rename(root / ".train")


def _two_validations(root: Path) -> None:
    shutil.copytree(root / "test", root / "val")
    shutil.copytree(root / "test", root / "valid")


def _no_classes(root: Path) -> None:
    shutil.rmtree(root / "train")
    (root / "train").mkdir()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_empty_class, r"train/x has no images: "),
        (_unknown_test_class, r"test/7 is a class to test on, and there are no images of it to"),
        (_no_image, r"train/7/Thumbs\.db cannot be read as an image .*: remove it, or"),
        (_cut, r"train/7/\d+\.png cannot be read as an image .*: remove it, or"),
        (_folder_in_a_class, r"train/7/more is not a file: "),
        (_pipe, r"train/7/pipe\.png is not a file: "),
        (_loose, r"train/loose\.png lies in no class: "),
        (_sixteen_bits, r"train/7/deep\.png is of Pillow's mode I;16: save it with eight bits"),
        (_transparent, r"train/7/glass\.png has transparent pixels: "),
        (_frames, r"train/7/film\.gif holds several images: "),
        (_no_test, r"has no folder test: set data\.test_fraction"),
        (_no_train, r"has a folder test and no train: "),
        (_two_validations, r"/val and .*/valid are both there: "),
        (_no_classes, r"train has no folders in it: "),
    ],
)
def test_what_is_odd_is_named_in_one_sentence(
    root: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(root)
    with pytest.raises(BenchError, match=said) as refusal:
        read(root)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"test_fraction": 0.2}, r"test_fraction=0\.2 is not possible: .* leave it null"),
        ({"test_fraction": 1.0}, r"test_fraction=1\.0 is not allowed"),
        ({"test_fraction": 0}, r"test_fraction=0 is not allowed"),
    ],
)
def test_a_fraction_that_cannot_be_is_refused(
    written: Path, arguments: dict[str, float], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        read(written, **arguments)


def test_a_class_of_one_image_cannot_be_divided(root: Path) -> None:
    (root / "train" / "one").mkdir()
    next((root / "train" / "7").iterdir()).rename(root / "train" / "one" / "only.png")
    shutil.rmtree(root / "test")
    with pytest.raises(DataError, match=r"one/only\.png is the only image of its class"):
        read(root, test_fraction=0.2)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root=.*absent is not a folder"):
        read(tmp_path / "absent")
