"""Which of two experiments is better, as decided before the runs: by their seeds.

The six questions are one family: Welch's test of each over the seeds, adjusted by Holm over all
six. What the images say stands beside it and decides nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from mnist_bench.analysis.markdown import NONE, interval, number, p_value, paragraph, table
from mnist_bench.analysis.statistics import (
    Difference,
    McNemar,
    PairedDifference,
    holm,
    mcnemar,
    paired_difference,
    welch,
)
from mnist_bench.reproduction.evidence import Evidence, RunKey, counts_more, groups, value

# An adjusted p value below it is called a difference.
LEVEL = 0.05
# When docs/log/2026-11-26-campaign.md had come to say by what test and by which runs.
RULED = datetime.fromisoformat("2026-11-27T02:30:03+00:00")


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


@dataclass(frozen=True)
class Comparison:
    """Two experiments' runs in one precision on one device, and what they say."""

    question: Question
    first: list[RunKey]
    second: list[RunKey]
    over_seeds: Difference
    over_images: PairedDifference
    images: dict[int, McNemar]  # by the seeds that both have
    adjusted: float | None = None  # p value over the seeds, by Holm over all questions

    @property
    def different(self) -> str:
        if self.adjusted is None:
            return NONE
        return "yes" if self.adjusted < LEVEL else "not shown"


def compare_all(evidence: Evidence) -> list[Comparison | None]:
    """Return a comparison for each of `QUESTIONS`; None where no precision and device has both.

    A question that cannot be tested yet counts in Holm's number all the same: the family was chosen
    before the runs, and no answer gets easier because another is missing.
    """
    made = [_compare(evidence, question) for question in QUESTIONS]
    tested = [c.over_seeds.p_value if c is not None else None for c in made]
    adjusted = holm([1.0 if p is None else p for p in tested])
    return [
        c if c is None or p is None else replace(c, adjusted=a)
        for c, p, a in zip(made, tested, adjusted, strict=True)
    ]


def _compare(evidence: Evidence, question: Question) -> Comparison | None:
    sides = choose_sides(evidence, question)
    if sides is None:
        return None
    first, second = sides
    right = {key: right_images(evidence, key) for key in (*first, *second)}
    by_seed = {key.seed: key for key in second}
    return Comparison(
        question,
        first,
        second,
        welch(*([value(evidence, key, "test_accuracy") for key in side] for side in sides)),
        # The share of the seeds that get each image right.
        paired_difference(*(np.mean([right[key] for key in side], 0) for side in sides)),
        {
            key.seed: mcnemar(right[key], right[by_seed[key.seed]])
            for key in first
            if key.seed in by_seed
        },
    )


def choose_sides(
    evidence: Evidence, question: Question
) -> tuple[list[RunKey], list[RunKey]] | None:
    """Return the runs of both in one precision on one device; the smaller side has to count more.

    See `counts_more`: fp32 first, if both sides have enough of it.
    """
    first, second = groups(evidence, question.first), groups(evidence, question.second)
    both = [(first[group], second[group]) for group in first if group in second]
    return max(both, key=lambda sides: min(map(counts_more, sides)), default=None)


def right_images(evidence: Evidence, key: RunKey) -> NDArray[np.bool_]:
    """Which test images a run got right: bool, N."""
    right = np.ones(int(evidence.runs[key]["test_images"]), bool)
    right[[int(row["image"]) for row in evidence.errors[key]]] = False
    return right


# --- As text ----------------------------------------------------------------------------------


def comparisons_text(evidence: Evidence) -> str:
    answers = compare_all(evidence)
    made = [comparison for comparison in answers if comparison is not None]
    parts = []
    if made:
        parts += [_seeds_table(made), _rule_line(evidence, made)]
    parts += [
        paragraph(
            f"Not yet run in one precision on one machine: {question.name} ({question.source}: "
            f"{question.text})"
        )
        for question, comparison in zip(QUESTIONS, answers, strict=True)
        if comparison is None
    ]
    if made:
        parts += [IMAGES_NOTE, _images_table(made)]
    return "\n\n".join(parts)


def _rule_line(evidence: Evidence, made: Sequence[Comparison]) -> str:
    """How many of the runs the rule was not blind to."""
    keys = {key for comparison in made for key in (*comparison.first, *comparison.second)}
    begun = [evidence.runs[key]["started"] for key in keys]
    before = sum(not text or datetime.fromisoformat(text) < RULED for text in begun)
    return paragraph(
        f"The rule was written down on {RULED:%Y-%m-%d}, in docs/log/2026-11-26-campaign.md: of "
        f"the {len(keys)} runs compared here {before} began before it."
    )


IMAGES_NOTE = """\
The same networks over the images. This is about other test images, with these networks as they were
trained, and not about other seeds: it decides nothing here. Seed by seed it counts the images that
only one of two networks gets right, with McNemar's exact test; *all* compares the share of the
seeds that get each image right: the difference in percentage points with its 95 % interval over the
images, and the paired t-test. These p values are not adjusted."""


def _seeds_table(made: Sequence[Comparison]) -> str:
    header = (
        *("question", "asked by", "difference", "precision", "machine", "runs"),
        *("mean, points", "95 % interval", "p", "p (Holm)", "different"),
    )
    rows = []
    for comparison in made:
        question, found, (key, *_) = comparison.question, comparison.over_seeds, comparison.first
        rows.append(
            [
                *(question.text, question.source, question.name, key.precision, key.device),
                f"{len(comparison.first)} and {len(comparison.second)}",
                number("accuracy", found.mean, "+"),
                interval("accuracy", found.interval, "+"),
                *(p_value(found.p_value), p_value(comparison.adjusted), comparison.different),
            ]
        )
    return table(header, rows, text_columns=5)


def _images_table(made: Sequence[Comparison]) -> str:
    rows = []
    for comparison in made:
        name = comparison.question.name
        for seed, test in comparison.images.items():
            counts = [str(test.only_a), str(test.only_b)]
            rows.append([name, str(seed), *counts, NONE, p_value(test.p_value)])
        found = comparison.over_images
        mean = number("accuracy", found.mean, "+")
        between = interval("accuracy", found.interval, "+")
        rows.append([name, "all", NONE, NONE, f"{mean} ({between})", p_value(found.p_value)])
    header = ("difference", "seed", "only first right", "only second right", "points", "p")
    return table(header, rows)
