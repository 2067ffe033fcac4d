"""What the notebooks and READMEs reported: final figures, times and curves.

docs/reproduction.md says where each source is.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# In the order of the report. `cnn5x5` belongs to notebook 003, which reports nothing for it.
PUBLISHED = (
    "vgg16",
    "conv3_dense7744",
    "mnist_cnn",
    "cnn3x3",
    "cnn5x5",
    "cnn5x5_single",
    "wide3x3",
    "wide3x5_bn",
    "wide5x7_bn",
)
# Never published: what the comparisons need beside them.
VARIANTS = ("cnn3x3_no_dropout", "cnn5x5_no_dropout", "cnn5x5_single_no_dropout")
EXPERIMENTS = PUBLISHED + VARIANTS

# Compiled with binary cross-entropy and metrics=['accuracy'], which Keras resolves to binary
# accuracy: the share of the ten outputs on the right side of 0.5. Their acc and val_acc are that.
BINARY = ("vgg16",)

CURVES = Path(__file__).with_name("published_curves.csv")


@dataclass(frozen=True)
class PublishedFigure:
    """A figure of a run's end; `key` is the column of runs.csv that holds ours."""

    experiment: str
    key: str
    value: float
    source: str


# The first figure of each experiment is its accuracy on the test set, which was also the validation
# set of all but vgg16. Where no table printed a figure, it is the last row of the training log.
FIGURES = (
    PublishedFigure("vgg16", "test_accuracy", 0.9921, "README 000"),
    PublishedFigure("vgg16", "val_binary_accuracy", 0.9979, "README 000, its notebook"),
    PublishedFigure("vgg16", "val_loss", 0.0329, "README 000, its notebook"),
    PublishedFigure("vgg16", "train_binary_accuracy", 0.9990, "README 000, its notebook"),
    PublishedFigure("vgg16", "train_loss", 0.0123, "README 000, its notebook"),
    PublishedFigure("conv3_dense7744", "val_accuracy", 0.9888, "README 001, its notebook"),
    PublishedFigure("conv3_dense7744", "val_loss", 0.0517, "README 001, its notebook"),
    PublishedFigure("conv3_dense7744", "train_accuracy", 0.9954, "README 001, its notebook"),
    PublishedFigure("conv3_dense7744", "train_loss", 0.0148, "README 001, its notebook"),
    PublishedFigure("conv3_dense7744", "val_accuracy", 0.9885, "README 001"),
    PublishedFigure("conv3_dense7744", "train_accuracy", 0.9951, "README 001"),
    PublishedFigure("mnist_cnn", "val_accuracy", 0.9899, "README 002"),
    PublishedFigure("mnist_cnn", "best_val_accuracy", 0.9914, "README 002"),
    PublishedFigure("mnist_cnn", "test_loss", 0.03044, "README 002"),
    PublishedFigure("mnist_cnn", "train_accuracy", 0.9918, "README 002"),
    PublishedFigure("mnist_cnn", "train_loss", 0.0264, "README 002"),
    PublishedFigure("cnn3x3", "val_accuracy", 0.9926, "notebook 003"),
    PublishedFigure("cnn3x3", "val_loss", 0.0263, "notebook 003"),
    PublishedFigure("cnn3x3", "train_accuracy", 0.9939, "notebook 003"),
    PublishedFigure("cnn3x3", "train_loss", 0.0178, "notebook 003"),
    PublishedFigure("cnn5x5_single", "val_accuracy", 0.9913, "notebook 003"),
    PublishedFigure("cnn5x5_single", "val_loss", 0.0269, "notebook 003"),
    PublishedFigure("cnn5x5_single", "train_accuracy", 0.9904, "notebook 003"),
    PublishedFigure("cnn5x5_single", "train_loss", 0.0307, "notebook 003"),
    PublishedFigure("wide3x3", "val_accuracy", 0.9914, "README 004, Model 1"),
    PublishedFigure("wide3x3", "val_loss", 0.0255, "README 004, Model 1"),
    PublishedFigure("wide3x3", "train_accuracy", 0.9907, "README 004, Model 1"),
    PublishedFigure("wide3x3", "train_loss", 0.0319, "README 004, Model 1"),
    PublishedFigure("wide3x5_bn", "val_accuracy", 0.9931, "README 004, Model 2"),
    PublishedFigure("wide3x5_bn", "val_loss", 0.0214, "README 004, Model 2"),
    PublishedFigure("wide3x5_bn", "train_accuracy", 0.9949, "README 004, Model 2"),
    PublishedFigure("wide3x5_bn", "train_loss", 0.0153, "README 004, Model 2"),
    PublishedFigure("wide5x7_bn", "val_accuracy", 0.9935, "README 004, Model 3"),
    PublishedFigure("wide5x7_bn", "val_loss", 0.0239, "README 004, Model 3"),
    PublishedFigure("wide5x7_bn", "train_accuracy", 0.9938, "README 004, Model 3"),
    PublishedFigure("wide5x7_bn", "train_loss", 0.0200, "README 004, Model 3"),
)

# Of a whole epoch, validation included; where they say on what: vgg16 on a GPU, mnist_cnn on a CPU.
SECONDS_PER_EPOCH = {
    "vgg16": 15,
    "conv3_dense7744": 68,
    "mnist_cnn": 136,
    "cnn3x3": 5,
    "cnn5x5_single": 2,
    "wide3x3": 20,
    "wide3x5_bn": 21,
    "wide5x7_bn": 20,
}


def headline(experiment: str) -> PublishedFigure | None:
    """The published accuracy on the test set, if there is one."""
    return next((f for f in FIGURES if f.experiment == experiment), None)


# What Keras logs after each epoch, by the columns of metrics.csv.
LOGGED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


def columns_of(experiment: str) -> list[str]:
    """The columns of metrics.csv for what Keras called loss, acc, val_loss and val_acc."""
    if experiment in BINARY:
        return [figure.replace("accuracy", "binary_accuracy") for figure in LOGGED]
    return [*LOGGED]


@cache
def published_curve(experiment: str) -> dict[str, list[float]]:
    """A value per epoch for each of the columns that metrics.csv has for the same thing.

    Empty for experiments that published no curve. Accuracies are fractions.
    """
    with CURVES.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.pop("experiment") == experiment]
    return {
        key.replace("accuracy", "binary_accuracy") if experiment in BINARY else key: [
            float(row[key]) for row in rows
        ]
        for key in (rows[0] if rows else ())
        if key != "epoch"
    }
