"""One recipe computed in two ways: in bf16 and fp32, or on two machines."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from mnist_bench.analysis.markdown import figure_name, interval, number, p_value, table
from mnist_bench.analysis.statistics import PairedDifference, paired_difference, welch
from mnist_bench.reproduction.evidence import ENOUGH_RUNS, Evidence, RunKey, groups, value
from mnist_bench.reproduction.published import EXPERIMENTS

PRECISION_FIGURES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")

Pair = tuple[RunKey, RunKey]


def pair_precisions(evidence: Evidence, experiment: str) -> list[Pair]:
    """Return bf16 and fp32 of each seed, on the one device that has most seeds in both."""
    found = groups(evidence, experiment)
    pairs = []
    for device in dict.fromkeys(device for _, device in found):
        bf16, fp32 = (found.get((precision, device), []) for precision in ("bf16", "fp32"))
        by_seed = {key.seed: key for key in fp32}
        pairs.append([(key, by_seed[key.seed]) for key in bf16 if key.seed in by_seed])
    return max(pairs, key=len, default=[])


def pair_devices(evidence: Evidence, experiment: str) -> Iterator[tuple[list[RunKey], ...]]:
    """Yield the runs on two devices in one precision, where both have the two that a test takes."""
    found = groups(evidence, experiment)
    for one, other in combinations(found, 2):
        if one[0] == other[0] and min(len(found[one]), len(found[other])) > 1:
            yield found[one], found[other]


def difference(evidence: Evidence, pairs: Sequence[Pair], column: str) -> PairedDifference:
    firsts, seconds = zip(*pairs, strict=True)
    return paired_difference(
        [value(evidence, key, column) for key in firsts],
        [value(evidence, key, column) for key in seconds],
    )


def precision_text(evidence: Evidence) -> str:
    """bf16 minus fp32 of the final figures, over the seeds that ran in both."""
    rows = []
    for experiment in EXPERIMENTS:
        pairs = pair_precisions(evidence, experiment)
        for column in PRECISION_FIGURES if len(pairs) >= ENOUGH_RUNS else ():
            found = difference(evidence, pairs, column)
            name, device = figure_name(column), pairs[0][0].device
            told = number(column, found.mean, "+"), interval(column, found.interval, "+")
            rows.append([experiment, device, name, str(found.n), *told])
    if not rows:
        return f"Not yet run: no experiment has {ENOUGH_RUNS} seeds in both precisions."
    header = ("experiment", "machine", "figure", "pairs", "bf16 minus fp32", "95 % interval")
    return table(header, rows, text_columns=3)


def machines_text(evidence: Evidence) -> str:
    """Test accuracy on one machine minus that on another, over the seeds of both."""
    rows = []
    for experiment in EXPERIMENTS:
        for sides in pair_devices(evidence, experiment):
            found = welch(*([value(evidence, key, "test_accuracy") for key in s] for s in sides))
            one, other = sides[0][0], sides[1][0]
            told = number("accuracy", found.mean, "+"), interval("accuracy", found.interval, "+")
            rows.append(
                [
                    *(experiment, one.precision, f"{one.device} minus {other.device}"),
                    *(f"{len(sides[0])} and {len(sides[1])}", *told, p_value(found.p_value)),
                ]
            )
    if not rows:
        return "Not yet run: no experiment has two runs in one precision on two machines."
    header = ("experiment", "precision", "machines", "runs", "points", "95 % interval", "p")
    return table(header, rows, text_columns=3)
