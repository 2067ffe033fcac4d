"""What a report draws: effects, maps, candidates and curves.

Widths are those of a phone, on which text must not shrink; a wider screen shows several abreast.
"""

from collections.abc import Sequence

from mnist_bench.analysis.curves import COLUMNS, Curves
from mnist_bench.analysis.effects import Cell, Effect, Estimate, HeatMap
from mnist_bench.analysis.measures import Measure
from mnist_bench.analysis.report.build import Row, SectionReport
from mnist_bench.analysis.report.drawing import Drawing, Scale
from mnist_bench.analysis.settings import as_typed, short_keys

WIDTH = 340.0
# About how wide a character of a label is, in pixels.
CHARACTER = 7.3
# From here on a cell's colour is so strong that its text is better read in the other tone: where
# black and white stand out equally, in both of the template's themes.
STRONG = 0.59
MOST_CANDIDATES = 20


def ends(found: Estimate) -> tuple[float, float]:
    reach = found.reach or 0.0
    return found.mean - reach, found.mean + reach


def limits(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return from the least to the largest of intervals, with a little room; never nothing."""
    low, high = min(p[0] for p in pairs), max(p[1] for p in pairs)
    room = 0.05 * (high - low) or max(abs(high) * 1e-3, 1e-6)
    return low - room, high + room


# --- Effects ----------------------------------------------------------------------------------


def effect_figures(report: SectionReport) -> list[Drawing]:
    """Return a panel for each key: the mean at each of its values; all on one scale."""
    means = [ends(level.mean) for effect in report.effects for level in effect.levels]
    if not means:
        return []
    names = [as_typed(level.value) for effect in report.effects for level in effect.levels]
    left = min(130.0, 18 + CHARACTER * max(map(len, names)))
    return [
        _effect_figure(effect, report.section.short, limits(means), report.measure, left)
        for effect in report.effects
    ]


def _effect_figure(
    effect: Effect,
    short: dict[str, str],
    between: tuple[float, float],
    measure: Measure,
    left: float,
) -> Drawing:
    names = [as_typed(level.value) for level in effect.levels]
    right, top, step = 96.0, 8.0, 30.0
    bottom = top + step * len(names)
    name = short[effect.key]
    drawing = Drawing(WIDTH, bottom + 40, f"{measure.title} by {name}", name)
    scale = Scale(*between, left, WIDTH - right)
    _horizontal_axis(drawing, scale, top, bottom, measure)
    for place, (level, text) in enumerate(zip(effect.levels, names, strict=True)):
        y = top + step * (place + 0.5)
        drawing.text(left - 10, y + 4, _cut(text, left - 10), anchor="end")
        _interval(drawing, scale, y, level.mean)
        drawing.text(WIDTH, y + 4, measure.estimate(level.mean), "figure", "end")
    return drawing


def _horizontal_axis(
    drawing: Drawing, scale: Scale, top: float, bottom: float, measure: Measure
) -> None:
    for tick in scale.ticks(4):
        drawing.line(scale(tick), top, scale(tick), bottom, "grid")
        drawing.text(scale(tick), bottom + 15, _tick(measure, tick), "tick", "middle")
    middle = (scale.start + scale.end) / 2
    drawing.text(middle, bottom + 33, measure.title, "axis", "middle")


def _interval(drawing: Drawing, scale: Scale, y: float, found: Estimate, kind: str = "") -> None:
    if found.reach is not None:
        low, high = ends(found)
        drawing.line(scale(low), y, scale(high), y, f"reach {kind}".strip())
    drawing.dot(scale(found.mean), y, 4.5, f"mean {kind}".strip())


def _tick(measure: Measure, value: float) -> str:
    return f"{100 * value:.6g}" if measure.is_accuracy else f"{value:.6g}"


def _cut(text: str, room: float) -> str:
    most = max(3, int(room / CHARACTER))
    return text if len(text) <= most else f"{text[: most - 1]}…"


# --- Maps -------------------------------------------------------------------------------------


def map_figures(report: SectionReport) -> list[Drawing]:
    """Return the maps, on one scale of colours: the stronger, the better."""
    cells = [cell for found in report.maps for line in found.cells for cell in line if cell]
    if not cells:
        return []
    means = [cell.estimate.mean for cell in cells]
    if not report.measure.higher_is_better:
        means = [-mean for mean in means]
    scale = Scale(min(means), max(means), 0, 1)
    candidates = {
        place
        for place, setting in enumerate(report.section.settings)
        if any(row.setting is setting and row.is_candidate for row in report.rows)
    }
    return [_map_figure(found, report, scale, candidates) for found in report.maps]


def map_title(found: HeatMap, short: dict[str, str]) -> str:
    if found.fixed:
        return " ".join(f"{short[key]}={as_typed(value)}" for key, value in found.fixed.items())
    rest = [name for key, name in short.items() if key not in (found.row_key, found.column_key)]
    return f"averaged over {', '.join(rest)}" if found.averaged > 1 else ""


def _map_figure(
    found: HeatMap, report: SectionReport, scale: Scale, candidates: set[int]
) -> Drawing:
    short, measure = report.section.short, report.measure
    rows, columns = [as_typed(v) for v in found.rows], [as_typed(v) for v in found.columns]
    left = min(150.0, 34 + CHARACTER * max(map(len, rows)))
    wide = max(78.0, (WIDTH - left) / len(columns), 12 + CHARACTER * max(map(len, columns)))
    wide, high, top = min(wide, 150.0), 48.0, 44.0
    width, bottom = left + wide * len(columns), top + high * len(rows)
    title = map_title(found, short)
    row_name, column_name = short[found.row_key], short[found.column_key]
    drawing = Drawing(
        width, bottom + 4, f"{measure.title} by {row_name} and {column_name}, {title}", title
    )
    drawing.text(left + wide * len(columns) / 2, 14, column_name, "axis", "middle")
    drawing.turned_text(12, (top + bottom) / 2, row_name)
    for place, name in enumerate(columns):
        text = _cut(name, wide - 4)
        drawing.text(left + wide * (place + 0.5), top - 9, text, anchor="middle")
    for line, name in enumerate(rows):
        y = top + high * line
        drawing.text(left - 8, y + high / 2 + 4, _cut(name, left - 26), anchor="end")
        for place, cell in enumerate(found.cells[line]):
            _cell(drawing, left + wide * place, y, wide, high, cell, measure, scale, candidates)
    return drawing


def _cell(
    drawing: Drawing,
    x: float,
    y: float,
    wide: float,
    high: float,
    cell: Cell | None,
    measure: Measure,
    scale: Scale,
    candidates: set[int],
) -> None:
    middle = x + wide / 2
    if cell is None:
        drawing.box(x + 1.5, y + 1.5, wide - 3, high - 3, "empty")
        drawing.text(middle, y + high / 2 + 4, "no run", "tick", "middle")
        return
    mean = cell.estimate.mean
    part = round(scale(mean if measure.higher_is_better else -mean), 2)
    may_be_best = len(cell.places) == 1 and cell.places[0] in candidates
    kind = "cell candidate" if may_be_best else "cell"
    drawing.box(x + 1.5, y + 1.5, wide - 3, high - 3, kind, f"--t:{100 * part:.0f}%")
    tone = "strong" if part >= STRONG else "faint"
    reach = measure.reach(cell.estimate.reach)
    drawing.text(middle, y + high / 2 + (-2 if reach else 5), measure.number(mean),
                 f"in-cell {tone}", "middle")  # fmt: skip
    if reach:
        drawing.text(middle, y + high / 2 + 14, reach, f"in-cell small {tone}", "middle")


# --- Candidates -------------------------------------------------------------------------------


def candidates_figure(report: SectionReport) -> Drawing | None:
    """Return Hsu's intervals of the leading settings: how far each may be behind the best other."""
    rows = report.rows[:MOST_CANDIDATES]
    if report.best is None:
        return None
    sign = 1 if report.measure.higher_is_better else -1
    between = [
        sorted((sign * row.behind.low, sign * row.behind.high)) for row in rows if row.behind
    ]
    low, high = limits([(pair[0], pair[1]) for pair in between])
    top, step = 4.0, 38.0
    bottom = top + step * len(rows)
    label = "How far each setting may be from the best of the others"
    drawing = Drawing(WIDTH, bottom + 40, label, " · ".join(report.section.short.values()))
    scale = Scale(low, high, 8, WIDTH - 100)
    measure = report.measure
    for tick in scale.ticks(5):
        drawing.line(scale(tick), top, scale(tick), bottom, "zero" if abs(tick) < 1e-12 else "grid")
        drawing.text(scale(tick), bottom + 15, _tick(measure, tick), "tick", "middle")
    what = f"{measure.name}, distance from the best other{',' * bool(measure.unit)}{measure.unit}"
    drawing.text(WIDTH / 2, bottom + 33, what, "axis", "middle")
    for place, (row, pair) in enumerate(zip(rows, between, strict=True)):
        _candidate(drawing, scale, top + step * place, row, (pair[0], pair[1]), measure)
    return drawing


def name_of(row: Row) -> str:
    """Return a setting by its values alone; the figure's title has the keys."""
    return " · ".join(row.values) or row.label


def _candidate(
    drawing: Drawing,
    scale: Scale,
    y: float,
    row: Row,
    between: tuple[float, float],
    measure: Measure,
) -> None:
    kind = "" if row.is_candidate else "out"
    drawing.text(8, y + 14, _cut(name_of(row), WIDTH - 112), f"label {kind}".strip())
    shown = measure.estimate(row.estimate)
    drawing.text(WIDTH - 4, y + 14, shown, f"figure {kind}".strip(), "end")
    drawing.line(scale(between[0]), y + 25, scale(between[1]), y + 25, f"reach {kind}".strip())
    for end in between:
        drawing.line(scale(end), y + 21, scale(end), y + 29, f"reach {kind}".strip())


# --- Curves -----------------------------------------------------------------------------------


def curve_figures(report: SectionReport) -> list[Drawing]:
    """Return a panel for each leading setting: the losses of training and validation, by epoch."""
    if not report.curves:
        return []
    values = [table for curves in report.curves for table in curves.values.values()]
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    short = short_keys(report.section.axes)
    return [
        _curve_figure(curves, low, high, curves.setting.label(short)) for curves in report.curves
    ]


def _curve_figure(curves: Curves, low: float, high: float, title: str) -> Drawing:
    left, right, top, bottom = 48.0, WIDTH - 10, 8.0, 158.0
    drawing = Drawing(WIDTH, bottom + 38, f"Losses by epoch: {title}", title)
    y = Scale(low / 1.1, high * 1.1, bottom, top, is_log=True)
    epochs = curves.values[COLUMNS[0]].shape[1]
    x = Scale(1, epochs, left, right)
    ticks = [tick for tick in y.ticks(5) if y(low) - y(tick) > 12]
    for tick in [float(f"{low:.2g}"), *ticks]:  # of few decades no round one may be near the end
        drawing.line(left, y(tick), right, y(tick), "grid")
        drawing.text(left - 6, y(tick) + 4, f"{tick:g}", "tick", "end")
    for tick in sorted({max(1, round(tick)) for tick in x.ticks(6)} | {1, epochs}):
        if tick in (1, epochs) or x(epochs) - x(tick) > 24:
            drawing.text(x(tick), bottom + 15, str(tick), "tick", "middle")
    drawing.text((left + right) / 2, bottom + 33, "epoch", "axis", "middle")
    drawing.turned_text(11, (top + bottom) / 2, "loss, log scale")
    for column, kind in zip(COLUMNS, ("train", "val"), strict=True):
        table = curves.values[column]
        places = [x(epoch) for epoch in range(1, epochs + 1)]
        if len(table) > 1:
            upper = list(zip(places, map(y, table.max(0)), strict=True))
            lower = list(zip(places, map(y, table.min(0)), strict=True))
            drawing.path([*upper, *reversed(lower)], f"band {kind}", closed=True)
        drawing.path(list(zip(places, map(y, curves.median(column)), strict=True)), f"curve {kind}")
    return drawing
