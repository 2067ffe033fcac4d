"""The program `mnist-bench`, by that name or as `python -m mnist_bench`."""

import os
import sys
from pathlib import Path

if not __package__:  # started by its path, as launch/jobs.py does: this copy, whatever is installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])


def main() -> None:
    """Train if that is the first word, which takes no typer; else leave the command line to it."""
    if sys.argv[1:2] == ["train"]:
        _train(sys.argv[2:])
    elif sys.argv[1:2] == ["-sc"]:  # bash asks for completions, and Hydra has them for `train`
        program, train, behind = os.environ.get("COMP_LINE", "").partition(" train ")
        if train:
            os.environ["COMP_LINE"] = f"{program} {behind}"
            _train(sys.argv[1:])
    else:
        from mnist_bench.cli import main as others

        others()


def _train(arguments: list[str]) -> None:
    from mnist_bench.launch.main import main as train

    train(arguments)


if __name__ == "__main__":
    main()
