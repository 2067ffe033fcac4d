"""Numbers and tables as text that reads well both as Markdown and as it stands."""

import textwrap
from collections.abc import Sequence

from mnist_bench.analysis.statistics import Interval

NONE = "-"


def figure_name(key: str) -> str:
    """`val_accuracy` as `val accuracy, %`, for a column of figures without units."""
    return f"{key.replace('_', ' ')}{', %' if is_accuracy(key) else ''}"


def is_accuracy(key: str) -> bool:
    return key.endswith("accuracy")


def number(key: str, value: float | None, sign: str = "") -> str:
    """Accuracies in per cent with two decimals, losses with four."""
    if value is None:
        return NONE
    if is_accuracy(key):
        return f"{100 * value:{sign}.2f}"
    return f"{value:{sign}.4f}"


def interval(key: str, between: Interval | None, sign: str = "") -> str:
    if between is None:
        return NONE
    return f"{number(key, between.low, sign)} to {number(key, between.high, sign)}"


def p_value(value: float | None) -> str:
    if value is None:
        return NONE
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def paragraph(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """A Markdown table with its columns aligned; the first ones hold text, the others numbers."""
    widths = [max(3, *(len(row[i]) for row in (header, *rows))) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        aligned = [
            cell.ljust(width) if i < text_columns else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(aligned)} |"

    rule = [
        "-" * width if i < text_columns else "-" * (width - 1) + ":"
        for i, width in enumerate(widths)
    ]
    return "\n".join([line(header), line(rule), *map(line, rows)])
