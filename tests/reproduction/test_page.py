"""The figures that docs/reproduction.md states, recomputed from the committed rows.

By NumPy, SciPy and statsmodels from the CSV files alone: none of the code that wrote the report.
"""

import doctest
import statistics

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from tests.support.committed import (
    CPU,
    CURVES,
    GPU,
    PAGE,
    PUBLISHED_CURVES,
    RESULTS,
    RUNS,
    VGG16_SEEDS,
    gpu_curve,
    gpu_run,
    interval,
    key_of,
    listed,
    read_csv,
)
from tests.support.train_command import REPOSITORY


def said(*parts):
    """Fail unless the page has the words, wherever its lines break."""
    page = " ".join(PAGE.read_text().split())
    absent = [part for part in parts if part not in page]
    assert not absent, absent


def vgg16_curves(column):
    """The four runs' figure after each epoch: 4 x 50."""
    return np.array([gpu_curve("vgg16", column, seed) for seed in VGG16_SEEDS])


def vgg16_log(column):
    rows = read_csv(PUBLISHED_CURVES)
    return np.array([float(row[column]) for row in rows if row["experiment"] == "vgg16"])


# --- vgg16's finding --------------------------------------------------------------------------


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
    inside, below = 0, []
    for ours, theirs in pairs.items():
        for epoch, published in enumerate(vgg16_log(theirs)):
            low_then, high_then = interval(vgg16_curves(ours)[:, epoch])
            inside += low_then <= published <= high_then
            if ours == "val_binary_accuracy" and published < low_then:
                below.append(epoch + 1)
    said(
        f"test accuracies of {listed(tests)}; 99.21 % was published",
        f"the interval of the test accuracy, {100 * low:.2f} to {100 * high:.2f} %",
        f"{inside} of 200 values lie inside. Four whole runs on the H200",
        f"below our intervals are its {below[0]}th, {below[1]}th and {below[2]}th",
    )
    loss, published = vgg16_curves("train_loss").mean(0), vgg16_log("train_loss")
    assert min(loss[-10:].mean() / loss.min(), published[-10:].mean() / published.min()) > 3
    said("more than three times as high in the last ten epochs")


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
        f"Of the images {listed(curves['val_accuracy'][:, -1])} are classified rightly",
        f"`val_acc` is {distances['val_binary_accuracy']:.2f} points away from the mean of the "
        f"former on average, and {distances['val_accuracy']:.2f} from that of the latter",
        f"99.90 % at the end, it is {distances['train_binary_accuracy']:.2f} and "
        f"{distances['train_accuracy']:.2f}. That Keras",
    )


# --- The other sentences ----------------------------------------------------------------------


def test_the_lines_of_python_on_the_page_print_what_stands_beneath_them(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    found = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert found.failed == 0 and found.attempted > 10


def test_what_is_said_of_conv3_dense7744():
    ranges = {}
    for run in RUNS:
        if run["experiment"] == "conv3_dense7744":
            values = [float(r["val_accuracy"]) for r in CURVES if key_of(r) == key_of(run)]
            ranges[run["device"] == GPU, run["seed"]] = 100 * (max(values) - min(values))
    log = [
        100 * float(row["val_accuracy"])
        for row in read_csv(PUBLISHED_CURVES)
        if row["experiment"] == "conv3_dense7744"
    ]
    said(
        f"five accuracies lie within {max(log) - min(log):.2f} points, ours on the H200 within "
        f"{ranges[True, '0']:.2f} and {ranges[True, '1']:.2f}, and on the CPU within "
        f"{ranges[False, '0']:.2f}",
    )


def test_the_pages_table_of_logs_is_that_of_the_counts():
    counts = read_csv(RESULTS / "reproduction" / "agreement.csv")
    lines = PAGE.read_text().splitlines()
    start = lines.index(next(line for line in lines if line.startswith("| log |")))
    told = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in lines[start + 2 : lines.index("", start)]
    ]
    total = values = 0
    for log, own, other, inside in told:
        rows = {row["experiment"]: row for row in counts if row["log"] == log}
        mine = rows.pop(log)
        total, values = total + int(mine["inside"]), values + int(mine["values"])
        assert own == f"{mine['inside']} of {mine['values']}"
        best = max(rows.values(), key=lambda row: int(row["inside"]), default=None)
        expected = (
            [best["experiment"], f"{best['inside']} of {best['values']}"] if best else ["", ""]
        )
        assert [other, inside] == expected
        # "Its own experiment's intervals hold more values than any other's."
        assert best is None or int(best["inside"]) < int(mine["inside"])
    assert [row[0] for row in told] == [r["log"] for r in counts if r["log"] == r["experiment"]]
    said(
        f"{total} of {values} values lie inside their own, {values - total} outside",
        "79 lie in the intervals of one convolution with dropout, 31 in those of one without, 2 in",
    )


def accuracies(experiment, precision, device):
    return [
        float(run["test_accuracy"])
        for run in RUNS
        if (run["experiment"], run["precision"], run["device"]) == (experiment, precision, device)
    ]


def test_the_answers_to_the_questions_are_those_of_welch_and_holm():
    asked = [
        ("cnn5x5", "cnn3x3", CPU),
        ("cnn3x3", "cnn5x5_single", CPU),
        ("wide5x7_bn", "wide3x3", CPU),
        ("wide3x5_bn", "wide3x3", GPU),
        ("cnn5x5_single", "cnn5x5_single_no_dropout", CPU),
    ]
    tests, means = [], []
    for first, second, device in asked:
        sides = accuracies(first, "bf16", device), accuracies(second, "bf16", device)
        tests.append(stats.ttest_ind(*sides, equal_var=False))
        means.append(100 * (statistics.mean(sides[0]) - statistics.mean(sides[1])))
    _, adjusted, *_ = multipletests([*(test.pvalue for test in tests), 1], method="holm")
    assert [p < 0.05 for p in adjusted] == [True, True, False, False, False, False]
    answers = [
        f"{mean:.2f}|{_signed(100 * test.confidence_interval().low)} to "
        f"{_signed(100 * test.confidence_interval().high)}|{p:.4f}"
        for mean, test, p in zip(means, tests, adjusted[:5], strict=True)
    ]
    five, single, model3, model2, dropout = (answer.split("|") for answer in answers)
    said(
        f"by {five[0]} points over five seeds each ({five[1]}, adjusted p = {five[2]})",
        f"{single[0]} points better over five seeds each ({single[1]}, adjusted p = {single[2]})",
        f"ours are {model3[0]} points apart ({model3[1]}, adjusted p = {model3[2]}) and "
        f"{model2[0]} ({model2[1]}, {model2[2]})",
        f"is {dropout[0]} points higher ({dropout[1]}, adjusted p = {dropout[2]})",
    )


def _signed(value):
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def test_what_is_said_of_the_last_epochs_of_mnist_cnn():
    runs = {}
    for row in CURVES:
        if row["experiment"] == "mnist_cnn" and row["precision"] == "bf16" and row["device"] != GPU:
            runs.setdefault(row["seed"], []).append(100 * float(row["val_accuracy"]))
    last = np.array([accuracy[-5:] for accuracy in runs.values()])
    before, end = min(last[:, -2:].tolist(), key=lambda ends: ends[1])
    said(
        f"in the last five epochs of five runs in bf16 the accuracy is {last.mean():.2f} % on "
        f"average with a standard deviation of {last.std(ddof=1):.2f} points, {last.min():.2f} % "
        f"at the lowest, and falls by up to {-np.diff(last, axis=1).min():.2f} points from one",
        f"one of them ended at is {end:.2f} %, after a fall of {before - end:.2f} points, too",
    )


def test_what_is_said_of_the_pairs_on_two_machines():
    accuracy = {
        key_of(run): 100 * float(run["test_accuracy"]) for run in RUNS if run["test_accuracy"]
    }
    pairs = [(key, (*key[:3], GPU)) for key in accuracy if key[3] != GPU]
    changes = [accuracy[gpu] - accuracy[cpu] for cpu, gpu in pairs if gpu in accuracy]
    between = stats.t.interval(0.95, len(changes) - 1, statistics.mean(changes), stats.sem(changes))
    said(
        f"over {len(changes)} pairs of the same network and seed in bf16",
        f"is lower by {-statistics.mean(changes):.2f} points in their mean "
        f"({_signed(between[0])} to +{between[1]:.2f})",
    )


def test_what_is_said_of_bf16_is_the_paired_difference():
    told = []
    for figure, digits, scale in (("test_accuracy", 2, 100), ("train_loss", 4, 1)):
        found = {key_of(run): float(run[figure]) for run in RUNS if run[figure]}
        changes = [
            scale * (found["cnn5x5_single", seed, "bf16", CPU] - found[key])
            for seed in "01234"
            if (key := ("cnn5x5_single", seed, "fp32", CPU)) in found
        ]
        between = stats.t.interval(0.95, 4, statistics.mean(changes), stats.sem(changes))
        values = (statistics.mean(changes), *between)
        told.append([f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}") for value in values])
    (accuracy, *ends), (loss, *loss_ends) = told
    said(
        f"test accuracy differs by {accuracy} points ({ends[0]} to {ends[1]}), training loss by "
        f"{loss} ({loss_ends[0]} to {loss_ends[1]})"
    )


def test_the_count_of_figures_inside_their_intervals_is_the_tables():
    rows = read_csv(RESULTS / "reproduction.csv")
    inside = [row["inside"] for row in rows]
    yes, no = inside.count("yes"), inside.count("no")
    ends = [
        100 * float(row["prediction_high"])
        for name in ("conv3_dense7744", "wide3x5_bn")
        for row in rows
        if (row["experiment"], row["figure"], row["published"]) in (
            (name, "val_accuracy", "0.9888"), (name, "val_accuracy", "0.9931"))
    ]  # fmt: skip
    said(
        f"{yes} of the {yes + no} published figures of last epochs lie inside their prediction",
        f"test accuracies reach to {ends[0]:.2f} and {ends[1]:.2f} %",
    )


def test_what_is_said_of_the_log_headed_without_dropout():
    log = {
        loss: np.array(
            [
                float(row[loss])
                for row in read_csv(PUBLISHED_CURVES)
                if row["experiment"] == "cnn5x5_single"
            ]
        )
        for loss in ("train_loss", "val_loss")
    }
    above, ends = {}, {}
    for name, precision in (
        ("cnn5x5_single", "fp32"),
        ("cnn5x5_single_no_dropout", "bf16"),
        ("cnn5x5_no_dropout", "bf16"),
    ):
        train, val = (
            np.array(
                [
                    float(row[loss])
                    for row in CURVES
                    if key_of(row)[0::2] == (name, precision) and row["device"] == CPU
                ]
            ).reshape(-1, 20)
            for loss in ("train_loss", "val_loss")
        )
        above[name], ends[name] = (train.mean(0) > val.mean(0)).sum(), train.mean(0)[-1]
        if name == "cnn5x5_single":
            assert len(train) == 10
            distance = np.abs(train.mean(0) - log["train_loss"]).mean()
    assert (log["train_loss"] > log["val_loss"]).all()
    assert list(above.values()) == [20, 4, 3]
    said(
        "above its validation loss for all 20 epochs",
        f"at an average distance of {distance:.4f} from the log",
        "for the first four epochs only (five runs), and two without dropout for three (one run)",
        f"{ends['cnn5x5_single_no_dropout']:.4f} and {ends['cnn5x5_no_dropout']:.4f}, where the "
        f"log has {log['train_loss'][-1]}",
    )


def test_the_epochs_of_cnn3x3s_log_that_lie_outside_are_counted():
    outside = [
        int(row["epoch"])
        for row in read_csv(RESULTS / "reproduction" / "intervals.csv")
        if row["experiment"] == "cnn3x3" and row["place"] != "inside"
    ]
    assert sorted(outside) == [1, 1, 2, 2, 4, 8, 20]
    said("five of the seven others are of the first four epochs, one is of the eighth and one of")
