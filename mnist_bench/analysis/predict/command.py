"""What `mnist-bench predict` does: answers to stdout, what cannot be read and the bar to stderr."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mnist_bench.analysis.predict.answers import Answer, answer_files
from mnist_bench.analysis.predict.files import find_images
from mnist_bench.analysis.predict.show import MOST_TILES, Lines, card, draw_sheet
from mnist_bench.errors import ConfigError, FileError, explain_file_error
from mnist_bench.loggers.console import print_error
from mnist_bench.runs.load import load

# Fewer are answered before a bar could be read.
MANY = 200


def predict_files(
    run: Path,
    given: Sequence[Path],
    config_dir: Path | None = None,
    as_json: bool = False,
    show: bool = False,
    picture: Path | None = None,
) -> int:
    """Print what the network of a run says of each image; return 1 if one could not be read.

    Raises:
        ConfigError: the folder is not that of a run, or there are no images.
        FileError: the `picture` cannot be written.
    """
    if picture is not None and picture.suffix.lower() != ".png":
        raise ConfigError(f"--picture {picture} is to be a PNG file: give it the ending .png.")
    if picture is not None and not picture.absolute().parent.is_dir():
        raise ConfigError(f"--picture {picture}: there is no folder {picture.parent}; make it.")
    paths = find_images(given)
    if picture is not None and picture.resolve() in {path.resolve() for path in paths}:
        raise ConfigError(f"--picture {picture} is one of the images to read: give another name.")
    network = load(run, config_dir)
    errors = Console(stderr=True)
    on_terminal = sys.stdout.isatty()
    lines = Lines(paths, network.class_names, errors.width // 2 if on_terminal else None)
    kept: list[Answer] = []
    failed = 0
    with Progress(
        TextColumn("{task.completed:,} of {task.total:,} images"),
        BarColumn(),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
        disable=len(paths) < MANY or not errors.is_terminal,
        redirect_stdout=on_terminal,  # lines go above the bar
    ) as progress:
        out = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        task = progress.add_task("", total=len(paths))
        for answer in answer_files(network, paths):
            progress.advance(task)
            failed += answer.error is not None
            if picture is not None and answer.error is None and len(kept) < MOST_TILES:
                kept.append(answer)
            _print(answer, out, lines, as_json, show)
    if picture is not None:
        _write_sheet(kept, picture, len(paths) - failed)
    return 1 if failed else 0


def _print(answer: Answer, out: Console, lines: Lines, as_json: bool, show: bool) -> None:
    if as_json:
        print(json.dumps(answer.as_json(), ensure_ascii=False))
    elif answer.error is not None:
        print_error(answer.error)
    elif show or out.is_terminal:
        drawn = card(answer, out.is_terminal and not out.no_color) if show else lines.line(answer)
        with out.capture() as text:
            out.print(drawn)
        print(text.get(), end="\n" * show)  # which the bar makes room for
    else:  # rich takes half a millisecond for a line
        print(lines.line(answer).plain)


def _write_sheet(answers: list[Answer], path: Path, answered: int) -> None:
    if not answers:
        print(f"{path} is not written: no image could be read.", file=sys.stderr)
        return
    try:
        draw_sheet(answers, path)
    except OSError as error:
        raise FileError(f"{explain_file_error(error, str(path))}.") from error
    of_all = f", of {answered:,}" if answered > len(answers) else ""
    images = f"{len(answers):,} image{'s' * (len(answers) != 1)}{of_all}"
    print(f"{path}: {images}, as the network saw them", file=sys.stderr)
