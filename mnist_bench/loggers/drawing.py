"""What a run looks like, as pictures: drawn of plain arrays, without a display and without PyTorch.

N images, C channels (1 or 3), H rows, W columns, K classes, O kernels.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, PercentFormatter

from mnist_bench.loggers.pictures import Array, RunPictures, Tiles

# Okabe and Ito's colours, which people who are colour-blind can tell apart
# (https://jfly.uni-koeln.de/color/).
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
INK, FAINT = "#222222", "#777777"
STYLE = {
    "font.size": 9,
    "text.parse_math": False,  # a class may be called $5
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}
DPI = 110
# Inches that a line of text above an image takes, and the share of an image that is between two.
CAPTION, BETWEEN = 0.22, 0.08
# Inches that a letter of a bold title takes.
LETTER = 0.08
# Of more classes, the matrix has no numbers in its cells, or gives way to the commonest mistakes.
MOST_CLASSES_IN_NUMBERS, MOST_CLASSES_IN_A_MATRIX = 16, 60
MOST_PAIRS = 20


def draw(run: RunPictures, folder: Path) -> dict[str, Path]:
    """Draw each picture of a run into `folder`, a PNG file, and return the files by their names.

    One that has nothing to show is removed, if an earlier training has left it.
    """
    folder.mkdir(exist_ok=True)
    files = {}
    for name, picture in PICTURES.items():
        path = folder / f"{name}.png"
        if draw_to(path, partial(picture, run)):
            files[name] = path
    return files


def draw_to(path: Path, picture: Callable[[], Figure | None]) -> bool:
    """Draw a PNG file, or remove it where there is nothing to show; return whether there is."""
    with matplotlib.style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # of a script that the font lacks
        figure = picture()
        if figure is None:
            path.unlink(missing_ok=True)
            return False
        beside = path.with_name(f"{path.name}.partial")
        figure.savefig(beside, format="png", dpi=DPI, metadata={"Software": None})
    beside.replace(path)
    return True


# --- The pictures -----------------------------------------------------------------------------


def draw_samples(run: RunPictures) -> Figure | None:
    """Training images with their labels."""
    return _page(run, [("training images", run.samples)], columns=10, widest=1.2)


def draw_curves(run: RunPictures) -> Figure | None:
    """Loss and accuracy after each epoch, of training against validation."""
    if not run.history:
        return None
    figure = Figure(figsize=(9, 3.8))
    loss, accuracy = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.07, right=0.98, bottom=0.13, top=0.83, wspace=0.2)
    epochs = [record["epoch"] for record in run.history]
    for axes, key in ((loss, "loss"), (accuracy, "accuracy")):
        for part, colour, marker in (("train", BLUE, "o"), ("val", ORANGE, "s")):
            values = [record[f"{part}_{key}"] for record in run.history]
            name = "training" if part == "train" else "validation"
            few: dict[str, Any] = {"marker": marker, "markersize": 4} if len(epochs) <= 30 else {}
            axes.plot(epochs, values, color=colour, label=f"{name}  {_latest(key, values)}", **few)
        if run.tested_epoch:
            axes.axvline(run.tested_epoch, color=FAINT, linewidth=0.8, linestyle=":", zorder=0)
        axes.set(title=key, xlabel="epoch")
        axes.grid(color="#e4e4e4", linewidth=0.6)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.legend()
    _scale_losses(loss, run)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    _headline(figure, run, f"tested: epoch {run.tested_epoch}" if run.tested_epoch else "")
    return figure


def draw_predictions(run: RunPictures) -> Figure | None:
    """Nine images that were told right and nine that were not, as the Keras notebooks show them."""
    parts = [
        ("told right: predicted / truth", run.right),
        ("told wrong: predicted / truth", run.wrong),
    ]
    return _page(run, parts, columns=3, note="of the test images")


def draw_mistakes(run: RunPictures) -> Figure | None:
    """The mistakes that the network was surest of."""
    title = "the surest mistakes: predicted / truth, probability of what was predicted"
    return _page(run, [(title, run.mistakes)], columns=8, note="of the test images")


def draw_confusion(run: RunPictures) -> Figure | None:
    """How often each class was called which; the colours are of the mistakes alone."""
    classes = len(run.class_names)
    mistakes = np.where(np.eye(classes, dtype=bool), 0, run.confusion)
    if classes > MOST_CLASSES_IN_A_MATRIX:
        return _draw_commonest(run, mistakes)
    few = classes <= MOST_CLASSES_IN_NUMBERS
    names = [_short(name, 14) for name in run.class_names]
    longest, side = max(map(len, names)), float(np.clip(0.42 * classes, 3.2, 9))
    beside = 0.65 + (0.085 if few else 0.065) * longest
    figure, axes = _figure(side, side, left=beside, bottom=beside if longest > 2 else 0.65)
    shown = np.sqrt(mistakes)  # or a frequent mistake would hide all others
    axes.imshow(shown, cmap="Blues", vmin=0, vmax=max(1.0, shown.max()), interpolation="nearest")
    axes.set(xlabel="predicted", ylabel="truth", title="how often each class was called which")
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0, labelsize=9 if few else 6)
    axes.set_xticks(range(classes), names, rotation=90 if longest > 2 else 0)
    axes.set_yticks(range(classes), names)
    if few:
        for (row, column), count in np.ndenumerate(run.confusion):
            if count or row == column:
                dark = shown[row, column] > 0.55 * shown.max()
                weight = "bold" if row == column else "normal"
                text: dict[str, Any] = {"color": "white" if dark else INK, "weight": weight}
                axes.text(column, row, f"{count}", ha="center", va="center", fontsize=8, **text)
    _headline(figure, run)
    return figure


def _draw_commonest(run: RunPictures, mistakes_KK: Array) -> Figure | None:
    """Bars of the commonest mistakes, where a matrix would have more cells than can be seen."""
    order = np.argsort(-mistakes_KK, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = [divmod(int(i), len(run.class_names)) for i in order if mistakes_KK.flat[i]]
    if not pairs:
        return None
    figure, axes = _figure(4.5, 0.25 * len(pairs), left=4.2, bottom=0.5)
    names = run.class_names
    told = [f"{_short(names[truth], 24)}, taken for {_short(names[p], 24)}" for truth, p in pairs]
    axes.barh(range(len(pairs)), [mistakes_KK[pair] for pair in pairs], color=ORANGE, height=0.7)
    axes.set_yticks(range(len(pairs)), told, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="test images", title="the commonest mistakes")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _headline(figure, run)
    return figure


def draw_kernels(run: RunPictures) -> Figure | None:
    """What the first convolution looks for: of grey images by sign, of coloured ones in colour."""
    if run.kernels is None:
        return None
    kernels_OCHW = run.kernels
    largest = float(np.abs(kernels_OCHW).max()) or 1.0
    count, channels, rows, width = kernels_OCHW.shape
    columns = min(count, 8 if count <= 32 else 12)
    figure, axes = _figure(0.75 * columns, 0.75 * -(-count // columns), right=1.0)
    in_colour = channels == 3
    tiles = kernels_OCHW if in_colour else kernels_OCHW[:, :1]
    canvas_HWC, _ = _mosaic(tiles, columns, gap=(1, 1), empty=np.nan)
    if in_colour:
        canvas_HWC = np.nan_to_num(0.5 + canvas_HWC / (2 * largest), nan=1.0)
        axes.imshow(canvas_HWC, interpolation="nearest")
    else:
        drawn = axes.imshow(
            *(canvas_HWC[..., 0], "PuOr"),
            vmin=-largest,
            vmax=largest,
            interpolation="nearest",
        )
        whole = figure.get_figwidth()
        strip = axes.get_position()
        scale = figure.add_axes((strip.x1 + 0.15 / whole, strip.y0, 0.15 / whole, strip.height))
        figure.colorbar(drawn, cax=scale)
        scale.spines[:].set_visible(False)
    axes.set_axis_off()
    axes.set_title(f"the {count} kernels of the first layer, {rows} x {width}")
    _headline(figure, run)
    return figure


PICTURES: dict[str, Callable[[RunPictures], Figure | None]] = {
    "samples": draw_samples,
    "curves": draw_curves,
    "predictions": draw_predictions,
    "mistakes": draw_mistakes,
    "confusion": draw_confusion,
    "kernels": draw_kernels,
}


# --- Parts of a picture -----------------------------------------------------------------------


def _page(
    run: RunPictures,
    parts: Sequence[tuple[str, Tiles]],
    columns: int,
    note: str = "",
    widest: float = 1.9,
) -> Figure | None:
    """Groups of images side by side, those that have any, under one headline.

    An image is as wide as its caption needs, in inches up to `widest`.
    """
    parts = [(title, tiles) for title, tiles in parts if len(tiles.images)]
    if not parts:
        return None
    longest = max(len(caption) for _, tiles in parts for caption in tiles.captions)
    inches = float(np.clip(0.078 * longest, 0.85 if columns > 3 else 1.15, widest))
    _, _, rows, width = parts[0][1].images.shape
    shapes = [(min(columns, len(t.images)), -(-len(t.images) // columns)) for _, t in parts]
    sizes = [
        (inches * (across + BETWEEN * (across - 1)), down * (inches * rows / width + CAPTION))
        for across, down in shapes
    ]
    titled = [max(w, LETTER * len(title)) for (title, _), (w, _) in zip(parts, sizes, strict=True)]
    total = max(4.8, sum(titled) + 0.2 + 0.4 * (len(parts) - 1))
    height = max(h for _, h in sizes) + 0.75
    figure, left = Figure(figsize=(total, height)), 0.1
    for (title, tiles), (across, _), (w, h), taken in zip(
        parts, shapes, sizes, titled, strict=True
    ):
        place = (left / total, 1 - (0.6 + h) / height, w / total, h / height)
        axes = figure.add_axes(place)
        _tiles(axes, tiles, across, inches)
        axes.set_title(title, fontsize=9, pad=3)
        left += taken + 0.4
    _headline(figure, run, note)
    return figure


def _tiles(axes: Axes, tiles: Tiles, columns: int, inches: float) -> None:
    """Images in rows, `columns` of them and `inches` wide each, with their captions above."""
    channels, width = tiles.images.shape[1], tiles.images.shape[3]
    # In pixels of the image, as much as a line of text takes.
    gap = (max(1, round(CAPTION / inches * width)), max(1, round(BETWEEN * width)))
    canvas_HWC, corners = _mosaic(tiles.images, columns, gap, empty=255)
    shown = canvas_HWC[..., 0] if channels == 1 else canvas_HWC
    look: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255, "interpolation": "nearest"}
    axes.imshow(shown.astype(np.uint8), aspect="auto", **look)
    axes.set_axis_off()
    letters = int(inches / 0.072)
    colour = ORANGE if tiles.mistaken else INK
    for (top, left), caption in zip(corners, tiles.captions, strict=True):
        text = _short(caption, letters)
        place: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 8, "color": colour}
        axes.text(left + (width - 1) / 2, top - 0.5 - 0.1 * gap[0], text, **place)


def _mosaic(
    images_NCHW: Array, columns: int, gap: tuple[int, int], empty: float
) -> tuple[Array, list[tuple[int, int]]]:
    """Return images in rows on one canvas (H, W, C), and where the upper left corner of each is.

    `gap` are the rows above each image, and the columns between two.
    """
    count, channels, height, width = images_NCHW.shape
    rows = -(-count // columns)
    shape = (rows * (height + gap[0]), columns * (width + gap[1]) - gap[1], channels)
    canvas_HWC = np.full(shape, empty, dtype=np.float32)
    corners = []
    for number, image_CHW in enumerate(images_NCHW):
        row, column = divmod(number, columns)
        top, left = row * (height + gap[0]) + gap[0], column * (width + gap[1])
        canvas_HWC[top : top + height, left : left + width] = image_CHW.transpose(1, 2, 0)
        corners.append((top, left))
    return canvas_HWC, corners


def _figure(
    width: float, height: float, left: float = 0.1, right: float = 0.1, bottom: float = 0.1
) -> tuple[Figure, Axes]:
    """Return one panel of a size in inches, with so much beside it, and room for the headlines."""
    whole = max(4.8, left + width + right), bottom + height + 0.6
    figure = Figure(figsize=whole)
    place = (left / whole[0], bottom / whole[1], width / whole[0], height / whole[1])
    return figure, figure.add_axes(place)


def _headline(figure: Figure, run: RunPictures, note: str = "") -> None:
    """A line at the top; two smaller ones where a narrow picture has no room for it."""
    width, height = figure.get_size_inches()
    result = "; ".join(filter(None, (run.result, note)))
    if len(result) + len(run.name) + 3 <= (width - 0.2) / 0.068:
        lines, size = [f"{result}   {run.name}"], 9.0
    else:
        lines, size = [result, run.name], 7.5
    for number, line in enumerate(lines):
        text = _short(line, int((width - 0.2) / (0.068 * size / 9)))
        top = 1 - (0.22 if len(lines) == 1 else 0.15 + 0.14 * number) / height
        figure.text(0.1 / width, top, text, fontsize=size, color=FAINT)


def _scale_losses(axes: Axes, run: RunPictures) -> None:
    """By the logarithm, where losses differ by so much that the last ones would be one line."""
    values = [record[key] for record in run.history for key in ("train_loss", "val_loss")]
    if min(values) > 0 and max(values) > 5 * min(values):
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        decades = 10.0 ** np.arange(-9, 10)
        ticks = np.outer(decades, [1, 2, 5]).ravel()
        axes.yaxis.set_major_locator(FixedLocator(ticks[(ticks >= low) & (ticks <= high)].tolist()))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.minorticks_off()


def _latest(key: str, values: Sequence[float]) -> str:
    return f"{values[-1]:.2%}" if key == "accuracy" else f"{values[-1]:.4f}"


def _short(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: max(1, letters - 1)]}…"
