"""What a report says, before it is written anywhere: from runs to estimates and comparisons."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mnist_bench.analysis.best import Best, compare_with_best
from mnist_bench.analysis.collect import FoundRun
from mnist_bench.analysis.curves import Curves, curves_of
from mnist_bench.analysis.effects import (
    Chance,
    Effect,
    Estimate,
    HeatMap,
    effect_of,
    heat_maps,
)
from mnist_bench.analysis.images import OnImages, RightImages, compare_on_images
from mnist_bench.analysis.measures import Measure, find_measure
from mnist_bench.analysis.notes import notes_on, on_grid, on_spread
from mnist_bench.analysis.pairs import NamedPair, keys_in, named_pairs
from mnist_bench.analysis.report.outlook import outlook_of, pair_outlook
from mnist_bench.analysis.settings import (
    SEED,
    Section,
    Setting,
    as_typed,
    differences,
    sections_of,
    settings_of,
    short_keys,
)
from mnist_bench.analysis.statistics import Interval, holm
from mnist_bench.errors import ConfigError
from mnist_bench.runs.standing import val_loss

# As many settings, the leading ones, are compared on images, and have their curves drawn.
MOST_ON_IMAGES = 10
MOST_CURVES = 9
# The keys whose map is drawn if none are named, where both were swept.
USUAL_MAP = ("model.kernel_size", "model.dropout")


@dataclass(frozen=True)
class Options:
    """What may be asked of a report; the fields are `mnist-bench report`'s options."""

    metric: str = "test_accuracy"
    compare: Sequence[str] = ()
    map: tuple[str, str] | None = None


@dataclass(frozen=True)
class Row:
    """A setting with its figures; those of `Best` are None where seeds cannot tell."""

    setting: Setting
    label: str
    estimate: Estimate
    std: float | None
    behind: Interval | None = None
    is_candidate: bool | None = None
    # The leading setting less this one, on the test images; p with Holm's correction over all such.
    images: OnImages | None = None
    images_p: float | None = None

    def mean(self, key: str) -> float:
        """Return the mean of a figure of summary.json over the seeds; NaN if one lacks it."""
        return float(self.setting.figures(key).mean())

    @property
    def values(self) -> list[str]:
        return [as_typed(value) for value in self.setting.values.values()]

    @property
    def devices(self) -> str:
        return " and ".join(sorted({str(run.summary["device"]) for run in self.setting.runs}))


@dataclass
class SectionReport:
    """What is concluded of one section; `rows` have the best mean first."""

    section: Section
    measure: Measure
    chance: Chance
    rows: list[Row]
    best: Best | None
    effects: list[Effect]
    maps: list[HeatMap]
    curves: list[Curves]
    best_run: FoundRun
    notes: list[str]
    outlook: list[str] = field(default_factory=list)

    @property
    def candidates(self) -> list[Row]:
        return [row for row in self.rows if row.is_candidate]

    @cached_property
    def devices(self) -> list[str]:
        return sorted({str(run.summary["device"]) for run in self.section.runs})

    @property
    def sweeps(self) -> list[Path]:
        return sorted({run.sweep for run in self.section.runs if run.sweep is not None})


@dataclass
class Report:
    """Everything that a report shows."""

    measure: Measure
    sections: list[SectionReport]
    pairs: list[NamedPair]
    pair_outlooks: list[str]
    uncounted: list[tuple[FoundRun, str]]  # with the reason
    runs: int


def build(runs: Sequence[FoundRun], options: Options) -> Report:
    """Draw the conclusions.

    Raises:
        ConfigError: no run is completed, or an option names what is not there.
    """
    measure = find_measure(options.metric)
    counted, uncounted = [], []
    for run in runs:
        if reason := _why_uncounted(run, measure):
            uncounted.append((run, reason))
        else:
            counted.append(run)
    if not counted:
        raise ConfigError(
            f"None of these {len(runs)} runs is completed with a {measure.name}: "
            f"mnist-bench runs lists how they stand."
        )
    if options.map is not None:
        _refuse_unknown(options.map, counted)
    together = bool({"model", "experiment"} & keys_in(options.compare))
    unfinished = [run for run, _ in uncounted if not run.is_completed]
    sections = sections_of(counted, unfinished, together)
    right = RightImages()
    pairs = named_pairs(options.compare, sections, measure, right)
    return Report(
        measure,
        [_section_report(section, measure, options, right) for section in sections],
        pairs,
        [pair_outlook(pair, measure, len(pairs)) for pair in pairs],
        uncounted,
        len(runs),
    )


def _why_uncounted(run: FoundRun, measure: Measure) -> str:
    if not run.is_completed:
        standing = run.standing
        epochs = f"{standing.epochs} epoch{'s' * (standing.epochs != 1)}"
        after = f" after {epochs}" if standing.epochs else ""
        error = standing.damage or run.summary.get("error") or ""
        return f"{standing.state.value}{after}{f': {error}' if error else ''}"
    value = run.summary.get(measure.key)
    if not isinstance(value, int | float) or not math.isfinite(value):
        return f"it has no {measure.name}"
    return ""


def _section_report(
    section: Section, measure: Measure, options: Options, right: RightImages
) -> SectionReport:
    settings = section.settings
    samples = [setting.figures(measure.key) for setting in settings]
    chance = Chance(samples)
    best = None
    if len(settings) > 1:
        best = compare_with_best(
            samples,
            higher_is_better=measure.higher_is_better,
            equal_deviations=chance.is_pooled,
        )
    rows = [
        Row(
            setting,
            setting.label(section.short),
            chance.estimate({place: 1.0}),
            chance.stds[place],
            best.behind[place] if best else None,
            best.is_candidate[place] if best else None,
        )
        for place, setting in enumerate(settings)
    ]
    sign = -1 if measure.higher_is_better else 1
    rows.sort(key=lambda row: sign * row.estimate.mean)
    rows = _with_images(rows, right)
    found = [effect_of(key, section.axes, settings, chance) for key in section.axes]
    effects = [effect for effect in found if effect is not None]
    maps = _maps(section, chance, options.map, [effect.key for effect in effects])
    drawn = [curves_of(row.setting) for row in rows[:MOST_CURVES]]
    report = SectionReport(
        section,
        measure,
        chance,
        rows,
        best,
        effects,
        maps,
        [curves for curves in drawn if curves is not None],
        min(section.runs, key=lambda run: val_loss(run.standing)),
        [*notes_on(section), *on_spread(settings, samples), *on_grid(section, len(effects))],
    )
    report.outlook = outlook_of(report)
    return report


def _with_images(rows: list[Row], right: RightImages) -> list[Row]:
    """Compare the leading settings with the first one on the images that all were tested on."""
    leader, *others = rows
    near, far = others[: MOST_ON_IMAGES - 1], others[MOST_ON_IMAGES - 1 :]
    compared = [compare_on_images(leader.setting, row.setting, right) for row in near]
    found = [images.p_value if images else None for images in compared]
    adjusted = iter(holm([p for p in found if p is not None]))
    return [
        leader,
        *(
            replace(row, images=images, images_p=None if p is None else next(adjusted))
            for row, images, p in zip(near, compared, found, strict=True)
        ),
        *far,
    ]


def _maps(
    section: Section, chance: Chance, wanted: tuple[str, str] | None, swept: Sequence[str]
) -> list[HeatMap]:
    """Return the maps over the keys that are asked for, else the usual ones, else the first two."""
    axes: dict[str, list[Any]] = section.axes
    if wanted is None:
        keys = [key for key in USUAL_MAP if key in axes]
        keys += [key for key in (*swept, *axes) if key not in keys]
        # A map of keys that have a value for each setting shows nothing that a table does not.
        keys = [key for key in dict.fromkeys(keys) if 1 < len(axes[key]) <= MOST_VALUES]
        if len(keys) < 2 or not swept:
            return []
        row, column = keys[:2]
    else:
        names = {name: key for key, name in section.short.items()} | {key: key for key in axes}
        if not all(key in names for key in wanted):
            return []
        row, column = (names[key] for key in wanted)
    return heat_maps(row, column, axes, section.settings, chance)


MOST_VALUES = 24


def _refuse_unknown(keys: tuple[str, str], runs: Sequence[FoundRun]) -> None:
    there = [key for key in differences(runs, settings_of(runs)) if key != SEED]
    known = {*there, *short_keys(there).values()}
    if unknown := [key for key in keys if key not in known]:
        raise ConfigError(
            f"--map {','.join(keys)} cannot be drawn, as nothing varies {' and '.join(unknown)}: "
            f"these runs differ in {', '.join(there) or 'nothing but the seed'}."
        )


def map_keys(text: str | None) -> tuple[str, str] | None:
    """Return the two keys that `--map` names, or None.

    Raises:
        ConfigError: they are not two.
    """
    if text is None:
        return None
    keys = [key.strip() for key in text.split(",")]
    if len(keys) != 2 or not all(keys) or keys[0] == keys[1]:
        raise ConfigError(f"--map {text} is not understood: give two keys, as kernel_size,dropout.")
    return keys[0], keys[1]
