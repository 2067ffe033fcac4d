"""How a program starts a training as a process of its own."""

import sys
from pathlib import Path

import mnist_bench

PROGRAM = Path(mnist_bench.__file__).resolve().with_name("__main__.py")


def train_command(*arguments: str) -> list[str]:
    """Return the command line of `mnist-bench train ARGUMENTS` with this Python and this package.

    `python -m mnist_bench` would look for the package in the working directory first, and then
    among what is installed, which may be another copy: so it is started by its path.
    """
    return [sys.executable, str(PROGRAM), "train", *arguments]
