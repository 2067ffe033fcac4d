"""Our runs beside each published figure, and what an epoch took."""

import csv
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mnist_bench.analysis.markdown import NONE, figure_name, interval, number, paragraph, table
from mnist_bench.analysis.statistics import Sample, describe
from mnist_bench.reproduction.evidence import (
    Chosen,
    Evidence,
    as_text,
    by_machine,
    value,
)
from mnist_bench.reproduction.published import (
    BINARY,
    EXPERIMENTS,
    FIGURES,
    PUBLISHED,
    SECONDS_PER_EPOCH,
    PublishedFigure,
    headline,
)

CONFIDENCE = 0.95


@dataclass(frozen=True)
class FigureRow:
    figure: PublishedFigure
    ours: Sample | None  # None: not yet run

    @property
    def inside(self) -> str:
        """Whether the published figure is what one more run of ours could give."""
        if self.ours is None:
            return NONE
        if self.ours.n == 1:
            return "one run"
        if self.ours.prediction_interval is None:
            return "no spread"
        return "yes" if self.figure.value in self.ours.prediction_interval else "no"


def sample(evidence: Evidence, chosen: Chosen, experiment: str, column: str) -> Sample | None:
    values = [value(evidence, key, column) for key in chosen[experiment].values()]
    return describe(values, confidence=CONFIDENCE) if values else None


def figure_rows(evidence: Evidence, chosen: Chosen) -> list[FigureRow]:
    """A row per published figure, in the order of the experiments."""
    return [FigureRow(f, sample(evidence, chosen, f.experiment, f.key)) for f in FIGURES]


def figures_table(rows: Sequence[FigureRow]) -> str:
    header = (
        *("experiment", "figure", "published in", "published", "ours", "std", "n"),
        *("mean, 95 %", "one more run, 95 %", "inside"),
    )
    return table(header, [_figure_cells(row) for row in rows], text_columns=3)


def _figure_cells(row: FigureRow) -> list[str]:
    figure, ours = row.figure, row.ours
    key = figure.key
    told = [figure.experiment, figure_name(key), figure.source, number(key, figure.value)]
    if ours is None:
        return [*told, *[NONE] * 2, "0", *[NONE] * 3]
    return [
        *told,
        number(key, ours.mean),
        number(key, ours.std),
        str(ours.n),
        interval(key, ours.mean_interval),
        interval(key, ours.prediction_interval),
        row.inside,
    ]


def count_line(rows: Sequence[FigureRow]) -> str:
    """How many published figures our runs could have given, and what chance would leave out."""
    judged = [row for row in rows if row.inside in ("yes", "no")]
    if not judged:
        return "No experiment has the two runs yet that a prediction interval takes."
    inside = sum(row.inside == "yes" for row in judged)
    by_chance = len(judged) * (1 - CONFIDENCE)
    return paragraph(
        f"{inside} of {len(judged)} published figures lie inside the 95 % prediction interval of "
        f"our runs, {len(judged) - inside} outside; chance alone would put {by_chance:.1f} of "
        f"{len(judged)} outside (the figures of one experiment depend on each other)."
    )


def also_inside(evidence: Evidence, chosen: Chosen) -> dict[str, list[str]]:
    """Return whose intervals hold all published figures of another experiment, by that one's name.

    vgg16's figures are over ten outputs: they can be compared with no other experiment's.
    """
    found = {}
    for name in PUBLISHED:
        figures = [figure for figure in FIGURES if figure.experiment == name]
        if not figures or name in BINARY:
            continue
        rivals = [other for other in PUBLISHED if other not in (name, *BINARY) and chosen[other]]
        found[name] = [
            other
            for other in rivals
            if all(
                FigureRow(figure, sample(evidence, chosen, other, figure.key)).inside == "yes"
                for figure in figures
            )
        ]
    return found


def also_inside_line(evidence: Evidence, chosen: Chosen) -> str:
    """Say how little it tells that all figures of a last epoch lie inside."""
    found = also_inside(evidence, chosen)
    held = [name for name, others in found.items() if others]
    if not held:
        return ""
    return paragraph(
        f"That says little by itself: the figures of {len(held)} of {len(found)} experiments "
        f"({', '.join(held)}) all lie inside the intervals of a wrong experiment, too. Whole logs "
        f"tell them apart, below."
    )


# --- An overview: a row per experiment --------------------------------------------------------

OVERVIEW = (
    *("experiment", "runs", "precision", "machine"),
    *("test accuracy, %", "published, %", "inside"),
)


def overview_rows(evidence: Evidence, chosen: Chosen) -> list[list[str]]:
    """What was published for the test set, or our test accuracy where nothing was."""
    return [
        _overview_cells(evidence, chosen, name)
        for name in EXPERIMENTS
        if name in PUBLISHED or chosen[name]
    ]


def _overview_cells(evidence: Evidence, chosen: Chosen, experiment: str) -> list[str]:
    published = headline(experiment)
    told = number(published.key, published.value) if published else NONE
    ours = sample(evidence, chosen, experiment, published.key if published else "test_accuracy")
    if ours is None:
        return [experiment, "0", NONE, NONE, "not yet run", told, NONE]
    inside = FigureRow(published, ours).inside if published else NONE
    (key, *_) = chosen[experiment].values()
    return [
        *(experiment, str(ours.n), key.precision, key.device),
        *(_mean_and_std(ours), told, inside),
    ]


def sample_text(accuracies: Sequence[float]) -> str:
    """Return `99.16 ± 0.03`, mean and standard deviation in per cent."""
    return _mean_and_std(describe(accuracies))


def _mean_and_std(accuracies: Sample) -> str:
    mean, std = (number("accuracy", figure) for figure in (accuracies.mean, accuracies.std))
    return mean if accuracies.std is None else f"{mean} ± {std}"


# --- Time -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TimeRow:
    experiment: str
    device: str
    precision: str
    runs: int
    seconds: float  # per epoch: the median over the runs of each run's median epoch


def time_rows(evidence: Evidence) -> list[TimeRow]:
    groups: dict[tuple[str, str, str], list[float]] = {}
    timed = [key for key in evidence.runs if evidence.runs[key]["seconds_per_epoch"]]
    for key in sorted(timed, key=by_machine):
        group = groups.setdefault((key.experiment, key.device, key.precision), [])
        group.append(value(evidence, key, "seconds_per_epoch"))
    return [TimeRow(*k, len(v), statistics.median(v)) for k, v in groups.items()]


def time_table(rows: Sequence[TimeRow]) -> str:
    header = ("experiment", "machine", "precision", "runs", "ours, s", "published, s")
    cells = [
        [
            *(row.experiment, row.device, row.precision, str(row.runs), _seconds(row.seconds)),
            str(SECONDS_PER_EPOCH.get(row.experiment, NONE)),
        ]
        for row in rows
    ]
    return table(header, cells, text_columns=3)


def _seconds(value: float) -> str:
    """Return seconds to the tenth, and of short epochs three digits or so."""
    return f"{value:.{1 if value >= 10 else 2 if value >= 1 else 3}f}"


# --- The same as CSV --------------------------------------------------------------------------


def write_table(
    path: Path, rows: Sequence[FigureRow], times: Sequence[TimeRow], chosen: Chosen
) -> None:
    """The table of the figures for other tools: fractions, unrounded; empty where there is none."""
    columns = (
        *("experiment", "figure", "source", "published", "n", "precision", "device"),
        *("mean", "std", "mean_low", "mean_high", "prediction_low", "prediction_high", "inside"),
    )
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(_csv_row(row, chosen))
        for time in times:
            writer.writerow(
                {
                    "experiment": time.experiment,
                    "figure": "seconds_per_epoch",
                    "published": SECONDS_PER_EPOCH.get(time.experiment, ""),
                    "n": time.runs,
                    "precision": time.precision,
                    "device": time.device,
                    "mean": f"{time.seconds:.7g}",
                }
            )


def _csv_row(row: FigureRow, chosen: Chosen) -> dict[str, str]:
    figure, ours = row.figure, row.ours
    keys = list(chosen[figure.experiment].values())
    cells: dict[str, str | float | None] = {
        "experiment": figure.experiment,
        "figure": figure.key,
        "source": figure.source,
        "published": figure.value,
        "n": len(keys),
    }
    if ours is not None:
        mean, prediction = ours.mean_interval, ours.prediction_interval
        cells |= {
            "precision": keys[0].precision,
            "device": keys[0].device,
            "mean": ours.mean,
            "std": ours.std,
            "mean_low": mean.low if mean else None,
            "mean_high": mean.high if mean else None,
            "prediction_low": prediction.low if prediction else None,
            "prediction_high": prediction.high if prediction else None,
            "inside": row.inside,
        }
    return {key: as_text(cell) for key, cell in cells.items()}
