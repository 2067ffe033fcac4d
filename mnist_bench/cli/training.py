"""Verbs that train: one run, a sweep, a search; and how they stand."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
PANEL = "Train"


@app.command(
    rich_help_panel=PANEL,
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def train(context: typer.Context) -> None:
    """Train one network, or with -m a sweep of them: see `mnist-bench train --help`.

    The same as `python train.py`.
    """
    # Listed here; mnist_bench/__main__.py does the same before this module, and typer, is loaded.
    from mnist_bench.launch.main import main

    main(context.args)


@app.command(rich_help_panel=PANEL)
def search(
    name: Annotated[str, typer.Argument(help="The search, in outputs/searches/NAME.")],
    space: Annotated[
        str, typer.Option(help="A YAML file of keys to search, or the name of one in conf/search/.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Settings of all trials, as for train.py: model=cnn3x3 trainer.epochs=4.",
            metavar="[OVERRIDES]...",
        ),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials in all, those there included.")] = 50,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each trial, one a seed.")] = 1,
    config_dir: Annotated[
        Path | None, typer.Option(help="The folder of your own files, as for train.py.")
    ] = None,
) -> None:
    """Search for settings of low validation loss, by Optuna.

    The same command again does what is missing, and goes on with a trial that was killed; several
    at once share the trials.
    """
    from mnist_bench.launch.search.command import begin

    begin(name, overrides or [], space, trials, seeds, config_dir)


@app.command(rich_help_panel=PANEL)
def status(
    sweep: Annotated[str, typer.Argument(help="The folder of a sweep or a search, or its name.")],
) -> None:
    """Show how the runs of a sweep, or the trials of a search, stand, also while it goes on."""
    from mnist_bench.analysis.find import JOURNAL, OUTPUTS, find_folder
    from mnist_bench.launch.sweeps.results import print_status
    from mnist_bench.loggers.console import info

    folder = find_folder(sweep)
    if (folder / JOURNAL).is_file():
        from mnist_bench.launch.search.results import show
        from mnist_bench.launch.search.study import SharedStudy

        show(SharedStudy(folder))
    else:
        print_status(folder)
        if (namesake := OUTPUTS / "searches" / sweep).is_dir() and namesake != folder:
            info(f"A search has this name, too: mnist-bench status {namesake}")
