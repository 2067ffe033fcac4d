"""Image files as they come: found in folders, and decoded whatever they are.

What is trained on has to be free of loss (`data/image_folder.py`); what is asked about need not.
"""

import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mnist_bench.errors import ConfigError, DataError

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
# More than any camera's, and 450 MB of colour in memory.
MOST_PIXELS = 150_000_000
# JPEG files that are larger are decoded at a half, a quarter or an eighth, which costs less.
ENOUGH = (1024, 1024)
GREY_16 = {"I;16", "I;16L", "I;16B", "I;16N"}
MAY_BE_TRANSPARENT = {"P", "PA", "LA", "La", "RGBA", "RGBa"}


def find_images(given: Iterable[str | Path]) -> list[Path]:
    """Return the files among `given`, and those in folders and the folders in them, by name.

    In a folder those count that are named as images are, and are not hidden; a file that is named
    counts whatever it is called.

    Raises:
        ConfigError: a folder has no images.
    """
    found: list[Path] = []
    for path in map(Path, given):
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(_walk(path))
        if not inside:
            kinds = ", ".join(FORMATS)
            raise ConfigError(f"{path} has no images in it: give a folder with files of {kinds}.")
        found += inside
    return found


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                yield Path(parent, name)


def read_image(path: Path, grey: bool) -> Image.Image:
    """Return what a file shows: upright, opaque, of Pillow's mode L if `grey`, else RGB.

    Of several frames it is the first. Transparent parts become white, or black if all that is
    opaque is light. Large JPEG files may come at a half, a quarter or an eighth of their size.

    Raises:
        DataError: it is not there, or is no image, in a sentence that names it.
    """
    if not path.is_file():
        what = "is not a file" if path.exists() else "is not there"
        raise DataError(f"{path} {what}: give an image, or a folder of images.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                _refuse_bomb(image.size, path)
                if grey and image.format == "JPEG" and image.mode in ("L", "RGB", "YCbCr"):
                    image.draft("L", ENOUGH)
                return _opaque(ImageOps.exif_transpose(image), grey)
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{path} has too many pixels to be read: {MOST_PIXELS:,} may be."
        ) from error
    except Exception as error:  # a damaged file may raise anything that its decoder meets
        raise DataError(f"{path} cannot be read as an image: {_reason(error, path)}.") from error


def _refuse_bomb(size: tuple[int, int], path: Path) -> None:
    width, height = size
    if width * height > MOST_PIXELS:
        raise DataError(
            f"{path} is {width:,} x {height:,}, more than the {MOST_PIXELS:,} pixels that are "
            f"read: give it smaller."
        )


def _reason(error: Exception, path: Path) -> str:
    """Return in a few words what is wrong with a file that its decoder cannot read."""
    try:
        if path.stat().st_size == 0:
            return "it is empty"
    except OSError:
        pass
    if isinstance(error, UnidentifiedImageError):
        return f"it is none of {', '.join(FORMATS)}, or it is damaged"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__


def _opaque(image: Image.Image, grey: bool) -> Image.Image:
    mode = "L" if grey else "RGB"
    if image.mode in GREY_16 or image.mode in ("I", "F"):
        return _eight_bits(image).convert(mode)
    if image.mode in MAY_BE_TRANSPARENT or image.has_transparency_data:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() != (255, 255):
            ground = Image.new("RGBA", rgba.size, _ground_under(rgba))
            rgba = Image.alpha_composite(ground, rgba)
        return rgba.convert("RGB").convert(mode)
    return image.convert(mode)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Bring numbers of 16 or 32 bits, or with a fraction, to 0 to 255.

    Those of 16 bits count from 0 to 65,535, and fractions within 0 to 1 from 0 to 1. Of others,
    nothing says what is white: the largest is.
    """
    values = np.asarray(image, np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it has pixels that are infinite, or no numbers")
    low, high = min(float(values.min()), 0.0), float(values.max())
    if image.mode == "F":
        top = 1.0 if high <= 1 else 255.0 if high <= 255 else high
    elif image.mode in GREY_16 or 255 < high <= 65535:
        top = 65535.0
    else:
        top = max(high, 255.0)
    scaled = (values - low) / (top - low) * 255
    return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))


def _ground_under(rgba: Image.Image) -> tuple[int, int, int, int]:
    """Return white, or black where what is drawn on nothing is light."""
    luma = np.asarray(rgba.convert("RGB").convert("L"))[np.asarray(rgba.getchannel("A")) > 127]
    light = luma.size > 0 and np.percentile(luma, 10) > 127
    return (0, 0, 0, 255) if light else (255, 255, 255, 255)
