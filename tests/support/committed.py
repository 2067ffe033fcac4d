"""The committed rows of the reproduction and its page, read by none of the code that wrote them."""

import csv

import numpy as np
from scipy import stats

from tests.support.train_command import REPOSITORY

RESULTS = REPOSITORY / "results"
PAGE = REPOSITORY / "docs" / "reproduction.md"
PUBLISHED_CURVES = REPOSITORY / "mnist_bench" / "reproduction" / "published_curves.csv"
KEY = ("experiment", "seed", "precision", "device")
H100, H200, CPU = "NVIDIA H100 80GB HBM3", "NVIDIA H200", "AMD EPYC, 1 thread"


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


RUNS = read_csv(RESULTS / "reproduction" / "runs.csv")
CURVES = read_csv(RESULTS / "reproduction" / "curves.csv")
ERRORS = read_csv(RESULTS / "reproduction" / "errors.csv")


def key_of(row):
    return tuple(row[column] for column in KEY)


def counted(experiment):
    """Precision, device and seeds of the runs that statements are made of."""
    if experiment == "vgg16":
        return "bf16", H200, "0123"
    return "fp32", H100, "01234"


def last(experiment, column="test_accuracy", precision=None, device=None):
    """A figure of the end of each run that counts, or of those in another precision or device."""
    usual, machine, seeds = counted(experiment)
    found = {key_of(run): run[column] for run in RUNS}
    keys = [(experiment, seed, precision or usual, device or machine) for seed in seeds]
    return [float(found[key]) for key in keys]


def curves(experiment, column):
    """A figure of each run that counts after each epoch: runs x epochs."""
    precision, device, seeds = counted(experiment)
    keys = [(experiment, seed, precision, device) for seed in seeds]
    return np.array([[float(r[column]) for r in CURVES if key_of(r) == key] for key in keys])


def log(experiment, column):
    """What was published of it after each epoch."""
    rows = read_csv(PUBLISHED_CURVES)
    return np.array([float(row[column]) for row in rows if row["experiment"] == experiment])


def mean_interval(values):
    """The 95 % confidence interval of the mean, by SciPy."""
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    return float(low), float(high)


def prediction_interval(values, confidence=0.95):
    """Where one more value would lie, by Student's formula."""
    n, mean, deviation = len(values), np.mean(values), np.std(values, ddof=1)
    reach = stats.t.ppf((1 + confidence) / 2, n - 1) * deviation * np.sqrt(1 + 1 / n)
    return mean - reach, mean + reach


def listed(values):
    """Return `98.87, 99.28, 99.14 and 97.70 %`."""
    texts = [f"{100 * value:.2f}" for value in values]
    return f"{', '.join(texts[:-1])} and {texts[-1]} %"


def said(path, *parts):
    """Fail unless the page has the words, wherever its lines break."""
    page = " ".join(path.read_text().split())
    absent = [part for part in parts if part not in page]
    assert not absent, absent


def signed(value, digits=2):
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def unsigned(value, digits=2):
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")
