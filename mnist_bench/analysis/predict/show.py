"""Answers as they are shown: a line for each, what the network saw in block characters, a sheet."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.console import Group
from rich.style import Style
from rich.table import Table
from rich.text import Text

from mnist_bench.analysis.predict.answers import Answer

# Below this share an answer is marked as a doubtful one.
DOUBTFUL = 0.8
# Columns of a terminal that a picture may take, and the length of the longest bar beside it.
PICTURE_COLUMNS = 56
BAR_COLUMNS = 24
# Of dark and light halves of a character, where there is no colour.
SHADES = " ░▒▓█"
EIGHTHS = " ▏▎▍▌▋▊▉"


def as_percent(share: float) -> str:
    """Return a share as `99.87%`, and what rounds to certainty as what it is."""
    return ">99.99%" if 0.99995 <= share < 1 else f"{share:.2%}"


class Lines:
    """Lines whose columns stand below each other, whatever comes: all paths are known before.

    A path that is longer than `widest` loses its middle, if that is given.
    """

    def __init__(self, paths: Sequence[Path], class_names: Sequence[str], widest: int | None):
        longest = max((len(str(path)) for path in paths), default=0)
        self.path_width = min(longest, widest or longest)
        self.name_width = max(map(len, class_names))

    def line(self, answer: Answer) -> Text:
        """Return label, probability and what comes next, of an answer without an error."""
        (label, share), *others = answer.top
        path = _shortened(_printable(str(answer.path)), self.path_width)
        rest = "   ".join(
            f"{name:>{self.name_width}} {as_percent(part):>6}" for name, part in others
        )
        return Text.assemble(
            f"{path:<{self.path_width}}   ",
            (f"{label:>{self.name_width}}", "bold"),
            (f" {as_percent(share):>7}", "bold yellow" if share < DOUBTFUL else ""),
            (f"   then   {rest}", "dim"),
        )


def _shortened(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    kept = width - 1
    return f"{text[: kept // 2]}…{text[len(text) - (kept - kept // 2) :]}"


# --- In a terminal ----------------------------------------------------------------------------


def card(answer: Answer, in_colour: bool) -> Table:
    """Return what the network saw, with a bar for each of its likeliest classes beside it."""
    assert answer.seen is not None
    table = Table.grid(padding=(0, 0, 0, 3))
    table.add_column(min_width=min(answer.seen.shape[1], PICTURE_COLUMNS), no_wrap=True)
    table.add_column(overflow="fold")
    path = Text(_printable(answer.path.name), "bold")
    table.add_row(blocks(answer.seen, in_colour), Group(path, Text(), _bars(answer)))
    return table


def blocks(seen: NDArray[np.uint8], in_colour: bool) -> Text:
    """Return pixels (H, W) or (H, W, 3), two above each other in a character.

    In colour they are exact, at most PICTURE_COLUMNS wide; without, in five shades.
    """
    image = Image.fromarray(seen)
    if image.width > PICTURE_COLUMNS:
        size = PICTURE_COLUMNS, max(1, round(image.height * PICTURE_COLUMNS / image.width))
        image = image.resize(size, Image.Resampling.BOX)
    pixels = np.asarray(image.convert("RGB"))
    if len(pixels) % 2:
        pixels = np.pad(pixels, ((0, 1), (0, 0), (0, 0)))
    pairs = pixels.reshape(-1, 2, *pixels.shape[1:])
    if not in_colour:
        shades = (pairs.mean((1, 3)) / 255 * (len(SHADES) - 1)).round().astype(int)
        return Text("\n".join("".join(SHADES[s] for s in row) for row in shades))
    text = Text()
    for number, (upper, lower) in enumerate(pairs):
        text.append("\n" * (number > 0))
        for above, below in zip(upper, lower, strict=True):
            text.append("▀", Style(color=_hex(above), bgcolor=_hex(below)))
    return text


def _hex(rgb: NDArray[np.uint8]) -> str:
    return f"#{rgb[0]:02x}{rgb[1]:02x}{rgb[2]:02x}"


def _bars(answer: Answer) -> Table:
    """Return a row for each class, at most as many as go beside the picture."""
    assert answer.probabilities is not None
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right")
    table.add_column(width=BAR_COLUMNS, no_wrap=True)
    table.add_column(justify="right")
    most = answer.probabilities.max()
    kept = np.sort(np.argsort(-answer.probabilities, kind="stable")[:10])
    for k in kept:
        share = float(answer.probabilities[k])
        style = "bold cyan" if share == most else "dim"
        table.add_row(
            Text(answer.class_names[k], style), Text(_bar(share), style), as_percent(share)
        )
    return table


def _bar(share: float) -> str:
    whole, rest = divmod(round(share * BAR_COLUMNS * 8), 8)
    return "█" * whole + EIGHTHS[rest] * (rest > 0)


# --- As a picture -----------------------------------------------------------------------------

TILE, MARGIN, CAPTION = 112, 14, 38
ACROSS = 8
# What a sheet shows of many: enough for a glance.
MOST_TILES = 400


def draw_sheet(answers: Sequence[Answer], path: Path) -> None:
    """Write a PNG of what the network saw, each with its label, its probability and its file.

    Raises:
        OSError: it cannot be written.
    """
    shown = [answer for answer in answers if answer.seen is not None][:MOST_TILES]
    across = max(1, min(ACROSS, len(shown)))
    wide, high = TILE + MARGIN, TILE + CAPTION + MARGIN
    down = max(1, -(-len(shown) // across))
    sheet = Image.new("RGB", (across * wide + MARGIN, down * high + MARGIN), "#ffffff")
    draw = ImageDraw.Draw(sheet)
    label_font, small_font = ImageFont.load_default(15), ImageFont.load_default(11)
    for n, answer in enumerate(shown):
        assert answer.seen is not None
        x, y = MARGIN + n % across * wide, MARGIN + n // across * high
        tile = Image.fromarray(answer.seen).convert("RGB")
        scale = TILE / max(tile.size)
        size = max(1, round(tile.width * scale)), max(1, round(tile.height * scale))
        sheet.paste(tile.resize(size, Image.Resampling.NEAREST), (x, y))
        (label, share), *_ = answer.top
        colour = "#b45309" if share < DOUBTFUL else "#111827"
        draw.text((x, y + TILE + 4), f"{label}   {as_percent(share)}", colour, label_font)
        name = _printable(answer.path.name)
        while name and draw.textlength(name, small_font) > TILE:
            name = f"{name.rstrip('…')[:-1]}…"
        draw.text((x, y + TILE + 23), name, "#6b7280", small_font)
    sheet.save(path, "PNG", optimize=True)


def _printable(name: str) -> str:
    """Return a file's name without line ends and what else a terminal would obey."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name
    )
