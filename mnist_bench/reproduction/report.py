"""The report, written whole from the evidence: the same evidence gives the same bytes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mnist_bench.analysis.markdown import table
from mnist_bench.reproduction.agreement import (
    NOTE as AGREEMENT_NOTE,
)
from mnist_bench.reproduction.agreement import (
    agreement_text,
    write_agreements,
    write_intervals,
)
from mnist_bench.reproduction.comparisons import comparisons_text
from mnist_bench.reproduction.evidence import (
    ENOUGH_RUNS,
    Chosen,
    Evidence,
    RunKey,
    by_machine,
    choose,
    is_complete,
    value,
    with_unfinished,
)
from mnist_bench.reproduction.figures import draw_dropout, draw_experiment, draw_vgg16
from mnist_bench.reproduction.findings import READINGS, dropout_text, vgg16_text
from mnist_bench.reproduction.intervals import agreements
from mnist_bench.reproduction.last_epochs import NOTE as LAST_EPOCHS_NOTE
from mnist_bench.reproduction.last_epochs import last_epochs_text
from mnist_bench.reproduction.pairs import machines_text, precision_text
from mnist_bench.reproduction.published import EXPERIMENTS
from mnist_bench.reproduction.tables import (
    OVERVIEW,
    also_inside_line,
    count_line,
    figure_rows,
    figures_table,
    overview_rows,
    sample_text,
    time_rows,
    time_table,
    write_table,
)

TITLE = """\
# Reproduction

Written by `mnist-bench reproduce` from the evidence in {folder}/: `runs.csv`, `curves.csv` and
`errors.csv`. `mnist-bench reproduce --no-train` writes it again; edits here are lost."""

LEFT_OUT_NOTE = f"""\
Of each experiment the runs in one precision on one machine are counted: in fp32 where a machine has
{ENOUGH_RUNS} of them, else in the precision with most; on the machine with most seeds, of equal
ones that with most runs of all. A seed's run in another precision or on another machine is no
further draw of its own: its images come in the same order, and its first weights may be the same.
Those that are not counted:"""

FIGURES_NOTE = """\
All figures but the best validation accuracy are of the end of the last epoch, as published. *Std*
is the standard deviation over the runs, each with another seed. *Mean, 95 %* is the confidence
interval of the mean of ever more runs. *One more run, 95 %* is the prediction interval, and
*inside* says whether the published figure lies in it, as it should if the published run was one
more of the same. `docs/reproduction.md` says where each source is; mnist_cnn's layers are inferred,
as README 002 prints none. The runs are those of the first table. An interval takes two runs that
differ, and the values for normally distributed: of few that scatter widely it may pass 100 % or a
loss of 0."""

TIME_NOTE = """\
Seconds per epoch: the median over an experiment's runs of the median over each run's epochs, so
that a first epoch that warms up hardly counts. Ours are of the training steps only. The published
ones include validation, and are of other machines: one GPU for vgg16, a CPU for mnist_cnn, not
named for the others. The runs of a campaign may share a CPU with each other and with other work:
`benchmarks/results` has speeds of quiet machines. Runs that shared a GPU are left out."""

CURVES_NOTE = f"""\
Lines are medians over our runs in one precision on one machine, bands their 95 % prediction
intervals, and circles and squares the published logs, filled where they lie outside. Of fewer than
{ENOUGH_RUNS} runs each is a line. The axes are the same for every experiment, and a band may reach
past them."""

COMPARISONS_NOTE = """\
Six questions, each decided by Welch's t-test over the seeds: test accuracies after the last epoch,
first minus second in percentage points, not paired by seed. Both sides are of one precision and one
machine, chosen as the first table's runs are, by the smaller side. *95 % interval* is that of the
difference of the means over ever more seeds on this test set, *p* is the test's by itself, and *p
(Holm)* is adjusted for all six questions, of which one without runs would count as well. Two are
called *different* where that is below 0.05; *not shown* does not mean that they are equal."""

PRECISION_NOTE = f"""\
bf16 minus fp32 of the final figures, paired by seed, on one machine; accuracies in percentage
points. With the interval of the mean difference over ever more seeds, not adjusted for their
number. An experiment takes {ENOUGH_RUNS} seeds in both."""

MACHINES_NOTE = """\
Test accuracy on one machine minus that on another, in percentage points, by Welch's t-test over the
seeds. They are not paired: no two machines draw the same dropout masks. What a seed's runs share
all the same, the order of the images and perhaps the first weights, makes the interval too wide if
anything. *p* is not adjusted."""


@dataclass(frozen=True)
class Finding:
    title: str
    experiments: Sequence[str]
    text: Callable[[Evidence, Chosen], str]
    draw: Callable[[Path, Evidence, Chosen], None]
    image: str


FINDINGS = (
    Finding(
        "vgg16: what `val_acc` counts", ("vgg16",), vgg16_text, draw_vgg16, "finding_vgg16.png"
    ),
    Finding(
        'Notebook 003: the log headed "5 x 5 without dropout"',
        tuple(READINGS),
        dropout_text,
        draw_dropout,
        "finding_5x5_without_dropout.png",
    ),
)


def write_report(results: Path, evidence: Evidence) -> list[Path]:
    """Write reproduction.md and .csv, the other tables and the figures; returns their paths."""
    folder = results / "reproduction"
    folder.mkdir(parents=True, exist_ok=True)
    chosen = choose(evidence)
    drawn = with_unfinished(evidence, chosen)
    found = agreements(evidence, chosen)
    rows, times = figure_rows(evidence, chosen), time_rows(evidence)
    images: list[Path] = []
    sections = [
        TITLE.format(folder=folder.name),
        count_line(rows),
        also_inside_line(evidence, chosen),
        table(OVERVIEW, overview_rows(evidence, chosen)),
        _left_out(evidence, chosen),
        "## Every published figure",
        FIGURES_NOTE,
        figures_table(rows),
        "## Every published log, epoch by epoch",
        AGREEMENT_NOTE,
        agreement_text(found, evidence, chosen),
        "## The last epochs",
        LAST_EPOCHS_NOTE,
        last_epochs_text(evidence, chosen),
        "## Curves",
        *_curves(folder, evidence, drawn, images),
        "## Comparisons",
        COMPARISONS_NOTE,
        comparisons_text(evidence),
        "## Precision",
        PRECISION_NOTE,
        precision_text(evidence),
        "## Machines",
        MACHINES_NOTE,
        machines_text(evidence),
        "## Findings",
        *(part for f in FINDINGS for part in _finding(f, folder, evidence, drawn, images)),
        "## Time",
        TIME_NOTE,
        time_table(times),
    ]
    report, figures = results / "reproduction.md", results / "reproduction.csv"
    report.write_text("\n\n".join(filter(None, sections)) + "\n")
    write_table(figures, rows, times, chosen)
    tables = [
        write_intervals(folder / "intervals.csv", evidence, chosen),
        write_agreements(folder / "agreement.csv", found),
    ]
    return [report, figures, *tables, *images]


def _left_out(evidence: Evidence, chosen: Chosen) -> str:
    """Return the completed runs that are not counted, as a table."""
    used = {key for keys in chosen.values() for key in keys.values()}
    completed = {key for key in evidence.runs if is_complete(evidence, key)}
    groups: dict[tuple[str, str, str], list[RunKey]] = {}
    for key in sorted(completed - used, key=by_machine):
        groups.setdefault((key.experiment, key.precision, key.device), []).append(key)
    if not groups:
        return ""
    rows = [
        [
            *(*group, ", ".join(str(key.seed) for key in keys)),
            sample_text([value(evidence, key, "test_accuracy") for key in keys]),
        ]
        for group, keys in groups.items()
    ]
    header = ("other runs", "precision", "machine", "seeds", "test accuracy, %")
    return f"{LEFT_OUT_NOTE}\n\n{table(header, rows, text_columns=3)}"


def _curves(folder: Path, evidence: Evidence, chosen: Chosen, images: list[Path]) -> Iterator[str]:
    yield CURVES_NOTE
    for name in EXPERIMENTS:
        if chosen[name]:
            image = folder / f"{name}.png"
            draw_experiment(image, evidence, chosen, name)
            images.append(image)
            yield f"![{name}: loss and accuracy after each epoch]({folder.name}/{image.name})"


def _finding(
    finding: Finding, folder: Path, evidence: Evidence, chosen: Chosen, images: list[Path]
) -> Iterator[str]:
    yield f"### {finding.title}"
    if absent := [name for name in finding.experiments if not chosen[name]]:
        yield f"Not yet run: {', '.join(absent)}."
        return
    image = folder / finding.image
    finding.draw(image, evidence, chosen)
    images.append(image)
    yield finding.text(evidence, chosen)
    yield f"![{finding.title.replace('`', '')}]({folder.name}/{image.name})"
