"""The figures that the READMEs and docs/reproduction.md state, recomputed from the committed rows.

From the CSV files alone, by the standard library and NumPy: none of the code that wrote the report.
"""

import csv
import math
import re
import statistics

import numpy as np
import pytest

from mnist_bench.reproduction.evidence import read_evidence
from mnist_bench.reproduction.report import write_report
from tests.support.train_command import REPOSITORY

RESULTS = REPOSITORY / "results"
GPU = "NVIDIA H200"
# The 0.975 quantile of Student's distribution with three degrees of freedom, as tables have it.
T3 = 3.18245


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


RUNS = read_csv(RESULTS / "reproduction" / "runs.csv")
CURVES = read_csv(RESULTS / "reproduction" / "curves.csv")
ERRORS = read_csv(RESULTS / "reproduction" / "errors.csv")
KEY = ("experiment", "seed", "precision", "device")
VGG16_SEEDS = ("0", "1", "2", "3")


def key_of(row):
    return tuple(row[column] for column in KEY)


def gpu_run(experiment, seed="0"):
    (run,) = (r for r in RUNS if key_of(r) == (experiment, seed, "bf16", GPU))
    return run


def gpu_curve(experiment, column, seed="0"):
    rows = [row for row in CURVES if key_of(row) == (experiment, seed, "bf16", GPU)]
    return np.array([float(row[column]) for row in rows])


def vgg16_curves(column):
    """The four runs' figure after each epoch: 4 x 50."""
    return np.array([gpu_curve("vgg16", column, seed) for seed in VGG16_SEEDS])


def vgg16_log(column):
    path = REPOSITORY / "mnist_bench" / "reproduction" / "published_curves.csv"
    return np.array([float(r[column]) for r in read_csv(path) if r["experiment"] == "vgg16"])


def said(*parts):
    """Fail unless the page has the words, wherever its lines break."""
    page = " ".join((REPOSITORY / "docs" / "reproduction.md").read_text().split())
    absent = [part for part in parts if part not in page]
    assert not absent, absent


def listed(values):
    """Return `98.87, 99.28, 99.14 and 97.70 %`."""
    texts = [f"{100 * value:.2f}" for value in values]
    return f"{', '.join(texts[:-1])} and {texts[-1]} %"


# --- The rows themselves ----------------------------------------------------------------------


def test_accuracies_are_those_of_the_images_that_were_got_wrong(mnist_root):
    path = mnist_root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    labels = np.frombuffer(path.read_bytes(), np.uint8)[8:]
    wrong = {key_of(run): set() for run in RUNS}
    for row in ERRORS:
        assert int(row["label"]) == labels[int(row["image"])] != int(row["predicted"]), row
        wrong[key_of(row)].add(row["image"])
    whole = [run for run in RUNS if run["test_accuracy"]]
    assert sum(run["device"] == GPU for run in whole) == 27
    for run in whole:
        accuracy = 1 - len(wrong[key_of(run)]) / len(labels)
        assert float(run["test_accuracy"]) == pytest.approx(accuracy, abs=1e-9), key_of(run)


def test_runs_are_the_last_rows_of_their_curves():
    for run in RUNS:
        if run["test_accuracy"]:
            curve = [row for row in CURVES if key_of(row) == key_of(run)]
            assert [int(row["epoch"]) for row in curve] == [*range(1, int(run["epochs"]) + 1)]
            for column in ("train_loss", "val_accuracy", "val_binary_accuracy"):
                assert run[column] == curve[-1][column]


def test_runs_that_shared_a_gpu_have_no_times():
    for row in (*RUNS, *CURVES):
        if row["device"] == GPU:
            alone = row["experiment"] != "vgg16" or row["seed"] == "0"
            times = [
                row[c] for c in ("seconds_per_epoch", "seconds", "images_per_second") if c in row
            ]
            assert [bool(time) for time in times] == [alone] * len(times), key_of(row)


def test_the_committed_report_is_that_of_the_committed_evidence(tmp_path):
    write_report(tmp_path, read_evidence(RESULTS / "reproduction"))
    for name in ("reproduction.md", "reproduction.csv"):
        assert (tmp_path / name).read_text() == (RESULTS / name).read_text()


# --- README.md --------------------------------------------------------------------------------


def readme_rows(path="results/README.md"):
    lines = (REPOSITORY / path).read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| `experiment=`"))
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


def test_readme_has_five_of_these_rows():
    """All but the epochs, the number of runs, and the first epoch."""
    full = {row[0]: [row[0], row[2], row[3], row[5], row[6]] for row in readme_rows()}
    rows = list(readme_rows("README.md"))
    assert len(rows) == 5 and len(full) == 9
    assert all(row == full[row[0]] for row in rows)


def test_readmes_gpu_columns_are_those_of_the_rows():
    names = []
    for name, epochs, *_, accuracy, training, first in readme_rows():
        names.append(name.strip("`"))
        run, seconds = gpu_run(names[-1]), gpu_curve(names[-1], "seconds")
        assert run["git_commit"].startswith("e0c4d08") and run["torch"] == "2.11.0"
        assert (epochs, len(seconds)) == (run["epochs"], int(run["epochs"]))
        runs = [row for row in RUNS if (row["experiment"], row["device"]) == (names[-1], GPU)]
        assert len(runs) == {"vgg16": 4, "conv3_dense7744": 2}.get(names[-1], 3)
        values = [100 * float(row["test_accuracy"]) for row in runs]
        assert accuracy == f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f} %"
        assert (training, first) == (f"{sum(seconds):.1f} s", f"{seconds[0]:.2f} s")
    assert sorted(names) == sorted({run["experiment"] for run in RUNS if run["device"] == GPU})


def test_readmes_cpu_columns_are_those_of_the_rows():
    for name, _, published, accuracy, runs, *_ in readme_rows():
        by_seed = {}
        for run in sorted(RUNS, key=lambda run: run["precision"]):  # fp32 comes last, and stays
            if (
                run["experiment"] == name.strip("`")
                and run["device"] != GPU
                and run["test_accuracy"]
            ):
                by_seed[run["seed"]] = run
        precisions = [run["precision"] for run in by_seed.values()]
        counts = {p: precisions.count(p) for p in ("fp32", "bf16") if p in precisions}
        assert runs == ", ".join(f"{count} {precision}" for precision, count in counts.items())
        values = [100 * float(run["test_accuracy"]) for run in by_seed.values()]
        if not values:
            expected = ""
        elif len(values) == 1:
            expected = f"{values[0]:.2f} %"
        else:
            expected = f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f} %"
        assert accuracy == expected, name
        table = read_csv(RESULTS / "reproduction.csv")
        told = [row["published"] for row in table if row["experiment"] == name.strip("`")]
        assert published == (f"{100 * float(told[0]):.2f} %" if told[0] else ""), name


def test_readme_says_how_long_an_epoch_took_on_the_cpu_and_how_other_seeds_ended():
    fp32 = {}
    for run in RUNS:
        if run["precision"] == "fp32" and run["device"] != GPU:
            fp32.setdefault(run["experiment"], []).append(float(run["seconds_per_epoch"]))
    medians = sorted(statistics.median(seconds) for seconds in fp32.values())
    text = " ".join((REPOSITORY / "results" / "README.md").read_text().split())
    assert f"{medians[0]:.0f} s to {medians[-1] / 60:.0f} min in fp32" in text
    seeds = [float(gpu_run("vgg16", seed)["test_accuracy"]) for seed in VGG16_SEEDS]
    assert f"`vgg16`'s next three seeds ended at {listed(seeds[1:])}" in text


# --- vgg16's finding --------------------------------------------------------------------------


def interval(values):
    """The 95 % prediction interval of four values, by Student's formula."""
    mean = sum(values) / 4
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / 3)
    reach = T3 * deviation * math.sqrt(1 + 1 / 4)
    return mean - reach, mean + reach


@pytest.mark.parametrize(
    ("figure", "published"),
    [
        ("test_accuracy", 0.9921),
        ("val_binary_accuracy", 0.9979),
        ("val_loss", 0.0329),
        ("train_binary_accuracy", 0.9990),
        ("train_loss", 0.0123),
    ],
)
def test_vgg16s_intervals_are_students(figure, published):
    low, high = interval([float(gpu_run("vgg16", seed)[figure]) for seed in VGG16_SEEDS])
    (row,) = (
        row
        for row in read_csv(RESULTS / "reproduction.csv")
        if (row["experiment"], row["figure"]) == ("vgg16", figure)
    )
    assert (row["n"], row["precisions"], row["devices"]) == ("4", "bf16", GPU)
    assert float(row["published"]) == published
    assert float(row["prediction_low"]) == pytest.approx(low, abs=2e-6)
    assert float(row["prediction_high"]) == pytest.approx(high, abs=2e-6)
    assert row["inside"] == "yes" and low < published < high


def test_what_is_said_of_vgg16s_four_runs():
    tests = [float(gpu_run("vgg16", seed)["test_accuracy"]) for seed in VGG16_SEEDS]
    low, high = interval(tests)
    pairs = {
        "val_binary_accuracy": "val_accuracy",
        "train_binary_accuracy": "train_accuracy",
        **{loss: loss for loss in ("val_loss", "train_loss")},
    }
    inside = 0
    for ours, theirs in pairs.items():
        for values, published in zip(vgg16_curves(ours).T, vgg16_log(theirs), strict=True):
            low_then, high_then = interval(values)
            inside += low_then <= published <= high_then
    said(
        f"test accuracies of {listed(tests)}; 99.21 % was published",
        f"the interval of the test accuracy, {100 * low:.2f} to {100 * high:.2f} %",
        f"Of the 200 published values of accuracy and loss, training and validation, {inside} lie",
    )
    ours, log = 100 * vgg16_curves("val_binary_accuracy"), 100 * vgg16_log("val_accuracy")
    medians = np.median(ours[:, 20:], axis=1)
    said(
        f"it falls by {-np.diff(log).min():.2f} points into the {np.diff(log).argmin() + 2}th, to "
        f"{log.min():.2f} %",
        f"ours by up to {-np.diff(ours, axis=1).min():.2f}, to {ours[:, 20:].min():.2f} % at the",
        f"the median is {medians.min():.2f} to {medians.max():.2f} % in each of our runs and "
        f"{np.median(log[20:]):.3f} % as published",
    )
    loss, published = vgg16_curves("train_loss").mean(0), vgg16_log("train_loss")
    highest = vgg16_curves("train_loss")[:, 5:]
    said(
        f"in the {highest[0].argmax() + 6}th of seed 0's new run the training loss is "
        f"{highest[0].max():.2f}, and {highest[0, highest[0].argmax() + 1]:.3f} in the next; the "
        f"largest of the other three runs from the sixth epoch on is {highest[1:].max():.3f}",
        f"lowest early, at {loss.min():.4f} after epoch {loss.argmin() + 1} in the mean of ours "
        f"and {published.min():.4f} after epoch {published.argmin() + 1} as published, and more "
        f"than three times as high in the last ten epochs ({loss[-10:].mean():.4f} and "
        f"{published[-10:].mean():.4f})",
    )
    assert min(loss[-10:].mean() / loss.min(), published[-10:].mean() / published.min()) > 3


def test_what_is_said_of_vgg16s_two_accuracies():
    curves = {
        f"{part}_{kind}": vgg16_curves(f"{part}_{kind}")
        for part in ("val", "train")
        for kind in ("binary_accuracy", "accuracy")
    }
    distances = {
        name: 100 * np.abs(ours.mean(0) - vgg16_log(f"{name.split('_')[0]}_accuracy")).mean()
        for name, ours in curves.items()
    }
    said(
        f"After the last epoch {listed(curves['val_binary_accuracy'][:, -1])} of the ten outputs",
        f"Of the images {listed(curves['val_accuracy'][:, -1])} are classified rightly, and after "
        f"none of the 200 epochs more than {100 * curves['val_accuracy'].max():.2f} %",
        f"`val_acc` is {distances['val_binary_accuracy']:.2f} points away from the mean of the "
        f"former on average, and {distances['val_accuracy']:.2f} from that of the latter",
        f"99.90 % at the end, it is {distances['train_binary_accuracy']:.2f} and "
        f"{distances['train_accuracy']:.2f} (ours: "
        f"{listed(curves['train_binary_accuracy'][:, -1])} of the outputs)",
    )
    assert curves["val_accuracy"].size == 200


# --- The other sentences about the GPU --------------------------------------------------------


def test_what_is_said_of_the_other_networks_on_the_gpu():
    conv3, loss = (
        np.array([gpu_curve("conv3_dense7744", column, seed) for seed in "01"])
        for column in ("val_accuracy", "train_loss")
    )
    conv3 = 100 * conv3
    model2, model3 = (
        [100 * float(gpu_run(name, seed)["test_accuracy"]) for seed in "012"]
        for name in ("wide3x5_bn", "wide5x7_bn")
    )
    said(
        f"seeds 0 and 1 at {conv3[0, -1]:.2f} and {conv3[1, -1]:.2f} %",
        f"on the H200 {np.ptp(conv3[0]):.2f} and {np.ptp(conv3[1]):.2f}.",
        f"{loss[0, 0]:.3f} and {loss[1, 0]:.3f} on the H200 and 0.210 there",
        f"(0.042, {loss[0, 1]:.3f}, {loss[1, 1]:.3f} and 0.041)",
        f"{model2[1]:.2f} and {model2[2]:.2f} % on the H200",
        f"seed 0 ended at {model3[0]:.2f} %, seeds 1 and 2 at {model3[1]:.2f} and {model3[2]:.2f}",
    )


def test_what_is_said_of_one_seed_on_two_machines():
    page = " ".join((REPOSITORY / "docs" / "reproduction.md").read_text().split())
    passage = page[page.index("**Nor does a GPU**") :]
    common = []
    for name in ("mnist_cnn", "cnn3x3", "cnn5x5", "cnn5x5_single"):
        cpu, gpu = (
            {
                row["image"]
                for row in ERRORS
                if key_of(row)[:3] == (name, "0", "bf16") and (row["device"] == GPU) == on_gpu
            }
            for on_gpu in (False, True)
        )
        assert re.search(
            rf"`{name}` (made )?{len(cpu)} (errors on the CPU )?and {len(gpu)}\b", passage
        )
        common.append(len(cpu & gpu))
    assert f"{min(common)} to {max(common)} of the errors are of the same images" in passage


def test_what_is_said_of_the_pairs_on_two_machines():
    accuracy = {
        key_of(run): 100 * float(run["test_accuracy"]) for run in RUNS if run["test_accuracy"]
    }
    pairs = [(key, (*key[:3], GPU)) for key in accuracy if key[3] != GPU]
    changes = [accuracy[gpu] - accuracy[cpu] for cpu, gpu in pairs if gpu in accuracy]
    said(
        f"as far as {len(changes)} pairs can tell",
        f"is lower by {-statistics.mean(changes):.2f} points in their mean",
    )


def test_the_count_of_figures_inside_their_intervals_is_the_tables():
    inside = [row["inside"] for row in read_csv(RESULTS / "reproduction.csv")]
    yes, no = inside.count("yes"), inside.count("no")
    said(f"{yes} of the {yes + no} published figures that have a prediction interval lie inside it")
