"""The program `mnist-bench`, by that name or as `python -m mnist_bench`."""

import os
import signal
import sys
from pathlib import Path

if not __package__:  # started by its path, as launch/jobs.py does: this copy, whatever is installed
    sys.path[0] = str(Path(__file__).resolve().parents[1])


def main() -> None:
    """Train if that is the first word, which takes no typer; else leave the command line to it."""
    if sys.argv[1:2] == ["train"]:
        train(sys.argv[2:])
    elif sys.argv[1:2] == ["-sc"]:  # bash asks for completions, and Hydra has them for `train`
        program, found, behind = os.environ.get("COMP_LINE", "").partition(" train ")
        if found:
            os.environ["COMP_LINE"] = f"{program} {behind}"
            train(sys.argv[1:])
    else:
        from mnist_bench.cli import main as others

        others()


def train(arguments: list[str] | None = None) -> None:
    """Train as the command line says, or `arguments`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until `main` minds signals: an exception in an import would be shown, or make it abort.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from mnist_bench.launch.main import main as launch

    launch(arguments)


if __name__ == "__main__":
    main()
