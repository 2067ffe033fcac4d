"""The report, written whole from the evidence: the same evidence gives the same bytes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mnist_bench.reproduction.comparisons import comparisons_text, precision_text
from mnist_bench.reproduction.evidence import (
    Chosen,
    Evidence,
    by_experiment,
    choose,
    is_complete,
    with_unfinished,
)
from mnist_bench.reproduction.figures import draw_dropout, draw_experiment, draw_vgg16
from mnist_bench.reproduction.findings import READINGS, dropout_text, vgg16_text
from mnist_bench.reproduction.markdown import paragraph, table
from mnist_bench.reproduction.published import EXPERIMENTS
from mnist_bench.reproduction.tables import (
    OVERVIEW,
    count_line,
    figure_rows,
    figures_table,
    overview_rows,
    time_rows,
    time_table,
    write_table,
)

TITLE = """\
# Reproduction

Written by `mnist-bench reproduce` from the evidence in {folder}/: `runs.csv`, `curves.csv` and
`errors.csv`. `mnist-bench reproduce --no-train` writes it again; edits here are lost."""

FIGURES_NOTE = """\
All figures are of the end of the last epoch, as published. *Std* is the standard deviation over the
runs, each with another seed. *Mean, 95 %* is the confidence interval of the mean of ever more runs.
*One more run, 95 %* is the prediction interval, and *inside* says whether the published figure lies
in it, as it should if the published run was one more of the same. An interval takes two runs that
differ."""

TIME_NOTE = """\
Seconds per epoch: the median over an experiment's runs of the median over each run's epochs. Ours
are of the training steps only. The published ones include validation, and are of other machines:
one GPU for vgg16, a CPU for mnist_cnn, not named for the others. The runs of a campaign may share
their machine with each other and with other work: `benchmarks/results` has speeds of quiet ones."""

CURVES_NOTE = """\
Lines are means over our runs, bands reach from the lowest to the highest run. The axes are the same
for every experiment."""

COMPARISONS_NOTE = """\
Test accuracies, paired by seed: first minus second in percentage points, with the 95 % interval of
the mean difference over ever more seeds and the paired t-test's p value, also adjusted by Holm for
all the comparisons of this table."""

PRECISION_NOTE = """\
bf16 minus fp32 of the final figures, paired by seed; accuracies in percentage points."""


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
    """Write reproduction.md, .csv and the figures under `results`; returns what was written."""
    folder = results / "reproduction"
    folder.mkdir(parents=True, exist_ok=True)
    chosen = choose(evidence)
    drawn = with_unfinished(evidence, chosen)
    rows, times = figure_rows(evidence, chosen), time_rows(evidence)
    images: list[Path] = []
    sections = [
        TITLE.format(folder=folder.name),
        count_line(rows),
        table(OVERVIEW, overview_rows(evidence, chosen)),
        _left_out(evidence, chosen),
        "## Every published figure",
        FIGURES_NOTE,
        figures_table(rows),
        "## Time",
        TIME_NOTE,
        time_table(times),
        "## Curves",
        *_curves(folder, evidence, drawn, images),
        "## Comparisons",
        COMPARISONS_NOTE,
        comparisons_text(evidence),
        "## Precision",
        PRECISION_NOTE,
        precision_text(evidence),
        "## Findings",
        *(part for f in FINDINGS for part in _finding(f, folder, evidence, drawn, images)),
    ]
    report, figures = results / "reproduction.md", results / "reproduction.csv"
    report.write_text("\n\n".join(filter(None, sections)) + "\n")
    write_table(figures, rows, times, chosen)
    return [report, figures, *images]


def _left_out(evidence: Evidence, chosen: Chosen) -> str:
    """Which runs another one of the same experiment and seed stands for."""
    used = {key for keys in chosen.values() for key in keys.values()}
    completed = {key for key in evidence.runs if is_complete(evidence, key)}
    seeds: dict[str, list[str]] = {}
    for key in sorted(completed - used, key=by_experiment):
        group = f"{key.experiment} in {key.precision} on {key.device}"
        seeds.setdefault(group, []).append(str(key.seed))
    if not seeds:
        return ""
    told = "; ".join(f"{group}: {', '.join(numbers)}" for group, numbers in seeds.items())
    return paragraph(
        "One run for each experiment and seed is counted: fp32 before bf16, then the first machine "
        f"by name. Other runs, by their seeds: {told}."
    )


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
