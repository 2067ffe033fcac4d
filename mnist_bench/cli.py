"""The console script `mnist-bench`: training, and what else is done with networks and runs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from mnist_bench import __version__
from mnist_bench.launch.edge import as_sentence, guard_streams

app = typer.Typer(
    help="Train image classifiers, exchange weights with Keras, reproduce publications.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


@app.command(
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


@app.command()
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


@app.command()
def status(
    sweep: Annotated[Path, typer.Argument(help="The folder of a sweep or a search, or its name.")],
) -> None:
    """Show how the runs of a sweep, or the trials of a search, stand, also while it goes on."""
    from mnist_bench.launch.search.command import find_search
    from mnist_bench.launch.sweeps.results import print_status

    if (search := find_search(sweep)) is None:
        print_status(sweep)
    else:
        from mnist_bench.launch.search.results import show
        from mnist_bench.launch.search.study import SharedStudy

        show(SharedStudy(search))


@app.command("import-keras")
def import_keras(
    file: Annotated[Path, typer.Argument(help="A .keras, .weights.h5 or legacy .h5 file.")],
    model: Annotated[str, typer.Option(help="The network in the file, as in train.py model=…")],
    out: Annotated[Path, typer.Option(help="The folder of the run to make.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Further settings as for train.py, such as data.scaling=raw or model.dropout=0.",
            metavar="[OVERRIDES]...",
        ),
    ] = None,
) -> None:
    """Make a run's folder from the weights in a file of Keras, and test them.

    The folder is like any other: `python train.py resume=OUT` trains on from there.
    """
    from mnist_bench.exchange.keras.runs import import_run
    from mnist_bench.runs.checkpoint import resume_command

    print(import_run(file, out, [f"model={model}", *(overrides or [])]))
    print(f"To train on from there: {resume_command(out)}")


@app.command("export-keras")
def export_keras(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    file: Annotated[Path, typer.Argument(help="What to write: a .keras or .weights.h5 file.")],
) -> None:
    """Write the weights that a run was tested with to a file that Keras 3 loads."""
    from mnist_bench.exchange.keras.runs import export_run

    print(f"{file}: {export_run(run, file)}")


@app.command()
def reproduce(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Experiments, as in train.py experiment=…; without any, all that were published.",
            metavar="[NAME]...",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each experiment: seeds 0 to SEEDS - 1.")] = 5,
    precision: Annotated[str, typer.Option(help="fp32, as published, or bf16.")] = "fp32",
    gpus: Annotated[str, typer.Option(help="Where to train: auto, 0 (the CPU) or 1.")] = "auto",
    train: Annotated[bool, typer.Option(help="Train the runs that are missing.")] = True,
    times: Annotated[
        bool, typer.Option(help="Keep the runs' times; not those of runs that shared a device.")
    ] = True,
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("outputs/reproduction"),
    results: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("results"),
) -> None:
    """Train the published recipes over several seeds, and report how they compare.

    Runs that are there are kept, unfinished ones go on, and a second command beside this one takes
    the runs that it has not got: a campaign can be stopped at any time and spread over days.
    """
    from mnist_bench.reproduction.reproduce import reproduce

    raise typer.Exit(reproduce(names or [], seeds, runs, results, precision, gpus, train, times))


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
