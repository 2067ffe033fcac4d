"""How the published logs lie in our experiments' intervals, as text and as CSV."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mnist_bench.analysis.markdown import NONE, paragraph, table
from mnist_bench.reproduction.evidence import ENOUGH_RUNS, Chosen, Evidence, as_text
from mnist_bench.reproduction.intervals import (
    ABOVE,
    BELOW,
    INSIDE,
    NO_INTERVAL,
    Agreement,
    Candidate,
    best_other,
    candidates,
    own,
    place,
)
from mnist_bench.reproduction.published import published_curve
from mnist_bench.runs.folder import atomic_write

Agreements = Mapping[str, Sequence[Agreement]]  # by published log
Cells = dict[str, Any]

NOTE = f"""\
A published log has four values for each epoch: loss and accuracy, training and validation (for
vgg16 the binary accuracy, see below). Here it is counted how many of them lie in the 95 %
prediction intervals of our runs after the same epoch: those of its own experiment, and those of
each wrong one. An experiment takes {ENOUGH_RUNS} runs. Values of one log depend on each other,
epoch by epoch, so that no p value can be made of a count; and the fewer the runs, the wider the
intervals: an experiment of three tends to hold more of a log than one of ten. *Best other* is the
wrong experiment that holds most."""

MATRIX_NOTE = """\
Every log (a column, with the number of its values) in the intervals of every experiment that has as
many epochs; its own in bold. vgg16's loss and accuracy are over ten outputs: they can be compared
with no other experiment's."""

OUTSIDE_NOTE = """\
Which values lie outside, in the intervals of the log's own experiment, by epoch:"""

FILES_NOTE = """\
`reproduction/intervals.csv` has each interval, beside it the experiment's own log; and
`reproduction/agreement.csv` has the counts, by figure too."""


def agreement_text(found: Agreements, evidence: Evidence, chosen: Chosen) -> str:
    judged = candidates(evidence, chosen)
    if not judged:
        return f"Not yet run: no experiment has {ENOUGH_RUNS} runs in one precision on one machine."
    parts = [count_line(found), _summary_table(found, chosen)]
    parts += [MATRIX_NOTE, _matrix(found, judged)]
    if any(map(own, found.values())):
        parts += [OUTSIDE_NOTE, _outside_table(found)]
    return "\n\n".join([*parts, FILES_NOTE])


def count_line(found: Agreements) -> str:
    """How many values lie inside their own intervals, and whether another experiment holds more."""
    judged = [agreement for several in found.values() if (agreement := own(several)) is not None]
    if not judged:
        return "No published log has its own experiment's intervals yet."
    inside, values = sum(a.inside for a in judged), sum(a.values for a in judged)
    rivals = [(a, other) for a in judged if (other := best_other(found[a.log])) is not None]
    won = sum(a.share > other.share for a, other in rivals)
    logs = f"{len(judged)} log{'s' * (len(judged) != 1)}"
    line = (
        f"{inside} of {values} published values, of {logs}, lie inside the intervals of their own "
        f"experiment, {values - inside} outside."
    )
    if rivals:
        line += (
            f" {len(rivals)} can be held against wrong experiments too: of {won} of these the own "
            "experiment holds more values than any other."
        )
    return paragraph(line)


def inside_text(agreement: Agreement) -> str:
    return f"{agreement.inside} of {agreement.values}"


def _summary_table(found: Agreements, chosen: Chosen) -> str:
    rows = []
    for log, several in found.items():
        mine, other = own(several), best_other(several)
        runs = len(chosen[log])
        told = inside_text(mine) if mine else f"{runs} run{'s' * (runs != 1)}"
        how = (mine.candidate.precision, mine.candidate.device) if mine else (NONE, NONE)
        rows.append([log, *how, str(runs), told, *_other_cells(other)])
    header = (
        *("published log", "precision", "machine", "runs", "inside its own"),
        *("best other", "runs", "inside it"),
    )
    return table(header, rows, text_columns=3)


def _other_cells(other: Agreement | None) -> list[str]:
    if other is None:
        return [NONE] * 3
    return [other.candidate.experiment, str(other.candidate.runs), inside_text(other)]


def _matrix(found: Agreements, judged: Sequence[Candidate]) -> str:
    cells = {(a.log, a.candidate.experiment): a for several in found.values() for a in several}
    header = [*("our experiment", "precision", "machine", "runs"), *map(_log_name, found)]
    rows = [
        [
            *(candidate.experiment, candidate.precision, candidate.device, str(candidate.runs)),
            *(_matrix_cell(cells.get((log, candidate.experiment))) for log in found),
        ]
        for candidate in judged
    ]
    return table(header, rows, text_columns=3)


def _log_name(log: str) -> str:
    return f"{log} ({sum(map(len, published_curve(log).values()))})"


def _matrix_cell(agreement: Agreement | None) -> str:
    if agreement is None:
        return NONE
    return f"**{agreement.inside}**" if agreement.own else str(agreement.inside)


def _outside_table(found: Agreements) -> str:
    rows = []
    for log, several in found.items():
        agreement = own(several)
        for column, places in agreement.places.items() if agreement else ():
            judged = sum(where != NO_INTERVAL for where in places)
            rows.append(
                [
                    *(log, column.replace("_", " "), f"{places.count(INSIDE)} of {judged}"),
                    *(_epochs(places, where) for where in (BELOW, ABOVE)),
                ]
            )
    header = ("published log", "figure", "inside", "below, after epoch", "above, after epoch")
    return table(header, rows, text_columns=2)


def _epochs(places: Sequence[str], where: str) -> str:
    return ", ".join(str(e) for e, found in enumerate(places, 1) if found == where) or NONE


# --- The same as CSV --------------------------------------------------------------------------

INTERVALS = (
    *("experiment", "precision", "device", "runs", "figure", "epoch"),
    *("median", "mean", "std", "low", "high", "published", "place"),
)
COUNTS = (
    *("log", "experiment", "precision", "device", "runs", "values", "inside"),
    *("train_loss", "train_accuracy", "val_loss", "val_accuracy"),
)


def write_intervals(path: Path, evidence: Evidence, chosen: Chosen) -> Path:
    """Write each interval of each experiment with enough runs, beside its own published value."""
    rows = (row for found in candidates(evidence, chosen) for row in _interval_rows(found))
    return _write(path, INTERVALS, rows)


def _interval_rows(candidate: Candidate) -> Iterator[Cells]:
    published = published_curve(candidate.experiment)
    for column, samples in candidate.samples.items():
        told = dict(enumerate(published.get(column, ())))
        medians = np.median(candidate.figures[column], axis=0).tolist()
        for epoch, (sample, median) in enumerate(zip(samples, medians, strict=True)):
            between = sample.prediction_interval
            yield {
                **_candidate_cells(candidate),
                **{"figure": column, "epoch": epoch + 1, "median": median},
                **{"mean": sample.mean, "std": sample.std},
                "low": between.low if between else None,
                "high": between.high if between else None,
                "published": told.get(epoch),
                "place": place(told[epoch], sample) if epoch in told else None,
            }


def write_agreements(path: Path, found: Agreements) -> Path:
    """Write how many values of each log lie in each experiment's intervals, in all and by figure.

    vgg16's accuracies are binary ones.
    """
    return _write(path, COUNTS, (_count_row(a) for several in found.values() for a in several))


def _count_row(agreement: Agreement) -> Cells:
    return {
        "log": agreement.log,
        **_candidate_cells(agreement.candidate),
        **{"values": agreement.values, "inside": agreement.inside},
        **{
            column.replace("binary_", ""): list(places).count(INSIDE)
            for column, places in agreement.places.items()
        },
    }


def _candidate_cells(candidate: Candidate) -> Cells:
    return {
        **{"experiment": candidate.experiment, "precision": candidate.precision},
        **{"device": candidate.device, "runs": candidate.runs},
    }


def _write(path: Path, columns: Sequence[str], rows: Iterable[Cells]) -> Path:
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({column: as_text(cell) for column, cell in row.items()})
    return path
