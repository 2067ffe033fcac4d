"""The verb of the study of the five notebooks."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command(rich_help_panel="The study of the notebooks")
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
