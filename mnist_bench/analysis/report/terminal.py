"""A report on the terminal, from 80 columns on."""

from collections.abc import Sequence

from rich import box
from rich.style import Style
from rich.table import Table
from rich.text import Text

from mnist_bench.analysis.effects import Cell, HeatMap
from mnist_bench.analysis.report import sentences
from mnist_bench.analysis.report.build import Report, SectionReport
from mnist_bench.analysis.report.figures import STRONG, map_title
from mnist_bench.analysis.report.outlook import rest_commands, use_commands
from mnist_bench.analysis.settings import as_typed
from mnist_bench.loggers.console import PLAIN_WIDTH, Screen, info

# Of more settings, and runs that do not count, the first are shown.
MOST_ROWS = 20
MOST_UNCOUNTED = 8
# What a screen has room for besides the settings' keys and the figure that is compared.
NARROW = ("seeds", "may be best")
PLAIN = (*NARROW, "errors", "training", "images/s")
WIDE = 150
# From weak to strong, as the page draws them: both ends of one blue, which no eye confuses.
FAINT, FULL = (214, 230, 245), (6, 47, 107)


def show(report: Report) -> None:
    """Print what a report says, as far as a terminal can."""
    info(sentences.overview(report))
    if report.pairs:
        _heading("Pairs that were named")
        _show(sentences.pairs_table(report))
        _show(sentences.pair_images_table(report))
        info(sentences.PAIRS, style="dim")
        _lines([told for told in report.pair_outlooks if told])
    for section in report.sections:
        _show_section(section)
    if left_out := sentences.uncounted(report):
        _heading("Not counted")
        _lines(left_out[:MOST_UNCOUNTED])
        if more := len(left_out[MOST_UNCOUNTED:]):
            info(f"and {more} more: mnist-bench runs lists them.")


def _show_section(report: SectionReport) -> None:
    _heading(report.section.title)
    info(sentences.same_of_all(report), style="dim")
    if told := sentences.missing(report):
        info(told, style="bold red")
    _lines(report.notes, style="yellow")
    if report.effects:
        _show(sentences.effects_table(report))
        info(sentences.effects_note(report), style="dim")
        _lines(sentences.lessons(report))
    for found in report.maps[:1]:
        _show_map(found, report)
    if told := sentences.verdict(report):
        info(f"\n{told}", style="bold")
    _lines(report.outlook)
    header, rows = sentences.settings_table(report, MOST_ROWS)
    width = Screen().console.width
    wished = header if width >= WIDE else PLAIN if width >= PLAIN_WIDTH else NARROW
    named = [*sentences.setting_columns(report), report.measure.title]
    kept = [place for place, column in enumerate(header) if column in (*wished, *named)]
    _show(([header[p] for p in kept], [[row[p] for p in kept] for row in rows]))
    if more := len(report.rows) - len(rows):
        info(f"and {more} more settings: report.csv has all.")
    info(sentences.under_the_table(report), style="dim")
    info(f"\nBest run: {sentences.best_run(report)}")
    for what, command in [*use_commands(report), *rest_commands(report)]:
        info(f"  {what}: {command}")


def _heading(text: str) -> None:
    info(f"\n{text}", style="bold underline")


def _lines(lines: Sequence[str], style: str = "") -> None:
    for line in lines:
        info(f"- {line}", style=style)


def _show(found: tuple[Sequence[str], Sequence[Sequence[str]]]) -> None:
    header, rows = found
    if not rows:
        return
    if "p (Holm)" in header and Screen().console.width < PLAIN_WIDTH:  # which is what counts
        place = header.index("p")
        header, *rows = ([*line[:place], *line[place + 1 :]] for line in (header, *rows))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for place, column in enumerate(header):
        if place == 0 or column == "at":
            table.add_column(column, overflow="fold")
        else:
            table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    Screen().console.print(table)


def _show_map(found: HeatMap, report: SectionReport) -> None:
    short, measure = report.section.short, report.measure
    title = f"{measure.title}: {short[found.row_key]} by {short[found.column_key]}"
    more = map_title(found, short)
    table = Table(
        title=f"{title}, {more}" if more else title,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        title_style="bold",
        pad_edge=False,
    )
    table.add_column(short[found.row_key], justify="right", style="bold")
    for value in found.columns:
        table.add_column(as_typed(value), justify="center")
    means = [cell.estimate.mean for line in found.cells for cell in line if cell]
    for value, line in zip(found.rows, found.cells, strict=True):
        table.add_row(as_typed(value), *(_cell(cell, means, report) for cell in line))
    Screen().console.print(table)


def _cell(cell: Cell | None, means: Sequence[float], report: SectionReport) -> Text:
    if cell is None:
        return Text("-")
    low, high = min(means), max(means)
    part = (cell.estimate.mean - low) / (high - low) if high > low else 0.5
    part = part if report.measure.higher_is_better else 1 - part
    red, green, blue = (round(a + part * (b - a)) for a, b in zip(FAINT, FULL, strict=True))
    ink = "white" if part >= STRONG else "black"
    style = Style(color=ink, bgcolor=f"rgb({red},{green},{blue})")
    return Text(f" {report.measure.estimate(cell.estimate)} ", style=style)
