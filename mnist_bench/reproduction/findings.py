"""Two things that the published figures do not say of themselves, seen in the runs."""

from collections.abc import Sequence

import numpy as np

from mnist_bench.reproduction.evidence import Chosen, Evidence, curves
from mnist_bench.reproduction.markdown import NONE, number, paragraph, table
from mnist_bench.reproduction.published import published_curve

# The published log headed "5 x 5 without dropout", and what could have produced it.
LOG = "cnn5x5_single"
READINGS = {
    "cnn5x5_single": "one convolution, with dropout",
    "cnn5x5_single_no_dropout": "one convolution, without dropout",
    "cnn5x5_no_dropout": "two convolutions, without dropout",
}


def vgg16_text(evidence: Evidence, chosen: Chosen) -> str:
    """How far the published val_acc is from either of ours, after every epoch and at the end."""
    epochs = curves(evidence, chosen, "vgg16", "epoch").shape[1]
    whole = published_curve("vgg16")["val_binary_accuracy"]
    published = np.array(whole[:epochs])
    rows = []
    distances = {}
    for column, name in (
        ("val_binary_accuracy", "binary accuracy, over the ten outputs"),
        ("val_accuracy", "accuracy, over the ten classes"),
    ):
        ours = curves(evidence, chosen, "vgg16", column)
        distances[column] = float(np.abs(ours.mean(0) - published).mean())
        last = ours[:, -1]
        rows.append(
            [
                name,
                *(number(column, figure) for figure in (last.mean(), last.min(), last.max())),
                number(column, distances[column]),
            ]
        )
    nearer, farther = sorted(distances, key=lambda column: distances[column])
    header = ("validation, %", "last epoch, mean", "lowest", "highest", "distance to val_acc")
    summary = (
        f"Over the first {epochs} of its {len(whole)} epochs, as far as our runs go, the published "
        f"`val_acc` is on average "
        f"{100 * distances[nearer]:.2f} percentage points away from our `{nearer}` and "
        f"{100 * distances[farther]:.2f} from our `{farther}`; its last value there is "
        f"{100 * published[-1]:.2f} %. Mean, lowest and highest of {_runs(len(chosen['vgg16']))}:"
    )
    return f"{paragraph(summary)}\n\n{table(header, rows)}"


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
