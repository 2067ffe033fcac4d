"""Which of two experiments is better, and whether bf16 moves a result: runs paired by seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnist_bench.analysis.markdown import (
    NONE,
    figure_name,
    interval,
    number,
    p_value,
    paragraph,
    table,
)
from mnist_bench.analysis.statistics import (
    McNemar,
    PairedDifference,
    holm,
    mcnemar,
    paired_difference,
)
from mnist_bench.reproduction.evidence import Evidence, RunKey, is_complete, value
from mnist_bench.reproduction.plan import PRECISIONS
from mnist_bench.reproduction.published import EXPERIMENTS
from mnist_bench.reproduction.tables import count_devices, count_precisions


@dataclass(frozen=True)
class Question:
    text: str
    source: str
    first: str
    second: str

    @property
    def name(self) -> str:
        return f"{self.first} minus {self.second}"


QUESTIONS = (
    Question("Is 5 × 5 different from 3 × 3?", "notebook 003", "cnn5x5", "cnn3x3"),
    Question(
        "What did its two logs compare: one convolution 5 × 5, and two 3 × 3?",
        "notebook 003",
        "cnn5x5_single",
        "cnn3x3",
    ),
    Question("Is Model 3 better than Model 1?", "README 004", "wide5x7_bn", "wide3x3"),
    Question("Is Model 2 better than Model 1?", "README 004", "wide3x5_bn", "wide3x3"),
    Question(
        "Does dropout matter to one convolution 5 × 5?",
        'notebook 003, "without dropout"',
        "cnn5x5_single",
        "cnn5x5_single_no_dropout",
    ),
    Question(
        "Does dropout matter to two convolutions 3 × 3?",
        "notebook 003",
        "cnn3x3",
        "cnn3x3_no_dropout",
    ),
)

Pair = tuple[RunKey, RunKey]


@dataclass(frozen=True)
class Comparison:
    question: Question
    pairs: list[Pair]
    over_seeds: PairedDifference
    over_images: PairedDifference
    images: list[McNemar]  # one for each pair


def compare(evidence: Evidence, question: Question) -> Comparison | None:
    """None where the two have no seed in common."""
    pairs = pair_experiments(evidence, question.first, question.second)
    if not pairs:
        return None
    right = [(right_images(evidence, a), right_images(evidence, b)) for a, b in pairs]
    return Comparison(
        question,
        pairs,
        _difference(evidence, pairs, "test_accuracy"),
        # The share of the seeds that get each image right.
        paired_difference(np.mean([a for a, _ in right], 0), np.mean([b for _, b in right], 0)),
        [mcnemar(a, b) for a, b in right],
    )


def pair_experiments(evidence: Evidence, first: str, second: str) -> list[Pair]:
    """Return a pair for each common seed, both in one precision: fp32 if both have it."""
    pairs = {
        a.seed: (a, b)
        for precision in reversed(PRECISIONS)
        for a, b in _pair(evidence, (first, precision), (second, precision))
    }
    return [pairs[seed] for seed in sorted(pairs)]


def _pair(evidence: Evidence, first: tuple[str, str], second: tuple[str, str]) -> list[Pair]:
    """Return the runs of two pairs of experiment and precision by common seeds, on one device.

    Of a seed that both have on several devices, the pair is of the first device by name.
    """
    runs: dict[tuple[str, str], dict[tuple[int, str], RunKey]] = {first: {}, second: {}}
    for key in evidence.runs:
        if (key.experiment, key.precision) in runs and is_complete(evidence, key):
            runs[key.experiment, key.precision][key.seed, key.device] = key
    pairs: dict[int, Pair] = {}
    for place in sorted(runs[first].keys() & runs[second].keys()):
        pairs.setdefault(place[0], (runs[first][place], runs[second][place]))
    return list(pairs.values())


def _difference(evidence: Evidence, pairs: Sequence[Pair], column: str) -> PairedDifference:
    firsts, seconds = zip(*pairs, strict=True)
    return paired_difference(
        [value(evidence, key, column) for key in firsts],
        [value(evidence, key, column) for key in seconds],
    )


def right_images(evidence: Evidence, key: RunKey) -> NDArray[np.bool_]:
    """Which test images a run got right: bool, N."""
    right = np.ones(int(evidence.runs[key]["test_images"]), bool)
    right[[int(row["image"]) for row in evidence.errors[key]]] = False
    return right


# --- As text ----------------------------------------------------------------------------------


def comparisons_text(evidence: Evidence) -> str:
    answers = [(question, compare(evidence, question)) for question in QUESTIONS]
    made = [comparison for _, comparison in answers if comparison]
    parts = []
    if made:
        parts += [_differences_table(made), IMAGES_NOTE, _images_table(made)]
    parts += [
        paragraph(
            f"Not yet run with a common seed: {question.name} ({question.source}: {question.text})"
        )
        for question, comparison in answers
        if comparison is None
    ]
    return "\n\n".join(parts)


IMAGES_NOTE = """\
The same over the images: how many only one of the two networks gets right, seed by seed, with
McNemar's exact test. It compares two networks as they were trained, not the recipes. *All* compares
the share of the seeds that get each image right: the difference in percentage points with its 95 %
interval over the images, and the paired t-test."""


def _differences_table(made: Sequence[Comparison]) -> str:
    tested = [c.over_seeds.p_value for c in made if c.over_seeds.p_value is not None]
    adjusted = iter(holm(tested))
    header = (
        *("question", "asked by", "difference", "precision", "machine", "pairs"),
        *("mean, points", "95 % interval", "p", "p (Holm)"),
    )
    rows = []
    for comparison in made:
        question, found = comparison.question, comparison.over_seeds
        firsts = [first for first, _ in comparison.pairs]
        rows.append(
            [
                *(question.text, question.source, question.name),
                *(count_precisions(firsts), count_devices(firsts), str(found.n)),
                number("accuracy", found.mean, "+"),
                interval("accuracy", found.interval, "+"),
                p_value(found.p_value),
                NONE if found.p_value is None else p_value(next(adjusted)),
            ]
        )
    return table(header, rows, text_columns=5)


def _images_table(made: Sequence[Comparison]) -> str:
    rows = []
    for comparison in made:
        name = comparison.question.name
        for (first, _), test in zip(comparison.pairs, comparison.images, strict=True):
            counts = [str(test.only_a), str(test.only_b)]
            rows.append([name, str(first.seed), *counts, NONE, p_value(test.p_value)])
        found = comparison.over_images
        mean = number("accuracy", found.mean, "+")
        between = interval("accuracy", found.interval, "+")
        rows.append([name, "all", NONE, NONE, f"{mean} ({between})", p_value(found.p_value)])
    header = ("difference", "seed", "only first right", "only second right", "points", "p")
    return table(header, rows)


PRECISION_FIGURES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")


def precision_text(evidence: Evidence) -> str:
    """bf16 minus fp32 of the final figures, over the seeds that ran in both."""
    rows = []
    for experiment in EXPERIMENTS:
        pairs = _pair(evidence, (experiment, "bf16"), (experiment, "fp32"))
        if not pairs:
            continue
        devices = count_devices(first for first, _ in pairs)
        for key in PRECISION_FIGURES:
            found = _difference(evidence, pairs, key)
            rows.append(
                [
                    *(experiment, devices, figure_name(key), str(found.n)),
                    number(key, found.mean, "+"),
                    interval(key, found.interval, "+"),
                    p_value(found.p_value),
                ]
            )
    if not rows:
        return "Not yet run: no experiment has a seed in both precisions."
    header = ("experiment", "machine", "figure", "pairs", "bf16 minus fp32", "95 % interval", "p")
    return table(header, rows, text_columns=3)
