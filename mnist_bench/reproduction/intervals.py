"""Each published log against each of our experiments, epoch by epoch.

The last epoch's figures hardly tell recipes apart; whole curves do. For each figure and epoch the
runs of an experiment give the interval in which one more run would lie, and a log is counted by how
many of its values lie inside. The values of one log depend on each other, so that no p value is
made of the count; it is held against the counts of the wrong experiments instead.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mnist_bench.analysis.statistics import Sample, describe
from mnist_bench.reproduction.evidence import ENOUGH_RUNS, Chosen, Evidence, RunKey, curves
from mnist_bench.reproduction.published import (
    BINARY,
    EXPERIMENTS,
    PUBLISHED,
    columns_of,
    published_curve,
)

INSIDE, BELOW, ABOVE = "inside", "below", "above"
# Where all runs have the same value there is no interval, and the log's value is not counted.
NO_INTERVAL = ""


def epoch_samples(ours: NDArray[np.float64]) -> list[Sample]:
    """Describe the values after each epoch; `ours` is runs x epochs."""
    return [describe(values) for values in ours.T]


def prediction_band(ours: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where one more run would lie after each epoch; without a spread it is the runs' own value."""
    intervals = [(sample.prediction_interval, sample.mean) for sample in epoch_samples(ours)]
    low = [mean if interval is None else interval.low for interval, mean in intervals]
    high = [mean if interval is None else interval.high for interval, mean in intervals]
    return np.array(low), np.array(high)


def place(value: float, sample: Sample) -> str:
    """Say where a published value lies, seen from the prediction interval."""
    between = sample.prediction_interval
    if between is None:
        return NO_INTERVAL
    if value in between:
        return INSIDE
    return BELOW if value < between.low else ABOVE


@dataclass(frozen=True)
class Candidate:
    """An experiment with at least three runs in one precision on one device."""

    experiment: str
    keys: Sequence[RunKey]
    figures: Mapping[str, NDArray[np.float64]]  # by column: runs x epochs

    @property
    def runs(self) -> int:
        return len(self.keys)

    @property
    def precision(self) -> str:
        return self.keys[0].precision

    @property
    def device(self) -> str:
        return self.keys[0].device

    @cached_property
    def samples(self) -> dict[str, list[Sample]]:
        """Our values after each epoch, by column."""
        return {column: epoch_samples(ours) for column, ours in self.figures.items()}

    @property
    def epochs(self) -> int:
        return len(next(iter(self.samples.values())))


def candidates(evidence: Evidence, chosen: Chosen) -> list[Candidate]:
    """Return every experiment that has enough runs chosen, in the order of the report."""
    return [
        Candidate(
            name,
            list(chosen[name].values()),
            {column: curves(evidence, chosen, name, column) for column in columns_of(name)},
        )
        for name in EXPERIMENTS
        if len(chosen[name]) >= ENOUGH_RUNS
    ]


@dataclass(frozen=True)
class Agreement:
    """Where the values of a published log lie, seen from a candidate's intervals."""

    log: str
    candidate: Candidate
    places: Mapping[str, Sequence[str]]  # by column, for each epoch

    @property
    def own(self) -> bool:
        return self.log == self.candidate.experiment

    @property
    def values(self) -> int:
        """How many of the log's values there is an interval for."""
        return sum(where != NO_INTERVAL for where in self._all())

    @property
    def inside(self) -> int:
        return sum(where == INSIDE for where in self._all())

    @property
    def share(self) -> float:
        return self.inside / self.values if self.values else 0.0

    def _all(self) -> Iterator[str]:
        for places in self.places.values():
            yield from places


def agree(log: str, candidate: Candidate) -> Agreement | None:
    """None where the two cannot be compared.

    That is where the candidate has fewer epochs than the log, or counts another loss and accuracy:
    binary cross-entropy's are those of ten outputs.
    """
    published = published_curve(log)
    if not published or (log in BINARY) != (candidate.experiment in BINARY):
        return None
    if candidate.epochs < len(published["train_loss"]):
        return None
    places = {
        column: [
            place(value, sample)
            # A log of fewer epochs is held against the first ones.
            for value, sample in zip(values, candidate.samples[column], strict=False)
        ]
        for column, values in published.items()
    }
    return Agreement(log, candidate, places)


def agreements(evidence: Evidence, chosen: Chosen) -> dict[str, list[Agreement]]:
    """For each published log, in the order of the report, its own experiment first."""
    judged = candidates(evidence, chosen)
    logs = [name for name in PUBLISHED if published_curve(name)]
    return {
        log: sorted(
            (found for candidate in judged if (found := agree(log, candidate)) is not None),
            key=lambda found: not found.own,
        )
        for log in logs
    }


def own(found: Sequence[Agreement]) -> Agreement | None:
    return next((agreement for agreement in found if agreement.own), None)


def best_other(found: Sequence[Agreement]) -> Agreement | None:
    """The wrong experiment that most of the log's values would suit; of equal ones the first."""
    return max((a for a in found if not a.own), key=lambda a: a.share, default=None)
