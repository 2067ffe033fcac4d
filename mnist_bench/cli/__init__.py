"""The console script `mnist-bench`: a module for each kind of verb, in the order of its help."""

import sys
from typing import Annotated

import typer

from mnist_bench import __version__
from mnist_bench.cli import networks, results, study, training
from mnist_bench.launch.edge import as_sentence, guard_streams

app = typer.Typer(
    help="Train and compare image classifiers on MNIST-like data, and use them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verbs in (training, results, networks, study):
    app.add_typer(verbs.app)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"mnist-bench {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    guard_streams()
    try:
        app(prog_name="mnist-bench")
    except Exception as error:
        if (told := as_sentence(error)) is None:
            raise
        from mnist_bench.loggers.console import print_error

        print_error(told)
        sys.exit(1)
