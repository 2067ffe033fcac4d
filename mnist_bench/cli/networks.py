"""Verbs that use a trained network, or bring one here from elsewhere."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from mnist_bench.analysis.find import find_run

app = typer.Typer()
PANEL = "Use a network"

Run = Annotated[
    str,
    typer.Argument(
        help="A run: its folder or its name in outputs/; or a sweep or a search, for its best run."
    ),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option(help="The folder of your own files, as for train.py, of a network of your own."),
]


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
    run: Run,
    file: Annotated[Path, typer.Argument(help="What to write: a .keras, .h5 or .weights.h5 file.")],
) -> None:
    """Write the weights that a run was tested with to a file that Keras loads."""
    from mnist_bench.exchange.keras.runs import export_run

    print(f"{file}: {export_run(find_run(run, _tell), file)}")


@app.command(rich_help_panel=PANEL)
def predict(
    run: Run,
    images: Annotated[
        list[Path],
        typer.Argument(help="Image files, or folders of them, searched to their depths."),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per image and line.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Draw what the network saw into the terminal.")
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(help="Write what the network saw of each image to this PNG file."),
    ] = None,
    config_dir: ConfigDir = None,
) -> None:
    """Say what images show: PNG, JPEG, BMP, GIF, TIFF or WebP, of any size, in colour or grey.

    A network of MNIST, or of a dataset in its form, sees each as MNIST's digits are: light on
    black, scaled to fit a box of 20 x 20 pixels, its centre of mass in the centre of 28 x 28; a
    28 x 28 image that is light on dark is left as it is. A network of other data sees the image in
    the size and colours that it was trained on.

    Status 1 if an image could not be read; the others are answered all the same.
    """
    from mnist_bench.analysis.predict.command import predict_files

    raise typer.Exit(
        predict_files(find_run(run, _tell), images, config_dir, as_json, show, picture)
    )


@app.command(rich_help_panel=PANEL)
def evaluate(
    run: Run,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Other images, as for train.py: data=fashion_mnist, data.root=FOLDER; or "
            "trainer.gpus, trainer.precision or trainer.kernels.",
            metavar="[OVERRIDES]...",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write evaluation.json, wrong.csv, confusion.png, reliability.png and "
            "mistakes.png into this folder."
        ),
    ] = None,
    config_dir: ConfigDir = None,
) -> None:
    """Test a network again, and tell what it gets wrong.

    Accuracy, loss, precision, recall and F1 of each class, the confusion matrix, whether the
    network is as often right as it says, and the mistakes that it was most sure of. On the run's
    own test images the figures are to the bit those of its summary.json, or the reason is told.
    """
    from mnist_bench.analysis.evaluate.command import evaluate_and_show

    evaluate_and_show(find_run(run, _tell), overrides or [], config_dir, as_json, out)


@app.command(rich_help_panel=PANEL)
def ensemble(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Runs, or sweeps for all runs in them: folders, globs or names of those in "
            "outputs/."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Combine networks by the mean of their probabilities, and by the majority of their votes.

    Nothing is computed anew: each run's predictions.npz has its answers to the test images, which
    must be the same for all.
    """
    import json

    from mnist_bench.analysis.ensemble import combine_runs, describe_ensemble
    from mnist_bench.loggers.console import Screen

    combined = combine_runs(runs)
    if as_json:
        print(json.dumps(combined.as_json(), indent=2, ensure_ascii=False))
    else:
        Screen().console.print(describe_ensemble(combined))


@app.command(rich_help_panel=PANEL)
def demo(
    run: Run,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="By default 8008, or any that is free."),
    ] = None,
    open_page: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = True,
    config_dir: ConfigDir = None,
) -> None:
    """Draw on a page, and watch what the network makes of it while you draw.

    The page is served to this machine alone, and asks nobody else for anything.
    """
    from mnist_bench.analysis.demo.command import serve

    serve(find_run(run, _tell), config_dir, port, open_page)


@app.command(rich_help_panel=PANEL)
def export(
    run: Run,
    to: Annotated[str, typer.Option(help="onnx, or safetensors for mnist_bench.load.")],
    out: Annotated[
        Path | None, typer.Option(help="The file; by default network.onnx in the run's folder.")
    ] = None,
    config_dir: ConfigDir = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file of this name.")] = False,
) -> None:
    """Write a trained network to one file, from raw pixels to probabilities, and check it.

    docs/export.md shows how to use it, with or without PyTorch.
    """
    from mnist_bench.exchange.export import export_network

    print(export_network(find_run(run, _tell), to, out, config_dir, force))


def _tell(line: str) -> None:
    """Print to stderr: what a script reads is on stdout."""
    print(line, file=sys.stderr)
