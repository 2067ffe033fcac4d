"""What a user sees while a run goes on: a live bar on a terminal, plain lines anywhere else.

What a run prints goes to train.log as well, but for the bar.
"""

import io
import logging
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text

from mnist_bench.errors import explain_file_error, wrapped

if TYPE_CHECKING:  # PyTorch takes seconds, which those who only print need not wait
    from mnist_bench.models import LayerSummary
    from mnist_bench.training.loop import EpochRecord
    from mnist_bench.training.loop import Progress as Glance

hydras_log = logging.getLogger("mnist_bench")

PLAIN_WIDTH = 100


class LogFile(logging.FileHandler):
    """train.log, which is not worth a run: of lines that it cannot take, the first is told."""

    told = False

    def __init__(self, filename: str):
        super().__init__(filename, encoding="utf-8", delay=True)  # opened by the first line

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say so, and begin anew with the next line: what waits to be written is in the way."""
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        stream, self.stream = self.stream, None
        if stream is not None:
            with suppress(OSError):
                stream.close()
        if not self.told:
            self.told = True
            told = explain_file_error(error, self.baseFilename)
            print_error(f"{told}; the run goes on, and lines are missing there.")


class Screen:
    """The terminal, and Hydra's train.log."""

    shown: set[str] = set()  # tables that a sweep need not repeat
    # Where runs train side by side on one screen, the name of this one, which begins its lines.
    beside: str | None = None

    def __init__(self) -> None:
        # Given its file, it draws tables with what the encoding of that has.
        self.console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        if not self.console.is_terminal and "COLUMNS" not in os.environ:
            self.console = Console(
                file=sys.stdout, highlight=False, soft_wrap=True, width=PLAIN_WIDTH
            )

    def line(self, text: str, style: str = "") -> None:
        name = f"{Screen.beside}: " if Screen.beside else ""
        self.console.print(Text(wrapped(name + text, sys.stdout), style=style))
        hydras_log.info(text)

    def log_failure(self, error: BaseException) -> None:
        """The error with its traceback, into train.log."""
        lines = "".join(traceback.format_exception(error))
        hydras_log.info(f"The run failed.\n{lines.rstrip()}")

    def table(self, table: Table, once: bool = False) -> str:
        """Show a table, and return it as text; with `once` not again, though each log has it.

        Beside other runs it is left to the log: the sweep's own has the figures of all.
        """
        text = as_text(table)
        if not (Screen.beside or (once and text in Screen.shown)):
            self.console.print(table)
        if once:
            Screen.shown.add(text)
        hydras_log.info(f"\n{text}")
        return text

    def epoch(self, record: "EpochRecord", epochs: int, best: bool) -> None:
        """The line that stays of an epoch, at most 80 characters of a hundred epochs."""
        self.line(
            f"epoch {record['epoch']:>{len(str(epochs))}}/{epochs}  "
            f"train loss {_loss(record['train_loss'])}, {record['train_accuracy']:.2%}  "
            f"val loss {_loss(record['val_loss'])}, {record['val_accuracy']:.2%}  "
            f"{_seconds(record['seconds'])}{'  best' if best else ''}"
        )

    @contextmanager
    def bar(self, epochs: int, steps: int, epoch: int) -> Iterator["Bar"]:
        """A live bar over the steps of an epoch, from `epoch` on, gone when all are over."""
        progress = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(bar_width=None, table_column=Column(ratio=1, max_width=40)),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            expand=True,
            auto_refresh=False,
            transient=True,
            disable=not self.console.is_terminal or bool(Screen.beside),
        )
        with progress:
            yield Bar(progress, epochs, steps, epoch)


def info(text: str, style: str = "") -> None:
    """A line from before a run, when there is no train.log yet."""
    Screen().console.print(Text(wrapped(text, sys.stdout), style=style))


def print_error(sentence: str) -> None:
    """What went wrong, on stderr."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text(wrapped(sentence, sys.stderr), style="bold red"))


class Bar:
    def __init__(self, progress: Progress, epochs: int, steps: int, epoch: int):
        self.progress, self.epochs, self.steps = progress, epochs, steps
        self.task = progress.add_task(
            "", total=steps, epoch=epoch, epochs=epochs, figures="warming up"
        )
        progress.refresh()

    def next_epoch(self, epoch: int) -> None:
        """Begin anew; of short epochs, nothing may be shown within."""
        if epoch <= self.epochs:
            self.progress.update(self.task, completed=0, epoch=epoch, figures="", refresh=True)

    def show(self, glance: "Glance") -> None:
        steps_left = (self.epochs - glance.epoch + 1) * self.steps - glance.step
        seconds_left = steps_left / glance.step * glance.seconds
        self.progress.update(
            self.task,
            completed=glance.step,
            epoch=glance.epoch,
            figures=f"loss {glance.loss:.4f}  accuracy {glance.accuracy:.4f}  "
            f"{glance.images_per_second:,.0f} images/s  {format_seconds(seconds_left)} left",
            refresh=True,
        )


def layers_table(name: str, layers: "Sequence[LayerSummary]") -> Table:
    """The network as Keras's `model.summary()` shows it; shapes are (channels, rows, columns)."""
    total = sum(layer.parameters for layer in layers)
    table = Table(title=name, box=box.SIMPLE_HEAD, show_footer=True, title_style="bold")
    table.add_column("layer", "total")
    table.add_column("output shape")
    table.add_column("parameters", f"{total:,}", justify="right")
    for layer in layers:
        shape = " x ".join(str(n) for n in layer.output_shape)
        table.add_row(f"{layer.name} ({layer.kind})", shape, f"{layer.parameters:,}")
    return table


def closing_table(rows: Iterable[tuple[str, str]]) -> Table:
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def as_text(renderable: RenderableType) -> str:
    """A table in plain characters."""
    buffer = io.StringIO()
    Console(file=buffer, width=PLAIN_WIDTH, highlight=False).print(renderable)
    return buffer.getvalue().rstrip()


def _loss(loss: float) -> str:
    """A loss in six characters, unless it is beyond all reason."""
    return f"{loss:.4f}" if loss < 10 else f"{loss:#.5g}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds:,.0f} s"


def format_seconds(seconds: float) -> str:
    """65.2 as 1:05 (minutes and seconds), 3700 as 1:01:40."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
