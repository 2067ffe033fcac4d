"""What pictures of digits lose on their way to a network: `python -m benchmarks.pictures RUN`.

    python -m benchmarks.pictures RUN --write     and write benchmarks/results/pictures.md

MNIST's 10,000 test images become files as people have them: enlarged, dark on light, on a wider
ground, coloured and pressed into JPEG, turned with a note in the file that says so, photographed
badly. `mnist-bench predict` answers each, and the labels are held against those of
`mnist-bench evaluate` and against the truth.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from benchmarks.step import ROOT
from mnist_bench.analysis.evaluate.evaluation import evaluate_run
from mnist_bench.analysis.predict.answers import answer_files
from mnist_bench.loggers.console import info
from mnist_bench.runs.load import TrainedNetwork, load
from mnist_bench.runs.records import provenance

# Of EXIF: the first row of what is stored is the picture's right side.
ORIENTATION, TURNED = 0x0112, 6
BICUBIC = Image.Resampling.BICUBIC


def enlarge(digit: Image.Image) -> Image.Image:
    return digit.resize((280, 280), BICUBIC)


def widen(picture: Image.Image) -> Image.Image:
    """Put it onto a ground twice as wide, not in its middle."""
    ground = picture.getpixel((0, 0))
    wide = Image.new(picture.mode, (2 * picture.width, picture.height + 60), ground)
    wide.paste(picture, (picture.width // 5, 45))
    return wide


def colour(digit: Image.Image) -> Image.Image:
    """Blue ink on yellowish paper."""
    ink = np.asarray(digit)[..., None] / 255
    pixels = ink * np.array([30, 50, 150]) + (1 - ink) * np.array([250, 243, 225])
    return Image.fromarray(pixels.round().astype(np.uint8))


def photograph(digit: Image.Image) -> Image.Image:
    """Grey ink on paper that is lit from one side, with noise and dust."""
    draw = np.random.default_rng(0)
    ink = np.asarray(digit, np.float32) / 255
    y, x = np.mgrid[-1 : 1 : digit.height * 1j, -1 : 1 : digit.width * 1j]
    levels = 185 + 35 * x - 20 * y + 8 * x * y - 110 * ink + draw.normal(0, 4, ink.shape)
    for row, column in draw.integers(5, 270, (6, 2)):
        levels[row : row + 2, column : column + 2] -= 70
    return Image.fromarray(levels.round().clip(0, 255).astype(np.uint8))


def save_png(picture: Image.Image, path: Path) -> None:
    picture.save(path.with_suffix(".png"), compress_level=1)


def save_jpeg(picture: Image.Image, path: Path) -> None:
    picture.save(path.with_suffix(".jpg"), quality=75)


def save_turned(picture: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    turned.save(path.with_suffix(".jpg"), quality=90, exif=exif)


Draw = Callable[[Image.Image], Image.Image]
Save = Callable[[Image.Image, Path], None]
# The first is as the images are, the others what becomes of them.
KINDS: dict[str, tuple[Draw, Save]] = {
    "as they are, PNG of 28 x 28": (lambda digit: digit, save_png),
    "enlarged 10 times": (enlarge, save_png),
    "inverted, 28 x 28": (ImageOps.invert, save_png),
    "enlarged and inverted": (lambda d: ImageOps.invert(enlarge(d)), save_png),
    "enlarged, on a wider ground": (lambda d: widen(enlarge(d)), save_png),
    "enlarged, blue on yellowish, JPEG": (lambda d: colour(enlarge(d)), save_jpeg),
    "enlarged, turned by EXIF, JPEG": (enlarge, save_turned),
    "enlarged, lit from one side, with noise and dust, JPEG": (
        lambda d: photograph(enlarge(d)),
        save_jpeg,
    ),
}


@dataclass(frozen=True)
class Answers:
    """The label of each image, None where there is none, and what answering them cost."""

    labels: list[str | None]
    images_per_second: float
    cores: float  # kept busy, on average


def measure(network: TrainedNetwork, digits: NDArray[np.uint8], kind: str) -> Answers:
    draw, save = KINDS[kind]
    with tempfile.TemporaryDirectory() as folder:
        for n, digit in enumerate(digits):
            save(draw(Image.fromarray(digit)), Path(folder, f"{n:05}"))
        files = sorted(Path(folder).iterdir())
        begun, worked = time.perf_counter(), time.process_time()
        labels = [a.top[0][0] if a.top else None for a in answer_files(network, files)]
        seconds = time.perf_counter() - begun
        return Answers(labels, len(files) / seconds, (time.process_time() - worked) / seconds)


def report(run: Path, images: int | None) -> str:
    evaluation = evaluate_run(run, [] if images is None else [f"data.limit={images}"])
    network = load(run)
    names = network.class_names
    truth = [names[k] for k in evaluation.labels]
    evaluated = [names[k] for k in evaluation.predicted]
    whole = len(truth)
    origin = provenance()
    option = "" if images is None else f" --images {images}"
    lines = [
        f"# Pictures of digits, on {evaluation.computed_by['device']}",
        "",
        f"`python -m benchmarks.pictures RUN{option}` on {origin['started'][:10]}, commit "
        f"{origin['git_commit']}, torch {torch.__version__}; RUN is {evaluation.model} "
        f"{evaluation.when}, {evaluation.figures['test_accuracy']:.2%} of {whole:,} test images by "
        f"`mnist-bench evaluate`. Other work shared the machine.",
        "",
        "| files | right | points fewer | as evaluated | no answer | images/s | cores busy |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind in KINDS:
        found = measure(network, evaluation.images, kind)
        labels = found.labels
        right = sum(a == b for a, b in zip(labels, truth, strict=True)) / whole
        same = sum(a == b for a, b in zip(labels, evaluated, strict=True))
        fewer = 100 * (evaluation.figures["test_accuracy"] - right)
        lines.append(
            f"| {kind} | {right:.2%} | {fewer:+.2f} | {same:,} | {labels.count(None)} "
            f"| {found.images_per_second:,.0f} | {found.cores:.1f} |"
        )
        info(lines[-1])
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path, help="the folder of a run on MNIST")
    parser.add_argument("--images", type=int, help="take so many; by default all 10,000")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    text = report(arguments.run, arguments.images)
    info(text)
    if arguments.write:
        path = ROOT / "benchmarks" / "results" / "pictures.md"
        path.write_text(text)
        info(f"Written to {path}")


if __name__ == "__main__":
    main()
