"""One recipe and seed computed in two ways: in bf16 and fp32, or on two machines."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from mnist_bench.analysis.markdown import NONE, figure_name, interval, number, table
from mnist_bench.analysis.statistics import PairedDifference, paired_difference
from mnist_bench.reproduction.evidence import Evidence, RunKey, groups, value
from mnist_bench.reproduction.published import EXPERIMENTS
from mnist_bench.reproduction.tables import count_devices

PRECISION_FIGURES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")

Pair = tuple[RunKey, RunKey]


def pair_seeds(first: Sequence[RunKey], second: Sequence[RunKey]) -> list[Pair]:
    """Return a pair for each seed that both have."""
    by_seed = {key.seed: key for key in second}
    return [(key, by_seed[key.seed]) for key in first if key.seed in by_seed]


def pair_precisions(evidence: Evidence, experiment: str) -> list[Pair]:
    """Return bf16 and fp32 of each seed, on one device: of several the first by name."""
    found = groups(evidence, experiment)
    pairs: dict[int, Pair] = {}
    for device in sorted({device for _, device in found}):
        sides = (found.get((precision, device), []) for precision in ("bf16", "fp32"))
        for pair in pair_seeds(*sides):
            pairs.setdefault(pair[0].seed, pair)
    return [pairs[seed] for seed in sorted(pairs)]


def pair_devices(evidence: Evidence, experiment: str) -> Iterator[tuple[str, str, str, list[Pair]]]:
    """Yield precision, device, another, and the pairs of seeds that ran on both, second first."""
    found = groups(evidence, experiment)
    for one, other in combinations(found, 2):
        if one[0] == other[0] and (pairs := pair_seeds(found[other], found[one])):
            yield one[0], one[1], other[1], pairs


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
        for key in PRECISION_FIGURES if pairs else ():
            devices = count_devices(first for first, _ in pairs)
            cells = _cells(key, difference(evidence, pairs, key))
            rows.append([experiment, devices, figure_name(key), *cells])
    if not rows:
        return "Not yet run: no experiment has a seed in both precisions."
    header = ("experiment", "machine", "figure", "pairs", "bf16 minus fp32", "95 % interval")
    return table(header, rows, text_columns=3)


def machines_text(evidence: Evidence) -> str:
    """Test accuracy on one machine minus that on another, over the seeds that ran on both."""
    rows = []
    together: dict[tuple[str, str], list[Pair]] = {}
    for experiment in EXPERIMENTS:
        for precision, one, other, pairs in pair_devices(evidence, experiment):
            cells = _cells("accuracy", difference(evidence, pairs, "test_accuracy"))
            rows.append([experiment, precision, f"{other} minus {one}", *cells])
            together.setdefault((one, other), []).extend(pairs)
    if not rows:
        return "Not yet run: no experiment has a seed in one precision on two machines."
    for (one, other), pairs in together.items():
        cells = _cells("accuracy", difference(evidence, pairs, "test_accuracy"))
        rows.append(["all", NONE, f"{other} minus {one}", *cells])
    header = ("experiment", "precision", "machines", "pairs", "points", "95 % interval")
    return table(header, rows, text_columns=3)


def _cells(key: str, found: PairedDifference) -> list[str]:
    return [
        *(str(found.n), number(key, found.mean, "+")),
        interval(key, found.interval, "+"),
    ]
