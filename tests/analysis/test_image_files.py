"""Image files of any kind, each showing one of MNIST's digits: found, decoded, or named."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from mnist_bench.analysis.predict.files import find_images, read_image
from mnist_bench.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def digit(images):
    """Light on dark, 56 x 56: large enough for JPEG to be like it."""
    return Image.fromarray(images.test_images[0].numpy()).resize((56, 56))


def save_sixteen_bits(digit, path):
    Image.fromarray(np.asarray(digit, np.uint16) * 257).save(path)


def save_fractions(digit, path):
    Image.fromarray(np.asarray(digit, np.float32) / 255).save(path)


def save_whole_numbers(digit, path):
    Image.fromarray(np.asarray(digit, np.int32) * 257).save(path)


def save_cmyk(digit, path):
    digit.convert("RGB").convert("CMYK").save(path, quality=95)


def save_transparent(digit, path):
    """Black ink on nothing: the ink is the opacity."""
    ink = Image.new("L", digit.size, 0)
    Image.merge("LA", (ink, digit)).save(path)


def save_white_on_nothing(digit, path):
    white = Image.new("L", digit.size, 255)
    Image.merge("RGBA", (white, white, white, digit)).save(path)


def save_palette_with_hole(digit, path):
    image = ImageOps.invert(digit).quantize(64)
    image.save(path, transparency=image.getpixel((0, 0)))


def save_animation(digit, path):
    other = Image.new("L", digit.size, 200)
    digit.save(path, save_all=True, append_images=[other, other], lossless=True)


def save_turned(digit, path):
    exif = Image.Exif()
    exif[0x0112] = 6
    digit.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)


def plainly(digit, path):
    digit.save(path)


KINDS = {
    "grey.png": plainly,
    "grey.jpg": plainly,
    "grey.bmp": plainly,
    "grey.gif": plainly,
    "grey.tiff": plainly,
    "grey.webp": plainly,
    "palette.png": lambda digit, path: digit.quantize(64).save(path),
    "one-bit.png": lambda digit, path: (
        digit.point(lambda v: 255 * (v > 127)).convert("1").save(path)
    ),
    "16.png": save_sixteen_bits,
    "16.tiff": save_sixteen_bits,
    "32.tiff": save_whole_numbers,
    "fractions.tiff": save_fractions,
    "cmyk.jpg": save_cmyk,
    "cmyk.tiff": lambda digit, path: digit.convert("RGB").convert("CMYK").save(path),
    "animation.gif": save_animation,
    "animation.webp": save_animation,
    "frames.tiff": save_animation,
    "turned.jpg": save_turned,
    "opaque.png": lambda digit, path: digit.convert("RGBA").save(path),
    "opaque-grey.png": lambda digit, path: digit.convert("LA").save(path),
    "white-on-nothing.png": save_white_on_nothing,
}
DARK_ON_LIGHT = {"black-on-nothing.png": save_transparent, "hole.png": save_palette_with_hole}


@pytest.mark.parametrize("name", [*KINDS, *DARK_ON_LIGHT])
@pytest.mark.parametrize("grey", [True, False])
def test_every_kind_shows_what_was_drawn(digit, tmp_path, name, grey) -> None:
    (KINDS | DARK_ON_LIGHT)[name](digit, tmp_path / name)
    found = read_image(tmp_path / name, grey)
    assert found.mode == ("L" if grey else "RGB")
    expected = ImageOps.invert(digit) if name in DARK_ON_LIGHT else digit
    levels = np.asarray(found.convert("L"), int)
    # One bit has no levels between, and palettes few.
    allowed = 20 if name == "one-bit.png" else 6
    assert np.abs(levels - np.asarray(expected, int)).mean() < allowed


def test_colours_stay_colours(tmp_path) -> None:
    Image.new("RGB", (4, 4), (200, 30, 60)).save(tmp_path / "red.png")
    assert read_image(tmp_path / "red.png", grey=False).getpixel((0, 0)) == (200, 30, 60)


def bomb(path):
    """A PNG of 60,000 x 60,000 that is some hundred bytes large."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    parts = (
        chunk(b"IHDR", header),
        chunk(b"IDAT", zlib.compress(bytes(60_001))),
        chunk(b"IEND", b""),
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def truncated(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1500])


def infinite(path):
    Image.fromarray(np.full((8, 8), np.inf, np.float32)).save(path, format="TIFF")


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (infinite, "it has pixels that are infinite"),
        (lambda path: path.write_bytes(b""), "it is empty"),
        (lambda path: path.write_text("a digit"), "it is none of PNG, JPEG"),
        (truncated, "truncated"),
        (bomb, "pixels"),
        (lambda path: path.mkdir(), "is not a file"),
        (os.mkfifo, "is not a file"),
        (lambda path: None, "is not there"),
    ],
    ids=["infinite", "empty", "text", "truncated", "bomb", "folder", "pipe", "missing"],
)
def test_what_is_no_image_is_named_in_a_sentence(tmp_path, write, said) -> None:
    path = tmp_path / "digit.png"
    write(path)
    with pytest.raises(DataError, match=said) as refused:
        read_image(path, grey=True)
    assert str(refused.value).startswith(str(path)) and "\n" not in str(refused.value)


def test_one_that_is_too_large_below_pillows_own_limit_is_refused_too(tmp_path) -> None:
    Image.new("1", (15_000, 11_000)).save(tmp_path / "large.png")
    with pytest.raises(DataError, match="15,000 x 11,000, more than the 150,000,000 pixels"):
        read_image(tmp_path / "large.png", grey=True)


def test_folders_are_searched_to_their_depths_but_for_what_is_hidden(digit, tmp_path) -> None:
    for name in ("b/2.PNG", "a/deep/1.jpg", "0.png", ".hidden/3.png", "a/.4.png", "a/notes.txt"):
        path = tmp_path / "all" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    single = tmp_path / "scan"
    found = find_images([single, tmp_path / "all"])
    root = tmp_path / "all"
    assert found == [single, root / "0.png", root / "a/deep/1.jpg", root / "b/2.PNG"]


def test_a_folder_without_images_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="has no images in it"):
        find_images([tmp_path])
