"""The committed rows of the reproduction and its page, read by none of the code that wrote them."""

import csv
import math

import numpy as np

from tests.support.train_command import REPOSITORY

RESULTS = REPOSITORY / "results"
PAGE = REPOSITORY / "docs" / "reproduction.md"
PUBLISHED_CURVES = REPOSITORY / "mnist_bench" / "reproduction" / "published_curves.csv"
CPU, GPU = "AMD EPYC, 1 thread", "NVIDIA H200"
KEY = ("experiment", "seed", "precision", "device")
VGG16_SEEDS = ("0", "1", "2", "3")
# The 0.975 quantile of Student's distribution with three degrees of freedom, as tables have it.
T3 = 3.18245


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


RUNS = read_csv(RESULTS / "reproduction" / "runs.csv")
CURVES = read_csv(RESULTS / "reproduction" / "curves.csv")
ERRORS = read_csv(RESULTS / "reproduction" / "errors.csv")


def key_of(row):
    return tuple(row[column] for column in KEY)


def gpu_run(experiment, seed="0"):
    (run,) = (r for r in RUNS if key_of(r) == (experiment, seed, "bf16", GPU))
    return run


def gpu_curve(experiment, column, seed="0"):
    rows = [row for row in CURVES if key_of(row) == (experiment, seed, "bf16", GPU)]
    return np.array([float(row[column]) for row in rows])


def listed(values):
    """Return `98.87, 99.28, 99.14 and 97.70 %`."""
    texts = [f"{100 * value:.2f}" for value in values]
    return f"{', '.join(texts[:-1])} and {texts[-1]} %"


def interval(values):
    """The 95 % prediction interval of four values, by Student's formula."""
    mean = sum(values) / 4
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / 3)
    reach = T3 * deviation * math.sqrt(1 + 1 / 4)
    return mean - reach, mean + reach
