"""An evaluation as a terminal shows it."""

from collections.abc import Iterator

import numpy as np
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from mnist_bench.analysis.evaluate.evaluation import Evaluation

# Wrong images in the table, and pairs of classes where the matrix has no room.
MOST_WRONG, MOST_PAIRS = 10, 10
# Of more classes, or fewer columns, pairs are shown in place of the matrix.
MOST_CLASSES = 16
WIDEST_NAME = 16


def describe_evaluation(evaluation: Evaluation, width: int) -> RenderableType:
    """Return the figures, the classes, what is mistaken for what, and the worst mistakes."""
    parts: list[RenderableType] = [_headline(evaluation), Text()]
    parts += [Group(Text(line), Text()) for line in _told(evaluation)]
    parts += [_classes_table(evaluation), Text()]
    if evaluation.wrong:
        fits = len(evaluation.class_names) <= MOST_CLASSES
        matrix = _confusion_table(evaluation) if fits else None
        if matrix is None or Console(width=10_000).measure(matrix).minimum > width:
            matrix = _pairs_table(evaluation)
        parts += [matrix, Text(), _wrong_table(evaluation)]
    return Group(*parts)


def _headline(evaluation: Evaluation) -> Table:
    figures = evaluation.figures
    table = Table(
        box=box.SIMPLE,
        show_header=False,
        title=f"{evaluation.model} {evaluation.when}, on the test images of {evaluation.dataset}",
        title_style="bold",
        title_justify="left",
    )
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, told in _figure_rows(evaluation, figures):
        table.add_row(name, told)
    return table


def _figure_rows(
    evaluation: Evaluation, figures: dict[str, float | int]
) -> Iterator[tuple[str, str]]:
    accuracy, errors = figures["test_accuracy"], figures["test_errors"]
    images = len(evaluation.labels)
    yield "accuracy", f"{accuracy:.2%}, {errors:,} errors in {images:,} images"
    yield "loss", f"{figures['test_loss']:.4f}"
    for key, value in figures.items():
        name = key.removeprefix("test_")
        if name not in ("accuracy", "errors", "loss"):
            label = name.removesuffix("_accuracy").replace("top2", "top 2")
            yield label, f"{value:.2%}"
    calibration = evaluation.calibration
    gap = round(calibration.gap * 100, 2)
    way = (
        f"{abs(gap):.2f} points {'too sure' if gap > 0 else 'too cautious'}"
        if gap
        else "as sure as right"
    )
    yield "calibration", f"expected error {calibration.ece:.2%}; on average {way}"
    by = evaluation.computed_by
    yield "computed in", f"{by['precision']} on {by['device']}; kernels: {by['kernels']}"


def _told(evaluation: Evaluation) -> Iterator[str]:
    yield from evaluation.notes
    if evaluation.as_recorded:
        yield "To the bit what summary.json has."
    if evaluation.unlike is not None:
        yield evaluation.unlike


def _classes_table(evaluation: Evaluation) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("class")
    for heading in ("images", "precision", "recall", "F1"):
        table.add_column(heading, justify="right")
    worst = min((c.f1 for c in evaluation.classes if c.f1 is not None), default=None)
    for figures in evaluation.classes:
        shares = ("-" if v is None else f"{v:.2%}" for v in (figures.precision, figures.recall))
        f1 = "-" if figures.f1 is None else f"{figures.f1:.2%}"
        style = "yellow" if figures.f1 == worst != 1 else ""
        table.add_row(Text(figures.name), f"{figures.images:,}", *shares, Text(f1, style))
    return table


def _confusion_table(evaluation: Evaluation) -> Table:
    """Return the matrix, truth in rows; mistakes stand out by how many there are."""
    confusion, names = evaluation.confusion, evaluation.class_names
    short = max(map(len, names)) <= 5
    mistakes = confusion - np.diag(confusion.diagonal())
    most = max(1, mistakes.max())
    table = Table(box=box.SIMPLE_HEAD, title="truth in rows, predicted in columns")
    table.title_style, table.title_justify = "dim", "left"
    table.add_column("", style="bold")
    for number, name in enumerate(names):
        table.add_column(Text(name if short else str(number)), justify="right")
    for row, name in enumerate(names):
        cells = []
        for column, count in enumerate(confusion[row]):
            if row == column:
                cells.append(Text(f"{count}", "bold green"))
            elif count == 0:
                cells.append(Text("·", "dim"))
            else:
                strong = count > most / 2
                cells.append(Text(f"{count}", "bold red" if strong else "yellow"))
        label = name if short else f"{row} {name[:WIDEST_NAME]}"
        table.add_row(Text(label), *cells)
    return table


def _pairs_table(evaluation: Evaluation) -> Table:
    """Return what is most often mistaken for what, where the matrix has no room."""
    confusion, names = evaluation.confusion, evaluation.class_names
    mistakes = confusion - np.diag(confusion.diagonal())
    table = Table(box=box.SIMPLE_HEAD, title="mistaken most often")
    table.title_style, table.title_justify = "dim", "left"
    for heading in ("class", "taken for"):
        table.add_column(heading)
    table.add_column("images", justify="right")
    for place in np.argsort(-mistakes.ravel(), kind="stable")[:MOST_PAIRS]:
        row, column = divmod(int(place), len(names))
        if mistakes[row, column]:
            table.add_row(Text(names[row]), Text(names[column]), f"{mistakes[row, column]:,}")
    return table


def _wrong_table(evaluation: Evaluation) -> Table:
    wrong = evaluation.wrong
    shown = wrong[:MOST_WRONG]
    title = "the most confident mistakes" if len(wrong) > len(shown) else "the mistakes"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_style="dim", title_justify="left")
    table.add_column("image", justify="left" if evaluation.image_names else "right")
    table.add_column("label")
    table.add_column("predicted")
    table.add_column("with", justify="right")
    table.add_column("the label had", justify="right")
    for one in shown:
        table.add_row(
            *(Text(one.name or str(one.image)), Text(one.label), Text(one.predicted)),
            *(f"{one.confidence:.2%}", f"{one.label_probability:.2%}"),
        )
    return table
