"""A run's network as one file that other programs read: ONNX, or safetensors.

N images, C channels, H rows, W columns, K classes.
"""

import json
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mnist_bench import __version__
from mnist_bench.config.read import SAVED, saved_choices
from mnist_bench.errors import ConfigError, DataError, naming
from mnist_bench.exchange.onnx import to_onnx, with_onnxruntime
from mnist_bench.exchange.safetensors import to_safetensors
from mnist_bench.loggers.console import info
from mnist_bench.runs.folder import atomic_write, make_folder
from mnist_bench.runs.load import TrainedNetwork, load, load_safetensors
from mnist_bench.runs.prepare import read_images
from mnist_bench.runs.records import read_summary, saved_digest

# uint8 (N, H, W), or (N, H, W, C) in colour, to the probability of each class, float32 (N, K).
Predict = Callable[[np.ndarray], np.ndarray]

# By its name, the packages that a format needs.
FORMATS = {"onnx": ("onnx", "onnxruntime", "onnxscript"), "safetensors": ("safetensors",)}
# On so many test images a file has to say what the network says, to so much of a probability.
CHECKED_IMAGES = 1_000
TOLERANCE = 1e-4


def export_network(
    folder: Path,
    to: str,
    out: Path | None = None,
    config_dir: Path | None = None,
    force: bool = False,
) -> str:
    """Write the network of a run, with the weights that it was tested with, to a file.

    `to` is one of FORMATS. `out` is `network.onnx` or `network.safetensors` in the run's folder
    unless it is given; `config_dir` is as for `load`. A file that does not say of test images what
    the network says is not left. Returns what was written and how it was checked, a line for each.

    Raises:
        BenchError: the folder is not that of a run, a package is missing, the file is there already
            (and not to be replaced by `force`), or the network cannot be written so.
        OSError: the file cannot be written.
    """
    _refuse_format(to)
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not the folder of a run.")
    file = folder / f"network.{to}" if out is None else out
    _refuse_file(file, to, force)
    trained = load(folder, config_dir)
    images = _test_images(trained)
    write = to_onnx if to == "onnx" else to_safetensors
    content = write(trained, describe(trained, folder))
    if not file.parent.is_dir():
        make_folder(file.parent, "--out")
    with atomic_write(file, "wb") as opened:
        opened.write(content)
        opened.flush()
        checked = _check(_reader(Path(opened.name), to, config_dir), trained, images, file)
    rows, columns = trained.image_shape[1:]
    colours = "" if trained.image_shape[0] == 1 else ", 3"
    by = "" if to == "onnx" else "for mnist_bench.load, which goes "
    return (
        f"{file}: {trained.config.model.name} {trained.when}, {len(content) / 1e6:,.1f} MB; {by}"
        f"from uint8 images (N, {rows}, {columns}{colours}), not scaled, to the probabilities of "
        f"{len(trained.class_names)} classes\n{checked}"
    )


def describe(trained: TrainedNetwork, folder: Path) -> dict[str, str]:
    """Return what a file tells of its network: how to use it, and where it is from.

    All are text: `class_names`, `image_shape` (C, H, W), `offset`, `divisor` and `choices` (the
    files that were chosen of each group) are JSON, `config`, the run's settings, is YAML.
    """
    summary = read_summary(folder)
    choices = {str(k): v for k, v in saved_choices(folder).items() if isinstance(v, str)}
    with naming(folder / SAVED):
        config = (folder / SAVED).read_text(encoding="utf-8")
    told = {
        "model": trained.config.model.name,
        "class_names": json.dumps(trained.class_names),
        "image_shape": json.dumps(trained.image_shape),
        "offset": json.dumps(trained.scaling.offset),
        "divisor": json.dumps(trained.scaling.divisor),
        "run": folder.resolve().name,
        "weights": trained.when,
        "digest": summary.get("digest") or saved_digest(folder),
        "dataset": trained.config.data.name,
        "test_accuracy": summary.get("test_accuracy"),
        "git_commit": summary.get("git_commit"),
        "mnist_bench_version": __version__,
        "config": config,
        "choices": json.dumps(choices),
    }
    return {key: str(value) for key, value in told.items() if value is not None}


def _refuse_format(to: str) -> None:
    if to not in FORMATS:
        raise ConfigError(f"--to {to} is not a format: give {' or '.join(FORMATS)}.")
    missing = [package for package in FORMATS[to] if find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"--to {to} needs {' and '.join(missing)}, which {'are' if missing[1:] else 'is'} not "
            f"installed: pip install 'mnist-bench[export]'."
        )


def _refuse_file(file: Path, to: str, force: bool) -> None:
    if file.suffix != f".{to}":
        raise ConfigError(f"--out {file} has to end in .{to}, by which programs know the format.")
    if file.is_dir():
        raise ConfigError(f"--out {file} is a folder: name a file.")
    if os.path.lexists(file) and not force:
        raise ConfigError(
            f"{file} is there already: give another name by --out, or --force to replace it."
        )


def _reader(file: Path, to: str, config_dir: Path | None) -> Predict:
    """Return how the network in a file classifies images."""
    if to == "onnx":
        return with_onnxruntime(file)
    loaded = load_safetensors(file, config_dir)
    return lambda images: loaded.predict(images).probabilities


def _test_images(trained: TrainedNetwork) -> np.ndarray:
    """Return the first test images of the data that a network was trained on, as they are read."""
    images = read_images(trained.config.data, info).test_images[:CHECKED_IMAGES].numpy()
    grey = trained.image_shape[0] == 1
    return images.reshape(len(images), *trained.image_shape[1:]) if grey else images


def _check(predict: Predict, trained: TrainedNetwork, images: np.ndarray, file: Path) -> str:
    """Return how close a file's answers are to the network's, for one image and for many."""
    expected = trained.predict(images).probabilities
    try:
        found = np.concatenate([predict(images[:1]), predict(images[1:])])
    except Exception as error:
        raise DataError(
            f"{file} is not written: it cannot classify test images, one or many "
            f"({type(error).__name__}: {str(error).splitlines()[0]})."
        ) from error
    if found.shape != expected.shape or not np.allclose(found, expected, 0, TOLERANCE):
        away = (
            f"{np.abs(found - expected).max():.2g} away in probability"
            if found.shape == expected.shape
            else f"{found.shape} in place of {expected.shape}"
        )
        raise DataError(
            f"{file} is not written: what it says of {len(images):,} test images is {away} from "
            f"what the network says; does its forward depend on anything but the images?"
        )
    agreed = int((found.argmax(1) == expected.argmax(1)).sum())
    return (
        f"checked on {len(images):,} test images of {trained.config.data.name}: the same label for "
        f"{'all' if agreed == len(images) else f'{agreed:,}'}, probabilities within "
        f"{np.abs(found - expected).max():.1g}"
    )
