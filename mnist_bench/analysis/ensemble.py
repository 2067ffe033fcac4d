"""Several networks together: the mean of their probabilities, and the majority of their votes.

R runs, N images, K classes. All is read from predictions.npz; no network is computed.
"""

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mnist_bench.analysis.find import find_folders, runs_below
from mnist_bench.errors import ConfigError, DataError
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.predictions import read_predictions
from mnist_bench.runs.records import read_summary


@dataclass(frozen=True)
class Member:
    """A run, and its answers to the N test images: probabilities float64 (N, K)."""

    run: Path
    model: str
    dataset: str
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @property
    def predicted(self) -> NDArray[np.int64]:
        predicted: NDArray[np.int64] = self.probabilities.argmax(1)
        return predicted


@dataclass(frozen=True)
class Ensemble:
    """How many of N images each run takes for something else, and all of them together.

    `all_wrong` are the images that no run gets right, which no vote can mend; `any_wrong` those
    that at least one gets wrong.
    """

    runs: tuple[Path, ...]
    models: tuple[str, ...]
    images: int
    errors: tuple[int, ...]
    errors_of_mean: int
    errors_of_vote: int
    all_wrong: int
    any_wrong: int

    def as_json(self) -> dict[str, Any]:
        """Return what `mnist-bench ensemble --json` prints."""

        def counted(errors: int) -> dict[str, float]:
            return {"errors": errors, "accuracy": 1 - errors / self.images}

        return {
            "images": self.images,
            "runs": [
                {"run": str(run), "model": model, **counted(errors)}
                for run, model, errors in zip(self.runs, self.models, self.errors, strict=True)
            ],
            "mean": counted(self.errors_of_mean),
            "vote": counted(self.errors_of_vote),
            "all_wrong": self.all_wrong,
            "any_wrong": self.any_wrong,
        }


def combine_runs(given: Sequence[str | Path]) -> Ensemble:
    """Combine the answers of runs to their common test set.

    `given` are runs, or sweeps, which stand for all of their runs that were tested: folders, names
    or globs.

    Raises:
        ConfigError: there are not two runs, one of them was not tested, or not on the same images.
        DataError: a predictions.npz is damaged.
    """
    found: dict[Path, Path] = {}  # each once, however it was spelt
    for folder in itertools.chain.from_iterable(map(find_folders, given)):
        for run in runs_below(folder):
            if run == folder or RunFolder(run).predictions.is_file():
                found.setdefault(run.resolve(), run)
    folders = list(found.values())
    if len(folders) < 2:
        raise ConfigError(
            f"An ensemble takes two runs or more that were tested, and there is "
            f"{len(folders) or 'none'} in {', '.join(dict.fromkeys(map(str, given)))}: give their "
            f"folders, or that of a sweep."
        )
    members = [read_member(folder) for folder in folders]
    first = members[0]
    for other in members[1:]:
        _refuse_other_images(first, other)
    return combine(members)


def combine(members: Sequence[Member]) -> Ensemble:
    """Combine answers to the same images."""
    labels_N = members[0].labels
    probabilities_RNK = np.stack([member.probabilities for member in members])
    predicted_RN = probabilities_RNK.argmax(2)
    wrong_RN = predicted_RN != labels_N
    mean_NK = probabilities_RNK.mean(0)
    return Ensemble(
        runs=tuple(member.run for member in members),
        models=tuple(member.model for member in members),
        images=len(labels_N),
        errors=tuple(int(n) for n in wrong_RN.sum(1)),
        errors_of_mean=int((mean_NK.argmax(1) != labels_N).sum()),
        errors_of_vote=int((majority(predicted_RN, mean_NK) != labels_N).sum()),
        all_wrong=int(wrong_RN.all(0).sum()),
        any_wrong=int(wrong_RN.any(0).sum()),
    )


def majority(predicted_RN: NDArray[np.int64], mean_NK: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the class that most runs name, (N,); of equally many votes the likeliest by mean."""
    votes_NK = np.stack([(predicted_RN == k).sum(0) for k in range(mean_NK.shape[1])], 1)
    tied_NK = votes_NK == votes_NK.max(1, keepdims=True)
    winners_N: NDArray[np.int64] = np.where(tied_NK, mean_NK, -1.0).argmax(1)
    return winners_N


def read_member(run: Path) -> Member:
    """Read a run's answers to its test images.

    Raises:
        ConfigError: it has not been tested.
        DataError: its predictions.npz is damaged, or has logits that are no numbers.
    """
    folder = RunFolder(run)
    try:
        read_NK, labels_N = read_predictions(folder)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{run} has no {folder.predictions.name}: it is not the folder of a run that was "
            f"tested."
        ) from error
    logits_NK = read_NK.astype(np.float64)
    if not np.isfinite(logits_NK).all():
        raise DataError(
            f"{folder.predictions} has logits that are no numbers: train that run again, or leave "
            f"it out."
        )
    summary = read_summary(run)
    shifted_NK = np.exp(logits_NK - logits_NK.max(1, keepdims=True))
    probabilities_NK = shifted_NK / shifted_NK.sum(1, keepdims=True)
    model, dataset = str(summary.get("model", run.name)), str(summary.get("dataset", "?"))
    return Member(run, model, dataset, labels_N, probabilities_NK)


def _refuse_other_images(first: Member, other: Member) -> None:
    same = (
        first.dataset == other.dataset
        and first.probabilities.shape == other.probabilities.shape
        and np.array_equal(first.labels, other.labels)
    )
    if not same:
        raise ConfigError(
            f"{other.run} was tested on other images than {first.run} ({_tested(other)}, and "
            f"{_tested(first)}): an ensemble is of runs that answered the same ones."
        )


def _tested(member: Member) -> str:
    images, classes = member.probabilities.shape
    return f"{images:,} of {member.dataset} in {classes} classes"


def describe_ensemble(ensemble: Ensemble) -> RenderableType:
    """Return each run, then all together, and what any of them could have got right."""
    table = Table(box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    table.pad_edge, table.collapse_padding = False, True
    above = os.path.commonpath([os.path.abspath(run.parent) for run in ensemble.runs])
    table.title = (
        f"{len(ensemble.runs)} networks on {ensemble.images:,} test images, "
        f"of {os.path.relpath(above)}"
    )
    table.add_column("run", overflow="fold")
    if mixed := len(set(ensemble.models)) > 1:
        table.add_column("model", no_wrap=True)
    table.add_column("errors", justify="right", no_wrap=True)
    table.add_column("accuracy", justify="right", no_wrap=True)
    for run, model, errors in zip(ensemble.runs, ensemble.models, ensemble.errors, strict=True):
        cells = [Text(os.path.relpath(run, above)), *[Text(model)] * mixed]
        table.add_row(*cells, f"{errors:,}", _accuracy(ensemble, errors))
    table.add_section()
    together = {
        "mean of the probabilities": ensemble.errors_of_mean,
        "majority of the votes": ensemble.errors_of_vote,
    }
    best = min((*ensemble.errors, *together.values()))
    for name, errors in together.items():
        style = "bold green" if errors == best else "bold"
        table.add_row(
            Text(name, style),
            *[Text()] * mixed,
            Text(f"{errors:,}", style),
            Text(_accuracy(ensemble, errors), style),
        )
    told = (
        f"{_count(ensemble.any_wrong)} wrong in at least one, and "
        f"{ensemble.all_wrong:,} in all of them."
    )
    if min(ensemble.errors) < ensemble.errors_of_mean:
        told += (
            " The best run alone makes fewer errors than the mean, but that only the test images "
            "tell: choose what goes together by validation."
        )
    return Group(table, Text(), Text(told))


def _accuracy(ensemble: Ensemble, errors: int) -> str:
    return f"{1 - errors / ensemble.images:.2%}"


def _count(images: int) -> str:
    return f"{images:,} image{'s are' if images != 1 else ' is'}"
