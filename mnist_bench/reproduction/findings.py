"""Two things that the published figures do not say of themselves, seen in the runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mnist_bench.analysis.markdown import NONE, number, paragraph, table
from mnist_bench.reproduction.evidence import Chosen, Evidence, curves, is_complete, value
from mnist_bench.reproduction.intervals import INSIDE, epoch_samples, place
from mnist_bench.reproduction.published import headline, published_curve

# The published log headed "5 x 5 without dropout", and what could have produced it.
LOG = "cnn5x5_single"
READINGS = {
    "cnn5x5_single": "one convolution, with dropout",
    "cnn5x5_single_no_dropout": "one convolution, without dropout",
    "cnn5x5_no_dropout": "two convolutions, without dropout",
}


# vgg16's figures, each beside the published one that is called accuracy.
ACCURACIES = {
    "val_binary_accuracy": "validation: binary, over the ten outputs",
    "val_accuracy": "validation: over the ten classes",
    "train_binary_accuracy": "training: binary, over the ten outputs",
    "train_accuracy": "training: over the ten classes",
}


@dataclass(frozen=True)
class _Distance:
    """How far one accuracy of ours is from the published one."""

    ours: NDArray[np.float64]  # after each epoch: runs x epochs
    published: NDArray[np.float64]  # as many epochs as ours

    @property
    def mean(self) -> float:
        """The mean over the epochs, without sign, from the mean over our runs."""
        return float(np.abs(self.ours.mean(0) - self.published).mean())

    @property
    def inside_text(self) -> str:
        """The epochs after which one more run could be as published; of a single run none is."""
        if len(self.ours) == 1:
            return NONE
        samples = zip(self.published, epoch_samples(self.ours), strict=True)
        return str(sum(place(value, sample) == INSIDE for value, sample in samples))


def vgg16_text(evidence: Evidence, chosen: Chosen) -> str:
    """How far the published acc and val_acc are from ours, after every epoch and at the end."""
    keys = list(chosen["vgg16"].values())
    distances = {}
    for column in ACCURACIES:
        ours = curves(evidence, chosen, "vgg16", column)
        whole = published_curve("vgg16")[f"{column.partition('_')[0]}_binary_accuracy"]
        distances[column] = _Distance(ours, np.array(whole[: ours.shape[1]]))
    rows = [
        [
            *(name, number(column, distances[column].published[-1])),
            *(number(column, last) for last in distances[column].ours[:, -1]),
            *(number(column, distances[column].mean), distances[column].inside_text),
        ]
        for column, name in ACCURACIES.items()
    ]
    tested = headline("vgg16")
    if tested and all(is_complete(evidence, key) for key in keys):
        figures = [tested.value, *(value(evidence, key, tested.key) for key in keys)]
        cells = [number(tested.key, figure) for figure in figures]
        rows.append(["test: over the ten classes", *cells, NONE, NONE])
    header = ("accuracy", "published", *(f"seed {k.seed}" for k in keys), "distance", "inside")
    epochs = f"all {len(whole)} epochs"
    if ours.shape[1] < len(whole):
        epochs = f"the first {ours.shape[1]} of its {len(whole)} epochs, as far as our runs go,"
    first = f"Over {epochs} {_nearer_of_two(distances)}, in the mean of {_runs(len(keys))}."
    return "\n\n".join([paragraph(first), VGG16_NOTE, table(header, rows)])


VGG16_NOTE = """\
In per cent, what was published and what our runs have after the last of these epochs. *Distance* is
the mean over the epochs, without sign, between our mean and what was published, in points; *inside*
is after how many of them the published figure lies in the 95 % prediction interval of our runs."""


def _nearer_of_two(distances: dict[str, _Distance]) -> str:
    columns = sorted(("val_binary_accuracy", "val_accuracy"), key=lambda c: distances[c].mean)
    nearer, farther = (f"{100 * distances[c].mean:.2f}" for c in columns)
    return (
        f"the published `val_acc` is on average {nearer} percentage points away from our "
        f"`{columns[0]}` and {farther} from our `{columns[1]}`"
    )


def dropout_text(evidence: Evidence, chosen: Chosen) -> str:
    """The published log beside its three readings, by both losses."""
    log = published_curve(LOG)
    rows = [_reading_cells("the published log", 1, log["train_loss"], log["val_loss"], log)]
    above = {}
    for experiment, reading in READINGS.items():
        train, val = (
            curves(evidence, chosen, experiment, column).mean(0).tolist()
            for column in ("train_loss", "val_loss")
        )
        rows.append(_reading_cells(reading, len(chosen[experiment]), train, val, log))
        above[reading] = _epochs_above(train, val)
    header = (
        *("", "runs", "first train loss", "first val loss", "last train loss", "last val loss"),
        *("epochs train > val", "distance train", "distance val"),
    )
    told = ", ".join(f"{epochs} ({reading})" for reading, epochs in above.items())
    summary = (
        "Training loss is measured with dropout on, where there is any. In the log it is above the "
        f"validation loss for {_epochs_above(log['train_loss'], log['val_loss'])} of "
        f"{len(log['train_loss'])} epochs; in the means over our runs, for {told}. *Distance* is "
        "the mean over the epochs, without sign, between our mean and the log. A reading without a "
        "completed run is shown as far as its longest one goes."
    )
    return f"{paragraph(summary)}\n\n{table(header, rows)}"


def _reading_cells(
    name: str,
    runs: int,
    train: Sequence[float],
    val: Sequence[float],
    log: dict[str, list[float]],
) -> list[str]:
    epochs = len(train)
    distances = [
        float(np.abs(np.subtract(ours, published[:epochs])).mean())
        for ours, published in ((train, log["train_loss"]), (val, log["val_loss"]))
    ]
    return [
        *(name, str(runs)),
        *(number("loss", loss) for loss in (train[0], val[0], train[-1], val[-1])),
        str(_epochs_above(train, val)),
        *(number("loss", distance) if any(distances) else NONE for distance in distances),
    ]


def _epochs_above(train: Sequence[float], val: Sequence[float]) -> int:
    return int(np.greater(train, val).sum())


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"
