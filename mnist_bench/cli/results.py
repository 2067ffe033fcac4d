"""Verbs that read what runs have left."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
PANEL = "Read results"
# What a report takes that training does not.
OF_REPORTS = ("jinja2", "scipy")

Paths = Annotated[
    list[str] | None,
    typer.Argument(
        help="Folders of runs, sweeps or searches, or above them, globs, or names of those in "
        "outputs/; without any, all of outputs/.",
        metavar="[PATH]...",
    ),
]


@app.command(rich_help_panel=PANEL)
def runs(
    paths: Paths = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, of all runs.")] = False,
    last: Annotated[int, typer.Option(min=0, help="Show so many, the newest; 0 for all.")] = 40,
) -> None:
    """List runs, newest first: how they stand, what tells them apart, their accuracies."""
    from mnist_bench.analysis.listing import list_runs, show_runs

    found = list_runs(paths or [])
    if as_json:
        import json

        print(json.dumps([run.as_plain() for run in found], indent=1))
    else:
        show_runs(found, last)


@app.command(rich_help_panel=PANEL)
def report(
    paths: Paths = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write report.html, report.md and report.csv.")
    ] = None,
    metric: Annotated[
        str, typer.Option(help="What to compare: test_accuracy, val_accuracy, val_loss, ...")
    ] = "test_accuracy",
    compare: Annotated[
        list[str] | None,
        typer.Option(
            help="A pair that was chosen before looking, such as model.kernel_size=3,5, at each "
            'value of the other keys, or "kernel_size=3,5 dropout=0"; may be given several times.',
        ),
    ] = None,
    heat_map: Annotated[
        str | None,
        typer.Option("--map", help="The two keys of the heat map, such as kernel_size,dropout."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, and write files only where --out says.")
    ] = False,
) -> None:
    """Say what runs allow to conclude, and how surely: on the terminal and as a page.

    Runs that differ by their seed alone are taken together. The page is report.html, in this folder
    or in --out. docs/reading.md says which test answers which question.
    """
    from mnist_bench.analysis.collect import collect
    from mnist_bench.errors import ConfigError

    try:
        from mnist_bench.analysis.report import Options, write
        from mnist_bench.analysis.report.build import build, map_keys
        from mnist_bench.analysis.report.page import as_page  # noqa: F401  # takes jinja2
        from mnist_bench.analysis.report.terminal import show
        from mnist_bench.analysis.report.text import as_json as to_json
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package not in OF_REPORTS:
            raise
        raise ConfigError(
            f"A report takes {package}, which is not installed: pip install 'mnist-bench[reports]'"
        ) from error
    found = build(collect(paths or []), Options(metric, tuple(compare or ()), map_keys(heat_map)))
    if as_json:
        print(to_json(found))
    else:
        show(found)
    if out is not None or not as_json:
        written = write(found, out or Path(), paths or [])
        if not as_json:
            typer.echo(f"\nWritten: {', '.join(map(str, written))}")


@app.command(rich_help_panel=PANEL)
def board(
    path: Annotated[
        str,
        typer.Argument(help="A run, a sweep, a search, by folder or name, or a folder of many."),
    ] = "outputs",
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
    from mnist_bench.analysis.board import can_show, keep_up
    from mnist_bench.analysis.find import find_folder
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
        list[str],
        typer.Argument(
            help="Runs, or sweeps for all runs in them: folders, globs or names of those in "
            "outputs/.",
            metavar="RUN...",
        ),
    ],
    config_dir: Annotated[
        Path | None, typer.Option(help="The folder of your own files, as for train.py.")
    ] = None,
) -> None:
    """Draw the figures of runs anew: samples, curves, mistakes, confusion matrix, kernels.

    A run draws its own when it ends, unless trainer.figures=false. Status 1 if those of one could
    not be drawn; the others' are.
    """
    from mnist_bench.analysis.find import find_folders, runs_below
    from mnist_bench.errors import BenchError, ConfigError
    from mnist_bench.loggers.console import info, print_error
    from mnist_bench.runs.figures import draw_again
    from mnist_bench.runs.folder import RunFolder

    failed = 0
    for path in runs:
        below = [run for folder in find_folders(path) for run in runs_below(folder)]
        if not (found := [run for run in below if RunFolder(run).predictions.is_file()]):
            raise ConfigError(f"{path} has no run that was tested: there is nothing to draw.")
        for run in found:
            try:
                files = draw_again(run, config_dir, info)
                info(f"{files[0].parent}: {', '.join(file.stem for file in files)}")
            except BenchError as error:
                failed += 1
                print_error(str(error))
    raise typer.Exit(1 if failed else 0)
