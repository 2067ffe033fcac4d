"""Made-up evidence for the report of a reproduction, and how to read what it says."""

import csv

from mnist_bench.reproduction.evidence import CURVES, ERRORS, RUNS, read_evidence
from mnist_bench.reproduction.published import CURVES as PUBLISHED_CURVES
from mnist_bench.reproduction.report import write_report


class Evidence:
    """Made-up evidence, written as the three CSV files."""

    def __init__(self, folder):
        self.folder = folder / "reproduction"
        self.runs, self.curves, self.errors = [], [], []

    def add(
        self, experiment, seed, figures, wrong=(), curve=(), precision="fp32", device="machine A"
    ):
        key = {"experiment": experiment, "seed": seed, "precision": precision, "device": device}
        rows = [dict(row) for row in curve] or [{"val_accuracy": 0.9, "train_accuracy": 0.9}] * 2
        filled = dict.fromkeys((f for f in CURVES if f.endswith(("loss", "accuracy"))), 0.5)
        self.curves += [{**filled, **key, "epoch": e, **row} for e, row in enumerate(rows, 1)]
        self.errors += [{**key, "image": i, "label": 3, "predicted": 5} for i in wrong]
        filled = dict.fromkeys((f for f in RUNS if f.endswith(("loss", "accuracy"))), 0.5)
        end = {"epochs": len(rows), "test_images": 10, "seconds_per_epoch": 20 + seed}
        end["test_errors"] = len(wrong)
        self.runs.append({**filled, **key, **end, **figures})

    def report(self, results):
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, columns, rows in (
            ("runs.csv", RUNS, self.runs),
            ("curves.csv", CURVES, self.curves),
            ("errors.csv", ERRORS, self.errors),
        ):
            with (self.folder / name).open("w", newline="") as file:
                writer = csv.DictWriter(file, columns, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)
        written = write_report(results, read_evidence(self.folder))
        return written, (results / "reproduction.md").read_text()


def rows_of(text, *starts):
    """The cells of each table row that begins so."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    return [row for row in rows if tuple(row[: len(starts)]) == starts]


def row_of(text, *starts):
    (row,) = rows_of(text, *starts)
    return row


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def published_column(experiment, column):
    rows = read_csv(PUBLISHED_CURVES)
    return [float(row[column]) for row in rows if row["experiment"] == experiment]


def vgg16_curve(offset_binary, offset_classes):
    return [
        {
            "val_binary_accuracy": value - offset_binary,
            "val_accuracy": value - offset_classes,
            "train_binary_accuracy": 0.99,
        }
        for value in published_column("vgg16", "val_accuracy")
    ]
