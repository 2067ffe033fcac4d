"""Verbs that use a trained network, or bring one here from elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
PANEL = "Use a network"


@app.command("import-keras", rich_help_panel=PANEL)
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
    flatten: Annotated[
        str | None,
        typer.Option(
            help="channels_first for weights of a network that flattens maps so; where the file "
            "has its layers, it tells."
        ),
    ] = None,
) -> None:
    """Make a run's folder from the weights in a file of Keras, and test them.

    The folder is like any other: `python train.py resume=OUT` trains on from there.
    """
    from mnist_bench.exchange.keras.runs import import_run
    from mnist_bench.runs.checkpoint import resume_command

    print(import_run(file, out, [f"model={model}", *(overrides or [])], flatten))
    print(f"To train on from there: {resume_command(out)}")


@app.command("export-keras", rich_help_panel=PANEL)
def export_keras(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    file: Annotated[Path, typer.Argument(help="What to write: a .keras, .h5 or .weights.h5 file.")],
) -> None:
    """Write the weights that a run was tested with to a file that Keras loads."""
    from mnist_bench.exchange.keras.runs import export_run

    print(f"{file}: {export_run(run, file)}")


@app.command("export", rich_help_panel=PANEL)
def export(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    to: Annotated[str, typer.Option(help="onnx, or safetensors for mnist_bench.load.")],
    out: Annotated[
        Path | None, typer.Option(help="The file; by default network.onnx in the run's folder.")
    ] = None,
    config_dir: Annotated[
        Path | None, typer.Option(help="The folder with a network of your own, as for train.py.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file of this name.")] = False,
) -> None:
    """Write a trained network to one file, from raw pixels to probabilities, and check it.

    docs/export.md shows how to use it, with or without PyTorch.
    """
    from mnist_bench.exchange.export import export_network

    print(export_network(run, to, out, config_dir, force))
