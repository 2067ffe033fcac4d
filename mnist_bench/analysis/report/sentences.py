"""What a report says in words, the same on the terminal, in Markdown and on the page."""

import math
from collections.abc import Sequence

from mnist_bench.analysis.markdown import p_value
from mnist_bench.analysis.measures import Measure
from mnist_bench.analysis.notes import what_is_missing
from mnist_bench.analysis.pairs import NamedPair
from mnist_bench.analysis.report.build import Report, Row, SectionReport
from mnist_bench.analysis.settings import SEED, as_typed
from mnist_bench.analysis.statistics import Interval
from mnist_bench.loggers.console import format_seconds
from mnist_bench.runs.standing import State

# Below it a difference is called one.
LEVEL = 0.05
# As many names stand in a sentence.
MOST_NAMES = 6
# As many keys have a column each.
MOST_KEYS = 5
NONE = "-"

ON_IMAGES = (
    "The leading setting less others, on the images: the share of the seeds that get each test "
    "image right, paired by image, and p with Holm's correction over these rows. It compares these "
    "very networks, on ever more images; of other seeds it tells nothing, and which setting leads "
    "was chosen by looking, which no correction mends."
)
PAIRS = (
    "Named before looking, by --compare. Over seeds: Welch's test of the two settings' means, with "
    "Holm's correction over all pairs named. On images: the same networks paired by test image, of "
    "which other seeds would give others."
)


def overview(report: Report) -> str:
    counted = sum(len(s.section.runs) + len(s.section.repeated) for s in report.sections)
    told = f"{_count(report.runs, 'run')}, {counted} of them completed"
    if len(report.sections) > 1:
        told += (
            f"; {len(report.sections)} sections, as other networks or other images are not to be "
            f"thrown together"
        )
    return f"{told}."


def same_of_all(report: SectionReport) -> str:
    """Return what command lines set for all runs alike, and how many images there were."""
    summaries = [run.summary for run in report.section.runs]
    swept = {*report.section.axes, SEED}
    lines = [
        line
        for line in summaries[0].get("overrides", ())
        if line.partition("=")[0].lstrip("+") not in swept
        and all(line in summary.get("overrides", ()) for summary in summaries)
    ]
    counts = [
        f"{summaries[0][key]:,} {what}"
        for key, what in (("train_images", "training images"), ("test_images", "test images"))
        if len({summary.get(key) for summary in summaries}) == 1 and summaries[0].get(key)
    ]
    told = [f"all runs with {' '.join(lines)}"] * bool(lines) + [", ".join(counts)] * bool(counts)
    return f"{told[0][0].upper()}{'; '.join(told)[1:]}." if told else ""


def missing(report: SectionReport) -> str:
    """Return what the section's sweeps lack; nothing if they are whole."""
    unfinished = report.section.unfinished
    if not unfinished:
        return ""
    total = len(unfinished) + len(report.section.runs) + len(report.section.repeated)
    names = _names([short_name(run.path.name) for run in unfinished], "; ")
    return (
        f"Incomplete: {len(unfinished)} of {total} runs are missing "
        f"({what_is_missing(unfinished)}): {names}. What follows is of those that are there."
    )


def under_the_table(report: SectionReport) -> str:
    """Return what the ± is, and what is the same of all rows."""
    devices = report.devices
    where = f" All ran on {devices[0]}." if len(devices) == 1 else ""
    return f"{plus_minus(report)} Other figures are means over the seeds.{where}"


def short_name(name: str) -> str:
    """Return `model.dropout=0.25--seed=1` as `dropout=0.25 seed=1`."""
    parts = (part.partition("=") for part in name.split("--"))
    return " ".join(f"{key.rpartition('.')[2]}{equals}{value}" for key, equals, value in parts)


def uncounted(report: Report) -> list[str]:
    """Return which runs do not count, and why; of those that wait it is told as missing."""
    return [f"{run.path}: {why}" for run, why in report.uncounted if why != State.waiting.value]


def plus_minus(report: SectionReport) -> str:
    """Return what stands behind the ± of means."""
    chance, measure = report.chance, report.measure
    if not chance.is_pooled:
        stds = [std for std in chance.stds if std is not None]
        return (
            f"The settings' deviations differ, from {measure.number(min(stds))} to "
            f"{measure.number(max(stds))}{measure.unit} "
            f"(Cochran's test, {_p_in_words(chance.unequal_p)}): "
            f"± is half the 95 % interval of the mean over ever more seeds by each setting's own."
        )
    if chance.pooled.std is None:
        return "There is no ±: it takes several seeds of a setting, and figures that differ."
    pooled = ""
    if len(report.rows) > 1:
        # Those of equal figures tell nothing, which a note says.
        pooled = f" pooled over {_count(sum(map(bool, chance.stds)), 'setting')}"
    return (
        f"± is half the 95 % interval of the mean over ever more seeds, on these test images. It "
        f"comes from a deviation between seeds of {measure.number(chance.pooled.std)}{measure.unit}"
        f"{pooled}, with {_count(chance.pooled.freedom, 'degree')} of freedom."
    ).replace("on these test images", f"on these {_images_of(measure)} images")


def _images_of(measure: Measure) -> str:
    return "test" if measure.key.startswith("test") else "validation"


def method_of(report: SectionReport) -> str:
    """Return by what settings are ruled out."""
    if report.chance.is_pooled:
        return "Hsu's multiple comparisons with the best"
    return "Welch's test against each other setting, with Bonferroni's correction"


def verdict(report: SectionReport) -> str:
    """Return which settings cannot be ruled out as the best."""
    rows, candidates = report.rows, report.candidates
    if len(rows) < 2:
        return ""
    if report.best is None and len({row.estimate.mean for row in rows}) == 1:
        return f"All {len(rows)} settings gave the same {report.measure.name}: none leads."
    if report.best is None:
        return (
            f"Which setting is the best cannot be told: {rows[0].label} leads, and nothing tells "
            f"how much of that is chance."
        )
    method = f"{method_of(report)}, 95 %"
    if len(candidates) == 1:
        others = "the other is" if len(rows) == 2 else f"all {len(rows) - 1} others are"
        return f"{candidates[0].label} is the best: {others} ruled out ({method})."
    names = _together(candidates, report) or _names([row.label for row in candidates], "; ")
    if len(candidates) == len(rows):
        return f"None of {len(rows)} settings can be ruled out as the best ({method}): {names}."
    return (
        f"{len(candidates)} of {len(rows)} settings cannot be ruled out as the best ({method}): "
        f"{names}."
    )


def _together(candidates: Sequence[Row], report: SectionReport) -> str:
    """Return settings as `optimizer=adam, dropout=0 or 0.25` if they are all such; else nothing."""
    values = {
        name: list(dict.fromkeys(row.values[place] for row in candidates))
        for place, name in enumerate(report.section.short.values())
    }
    if math.prod(map(len, values.values())) != len(candidates):
        return ""
    return ", ".join(f"{name}={' or '.join(sorted(own))}" for name, own in values.items())


def effects_note(report: SectionReport) -> str:
    left_out = max((effect.left_out for effect in report.effects), default=0)
    told = (
        "The mean at each value of a key over all values of the others, each setting counting "
        "once, and how far it is from that at the first value. p is of the F test that the key "
        "makes no difference on average."
    )
    return told + f" {_count(left_out, 'setting')} without counterparts left out." * bool(left_out)


def lessons(report: SectionReport) -> list[str]:
    """Return of each key in a sentence what it does on average, the surest first."""
    measure, found = report.measure, []
    tested = [(e.p_value, e) for e in report.effects if e.p_value is not None]
    for value, effect in sorted(tested, key=lambda one: one[0]):
        name, p = report.section.short[effect.key], _p_in_words(value)
        if value >= LEVEL:
            found.append(f"{name}: no difference shown on average ({p}).")
            continue
        sign = 1 if measure.higher_is_better else -1
        best, worst = (
            choose(effect.levels, key=lambda level: sign * level.mean.mean) for choose in (max, min)
        )
        gap = measure.number(abs(best.mean.mean - worst.mean.mean))
        found.append(
            f"{name} makes a difference: on average {as_typed(best.value)} is {gap}"
            f"{measure.unit or f' of {measure.name}'} better than {as_typed(worst.value)} ({p})."
        )
    return found


def effects_table(report: SectionReport) -> tuple[list[str], list[list[str]]]:
    measure = report.measure
    rows = []
    for effect in report.effects:
        for place, level in enumerate(effect.levels):
            less = level.less_first
            rows.append(
                [
                    f"{report.section.short[effect.key]}={as_typed(level.value)}",
                    measure.estimate(level.mean),
                    measure.estimate(less, "+") if less else "",
                    str(level.runs),
                    p_value(effect.p_value) if place == 0 else "",
                ]
            )
    return ["effect of", measure.title, "from the first", "runs", "p"], rows


def settings_table(report: SectionReport, most: int) -> tuple[list[str], list[list[str]]]:
    """Return a row for each setting, the best mean first."""
    measure = report.measure
    header = [*setting_columns(report), "seeds", measure.title]
    beside = "val_accuracy" if measure.key.startswith("test") else "test_accuracy"
    header += [
        Measure(beside).title.replace(" accuracy", ""),
        "errors",
        "test loss",
        "parameters",
        "training",
    ]
    header += ["images/s", *["device"] * (len(report.devices) > 1)]
    if report.best:
        header.append("may be best")
    return header, [_row(row, report, beside) for row in report.rows[:most]]


def setting_columns(report: SectionReport) -> list[str]:
    """Return the columns that name a setting: one for each key, of very many keys one for all."""
    keys = list(report.section.short.values())
    return keys if 0 < len(keys) <= MOST_KEYS else ["setting"]


def _row(row: Row, report: SectionReport, beside: str) -> list[str]:
    def mean(key: str, shown: str) -> str:
        value = row.mean(key)
        return shown.format(value) if value == value else NONE

    beside_mean = row.mean(beside)
    cells = [
        *([row.label] if setting_columns(report) == ["setting"] else row.values),
        str(row.setting.n),
        report.measure.estimate(row.estimate),
        Measure(beside).number(beside_mean) if beside_mean == beside_mean else NONE,
        mean("test_errors", "{:,.1f}"),
        mean("test_loss", "{:.4f}"),
        mean("parameters", "{:,.0f}"),
        duration(row.mean("train_seconds")),
        mean("images_per_second", "{:,.0f}"),
    ]
    if len(report.devices) > 1:
        cells.append(row.devices)
    if report.best:
        cells.append("yes" if row.is_candidate else "ruled out")
    return cells


def images_table(report: SectionReport) -> tuple[list[str], list[list[str]]]:
    rows = []
    for row in report.rows:
        if row.images is not None:
            found = row.images.difference
            rows.append(
                [row.label, points(found.mean), span(found.interval), p_value(row.images_p)]
            )
    return ["leader against", "points", "95 % interval", "p (Holm)"], rows


def pairs_table(report: Report) -> tuple[list[str], list[list[str]]]:
    measure = report.measure
    rows = []
    for pair in report.pairs:
        found, between = pair.difference, pair.difference.interval
        interval = NONE
        if between:
            interval = f"{measure.number(between.low, '+')} to {measure.number(between.high, '+')}"
        rows.append(
            [
                *pair.names,
                measure.number(found.mean, "+"),
                interval,
                p_value(found.p_value),
                p_value(pair.p_holm),
                pair_verdict(pair),
            ]
        )
    unit = measure.unit.strip() or "difference"
    return ["over seeds", "at", unit, "95 % interval", "p", "p (Holm)", "said to be"], rows


def pair_verdict(pair: NamedPair) -> str:
    if pair.p_holm is None:
        return "one seed only" if min(pair.first.n, pair.second.n) < 2 else "not told"
    return "different" if pair.p_holm < LEVEL else "not shown"


def pair_images_table(report: Report) -> tuple[list[str], list[list[str]]]:
    rows, single = [], any(pair.images and pair.images.mcnemar for pair in report.pairs)
    for pair in report.pairs:
        if pair.images is None:
            continue
        found, only = pair.images.difference, pair.images.mcnemar
        counts = [f"{only.only_a} and {only.only_b}" if only else NONE] * single
        cells = [points(found.mean), span(found.interval), *counts, p_value(pair.images.p_value)]
        rows.append([*pair.names, *cells])
    counted = ["only one right"] * single
    return ["test accuracy on images", "at", "points", "95 % interval", *counted, "p"], rows


def points(value: float) -> str:
    return f"{round(100 * value, 2) + 0.0:+.2f}"  # never -0.00


def span(between: Interval | None) -> str:
    return NONE if between is None else f"{points(between.low)} to {points(between.high)}"


def duration(seconds: float) -> str:
    if seconds != seconds:
        return NONE
    return f"{seconds:.1f} s" if seconds < 60 else format_seconds(seconds)


def best_run(report: SectionReport) -> str:
    """Return which run is the best by validation, with its figures."""
    summary = report.best_run.summary
    luck = " The best of several runs is partly luck." * (len(report.section.runs) > 1)
    return (
        f"{report.best_run.path}: lowest validation loss, {summary['val_loss']:.4f}, as the test "
        f"set is not for choosing; validation accuracy {summary['val_accuracy']:.2%}, test "
        f"accuracy {summary['test_accuracy']:.2%}.{luck}{_its_setting(report)}"
    )


def _its_setting(report: SectionReport) -> str:
    """Return where the setting of the best run stands among the others: it need not lead."""
    own = next(row for row in report.rows if report.best_run in row.setting.runs)
    if own.is_candidate is None:
        return ""
    if own is report.rows[0]:
        return f" Its setting, {own.label}, leads on average."
    ruled = "cannot be" if own.is_candidate else "is"
    return f" Its setting, {own.label}, {ruled} ruled out as the best on average."


def _p_in_words(value: float | None) -> str:
    shown = p_value(value)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def _names(names: Sequence[str], between: str = ", ") -> str:
    shown = between.join(names[:MOST_NAMES])
    more = len(names) - MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'s' * (number != 1)}"
