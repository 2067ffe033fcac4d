"""Verbs that show what came of runs."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
PANEL = "Read results"


@app.command(rich_help_panel=PANEL)
def board(
    path: Annotated[
        Path, typer.Argument(help="A run, a sweep, a search, or a folder of many.")
    ] = Path("outputs"),
    opened: Annotated[
        bool, typer.Option("--open/--no-open", help="Open it in the browser.")
    ] = True,
    port: Annotated[int, typer.Option(help="Where to serve it; 0 for any free port.")] = 0,
) -> None:
    """Show runs in TensorBoard, each named by what tells it from the others.

    New runs appear while it is open. It is served to this machine alone, until Ctrl-C.
    """
    import webbrowser

    from mnist_bench.analysis.board import board as serve
    from mnist_bench.analysis.board import can_show, find_folder, keep_up
    from mnist_bench.loggers.console import info

    folder = find_folder(path)
    with serve(folder, port) as (address, links):
        count = len(links.made)
        info(f"{count} run{'s' * (count != 1)} of {path}: {address} (Ctrl-C ends it)")
        if opened and can_show():
            webbrowser.open(address)
        keep_up(links)


@app.command(rich_help_panel=PANEL)
def figures(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Runs, or folders of them, such as a sweep.", metavar="RUN..."),
    ],
    config_dir: Annotated[
        Path | None, typer.Option(help="The folder of your own files, as for train.py.")
    ] = None,
) -> None:
    """Draw the figures of runs anew: samples, curves, mistakes, confusion matrix, kernels.

    A run draws its own when it ends, unless trainer.figures=false.
    """
    from mnist_bench.analysis.board import find_folder, find_runs
    from mnist_bench.errors import ConfigError
    from mnist_bench.loggers.console import info
    from mnist_bench.runs.figures import draw_again

    for path in runs:
        found = list(find_runs(find_folder(path), "predictions.npz"))
        if not found:
            raise ConfigError(f"{path} has no run that was tested: there is nothing to draw.")
        for run in found:
            files = draw_again(run, config_dir, info)
            info(f"{files[0].parent}: {', '.join(file.stem for file in files)}")
