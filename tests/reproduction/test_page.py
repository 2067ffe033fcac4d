"""The figures that docs/reproduction.md and docs/notebooks.md state, recomputed from the rows.

By NumPy, SciPy and statsmodels from the CSV files alone: none of the code that wrote the report.
"""

import doctest

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from tests.support.committed import (
    CPU,
    PAGE,
    RESULTS,
    counted,
    curves,
    last,
    listed,
    log,
    mean_interval,
    prediction_interval,
    read_csv,
    said,
    signed,
    unsigned,
)
from tests.support.train_command import REPOSITORY

NOTEBOOKS = REPOSITORY / "docs" / "notebooks.md"


def test_the_lines_of_python_on_the_page_print_what_stands_beneath_them(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    found = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert found.failed == 0 and found.attempted > 10


# --- The published figures --------------------------------------------------------------------


def test_every_figures_interval_is_students():
    for row in read_csv(RESULTS / "reproduction.csv"):
        if not row["source"]:
            continue
        precision, device, seeds = counted(row["experiment"])
        assert (row["precision"], row["device"], row["n"]) == (precision, device, str(len(seeds)))
        low, high = prediction_interval(last(row["experiment"], row["figure"]))
        assert float(row["prediction_low"]) == pytest.approx(low, abs=2e-6)
        assert float(row["prediction_high"]) == pytest.approx(high, abs=2e-6)
        assert (row["inside"] == "yes") == (low <= float(row["published"]) <= high)


def test_what_is_said_of_all_figures_is_the_tables():
    inside = [row["inside"] for row in read_csv(RESULTS / "reproduction.csv") if row["source"]]
    assert inside == ["yes"] * 36
    names = ["mnist_cnn", "cnn3x3", "cnn5x5_single", "wide3x3", "wide3x5_bn", "wide5x7_bn"]
    reach = {}
    for name in (*names, "conv3_dense7744"):
        low, high = prediction_interval(last(name))
        reach[name] = 100 * (high - low) / 2
    least, most = min(reach, key=reach.__getitem__), max(reach, key=reach.__getitem__)
    low, high = prediction_interval(last("mnist_cnn"))
    said(
        PAGE,
        "**All 36 published figures of the end of a training lie inside their prediction",
        f"reaches from {reach[least]:.2f} points on either side of our mean (`{least}`) to "
        f"{reach[most]:.2f} (`{most}`)",
        f"near the lower end of {100 * low:.2f} to {100 * high:.2f} %",
    )


def test_how_many_figures_a_wrong_experiment_holds_too():
    figures = {}
    for row in read_csv(RESULTS / "reproduction.csv"):
        if row["source"] and row["experiment"] != "vgg16":
            figures.setdefault(row["experiment"], []).append(
                (row["figure"], float(row["published"]))
            )

    def holds(other, name):
        ends = [(*prediction_interval(last(other, column)), v) for column, v in figures[name]]
        return all(low <= value <= high for low, high, value in ends)

    names = [*figures, "cnn5x5"]
    held = [name for name in figures if any(holds(other, name) for other in {*names} - {name})]
    assert (len(held), len(figures)) == (4, 7)
    said(
        PAGE, "the figures of four of seven experiments all lie inside the intervals of a wrong one"
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
    for name, own, other, inside in told:
        rows = {row["experiment"]: row for row in counts if row["log"] == name}
        mine = rows.pop(name)
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
        PAGE,
        f"{total} of {values} values lie inside their own, {values - total} outside",
        f"which chance would put there, is {values / 20:.0f}",
        "79 lie in the intervals of one convolution with dropout, 34 in those of one without, 1 in",
    )
    held = {row["experiment"]: row["inside"] for row in counts if row["log"] == "cnn5x5_single"}
    assert [held[n] for n in ("cnn5x5_single", "cnn5x5_single_no_dropout", "cnn5x5")] == [
        *("79", "34", "1")
    ]


@pytest.mark.parametrize("name", ["mnist_cnn", "cnn3x3", "wide3x5_bn", "conv3_dense7744"])
def test_the_counts_are_those_of_students_intervals(name):
    inside = 0
    for column in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
        for ours, published in zip(curves(name, column).T, log(name, column), strict=True):
            low, high = prediction_interval(ours)
            inside += low <= published <= high
    (row,) = (
        row
        for row in read_csv(RESULTS / "reproduction" / "agreement.csv")
        if row["log"] == row["experiment"] == name
    )
    assert int(row["inside"]) == inside


def test_what_is_said_of_conv3_dense7744():
    ours, published = (
        curves("conv3_dense7744", "val_accuracy"),
        log("conv3_dense7744", "val_accuracy"),
    )
    ranges = 100 * np.ptp(ours, axis=1)
    outside = [
        (row["figure"], row["epoch"])
        for row in read_csv(RESULTS / "reproduction" / "intervals.csv")
        if row["experiment"] == "conv3_dense7744" and row["place"] != "inside"
    ]
    assert sorted(outside) == [("train_accuracy", "1"), ("train_loss", "1"), ("train_loss", "3")]
    said(
        PAGE,
        f"published accuracies lie within {100 * np.ptp(published):.2f} points, those of our runs "
        f"within {ranges.min():.2f} to {ranges.max():.2f}",
    )
    ends = [100 * value for value in last("conv3_dense7744")]
    said(
        NOTEBOOKS,
        f"{100 * published.min():.2f} to {100 * published.max():.2f} % as published, and further "
        f"in our runs, which ended between {min(ends):.2f} and {max(ends):.2f} %",
    )


def test_what_is_said_of_mnist_cnns_last_epochs():
    published = 100 * log("mnist_cnn", "val_accuracy")
    falls = -np.diff(100 * curves("mnist_cnn", "val_accuracy")[:, -5:]).min(1)
    low, high = (100 * end for end in prediction_interval(last("mnist_cnn")[:4]))
    assert low > 98.99
    said(
        PAGE,
        f"by {published[-2] - published[-1]:.2f} points from {published[-2]:.2f} %. So may ours: "
        f"seed 4's last five epochs go up and down by up to {falls[4]:.2f} points, the others' "
        f"fall by {falls[:4].max():.2f} at most",
        f"without seed 4 the interval is {low:.2f} to {high:.2f} %",
    )


def test_what_is_said_of_vgg16s_four_runs():
    tests = last("vgg16")
    low, high = prediction_interval(tests)
    pairs = {
        "val_binary_accuracy": "val_accuracy",
        "train_binary_accuracy": "train_accuracy",
        **{loss: loss for loss in ("val_loss", "train_loss")},
    }
    inside, below = 0, []
    for ours, theirs in pairs.items():
        figures = curves("vgg16", ours)
        for epoch, published in enumerate(log("vgg16", theirs)):
            low_then, high_then = prediction_interval(figures[:, epoch])
            inside += low_then <= published <= high_then
            if ours == "val_binary_accuracy" and published < low_then:
                below.append(epoch + 1)
    said(
        PAGE,
        f"test accuracies of {listed(tests)}; 99.21 % was published",
        f"the interval of the test accuracy, {100 * low:.2f} to {100 * high:.2f} %",
        f"{inside} of 200 values lie inside. Four whole runs on the H200",
        f"below our intervals are its {below[0]}th, {below[1]}th and {below[2]}th",
    )
    loss, published = curves("vgg16", "train_loss").mean(0), log("vgg16", "train_loss")
    assert min(loss[-10:].mean() / loss.min(), published[-10:].mean() / published.min()) > 3
    said(PAGE, "more than three times as high in the last ten epochs")


# --- What the notebooks misread ---------------------------------------------------------------


def test_what_is_said_of_vgg16s_two_accuracies():
    ours = {
        f"{part}_{kind}": curves("vgg16", f"{part}_{kind}")
        for part in ("val", "train")
        for kind in ("binary_accuracy", "accuracy")
    }
    distances = {
        name: 100 * np.abs(each.mean(0) - log("vgg16", f"{name.split('_')[0]}_accuracy")).mean()
        for name, each in ours.items()
    }
    said(
        PAGE,
        f"After the last epoch {listed(ours['val_binary_accuracy'][:, -1])} of the ten outputs",
        f"Of the images {listed(ours['val_accuracy'][:, -1])} are classified rightly",
        f"`val_acc` is {distances['val_binary_accuracy']:.2f} points away from the mean of the "
        f"former on average, and {distances['val_accuracy']:.2f} from that of the latter",
        f"99.90 % at the end, it is {distances['train_binary_accuracy']:.2f} and "
        f"{distances['train_accuracy']:.2f}. That Keras",
    )
    binary = 100 * ours["val_binary_accuracy"][:, -1]
    said(
        NOTEBOOKS,
        f"{listed(ours['val_accuracy'][:, -1])} of the validation images were classified rightly",
        f"where that share was {binary.min():.2f} to {binary.max():.2f} %",
    )


def test_what_is_said_of_the_log_headed_without_dropout():
    published = {loss: log("cnn5x5_single", loss) for loss in ("train_loss", "val_loss")}
    names = ("cnn5x5_single", "cnn5x5_single_no_dropout", "cnn5x5_no_dropout")
    train = {name: curves(name, "train_loss").mean(0) for name in names}
    above = {name: train[name] > curves(name, "val_loss").mean(0) for name in names}
    assert (published["train_loss"] > published["val_loss"]).all()
    assert [(over.sum(), over[: over.sum()].all()) for over in above.values()] == [
        *((20, True), (4, True), (3, True))
    ]
    distance = np.abs(train["cnn5x5_single"] - published["train_loss"]).mean()
    said(
        PAGE,
        "above its validation loss for all 20 epochs, and so does the mean of our five runs",
        f"at an average distance of {distance:.4f} from the log",
        "for the first four epochs only, and two without dropout for three",
        f"{train['cnn5x5_single_no_dropout'][-1]:.4f} and {train['cnn5x5_no_dropout'][-1]:.4f}, "
        f"where the log has {published['train_loss'][-1]}",
    )


# --- Comparisons ------------------------------------------------------------------------------

ASKED = [
    ("cnn5x5", "cnn3x3"),
    ("cnn5x5_single", "cnn3x3"),
    ("wide5x7_bn", "wide3x3"),
    ("wide3x5_bn", "wide3x3"),
    ("cnn5x5_single", "cnn5x5_single_no_dropout"),
    ("cnn3x3", "cnn3x3_no_dropout"),
]


def test_the_answers_to_the_questions_are_those_of_welch_and_holm():
    tests = [stats.ttest_ind(last(a), last(b), equal_var=False) for a, b in ASKED]
    _, adjusted, *_ = multipletests([test.pvalue for test in tests], method="holm")
    means = [100 * (np.mean(last(a)) - np.mean(last(b))) for a, b in ASKED]
    rows = []
    for mean, test, p in zip(means, tests, adjusted, strict=True):
        between = test.confidence_interval()
        low, high = unsigned(100 * between.low), unsigned(100 * between.high)
        answer = "yes" if p < 0.05 else "not shown"
        rows.append([signed(mean), f"{low} to {high}", f"{p:.4f}", answer])
    lines = PAGE.read_text().splitlines()
    start = lines.index(next(line for line in lines if line.startswith("| question |")))
    told = [
        [cell.strip() for cell in line.strip("|").split("|")][1:]
        for line in lines[start + 2 : start + 8]
    ]
    assert told == rows
    assert [row[-1] for row in rows].count("yes") == 3
    low, high = (unsigned(100 * -end) for end in tests[1].confidence_interval())
    said(
        PAGE,
        "Three of the six are answered",
        f"ours are {-means[1]:.2f} points apart ({high} to {low}, adjusted p = {adjusted[1]:.4f})",
        f"miss the line by a hair, with {adjusted[3]:.4f} and {adjusted[5]:.4f}",
    )
    said(
        NOTEBOOKS,
        f"5×5 is better than 3×3, by {means[0]:.2f} points over five seeds",
        f"better than Model 1, by {means[2]:.2f} points over five seeds",
        f"that Model 2 is, by {means[3]:.2f}, misses the line",
    )


def test_what_is_said_of_the_published_differences():
    end = {
        name: 100 * log(name, "val_accuracy")[-1]
        for name in ("cnn3x3", "cnn5x5_single", "wide3x3", "wide5x7_bn")
    }
    said(PAGE, f"The second was {end['cnn3x3'] - end['cnn5x5_single']:.2f} points better")
    said(PAGE, f"by {end['wide5x7_bn'] - end['wide3x3']:.2f} points there")
    said(NOTEBOOKS, f"where its runs were {end['wide5x7_bn'] - end['wide3x3']:.2f} apart")


def test_what_is_said_of_bf16_are_the_paired_differences():
    clear, told = [], []  # whose interval leaves out zero; what is said of accuracies
    for name in ("wide3x3", "wide3x5_bn", "wide5x7_bn"):
        for figure in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
            bf16, fp32 = last(name, figure, precision="bf16"), last(name, figure)
            changes = np.subtract(bf16, fp32)
            low, high = mean_interval(changes)
            if low > 0 or high < 0:
                clear.append((name, figure, changes.mean(), low, high))
            if figure == "test_accuracy":
                mean, *ends = (signed(100 * value) for value in (changes.mean(), low, high))
                told.append(f"`{name}` {mean}{' points' * (not told)} ({' to '.join(ends)})")
    ((name, figure, mean, low, high),) = clear
    said(
        PAGE,
        ", ".join(told),
        f"`{name}`'s {figure.replace('_', ' ')} is higher by {mean:.4f} ({low:.4f} to {high:.4f})",
    )


def test_what_is_said_of_two_machines_is_welchs_test():
    here, there = last("cnn5x5_single"), last("cnn5x5_single", device=CPU)
    test = stats.ttest_ind(here, there, equal_var=False)
    low, high = (signed(100 * end) for end in test.confidence_interval())
    mean = signed(100 * (np.mean(here) - np.mean(there)))
    said(PAGE, f"differs by {mean} points ({low} to {high}, Welch's p = {test.pvalue:.2f}) between")
    there = [float(row["test_accuracy"]) for row in read_csv(RESULTS / "default_on_a_cpu.csv")]
    here = [
        float(row["test_accuracy"])
        for row in read_csv(RESULTS / "networks.csv")
        if row["model"] == "mnist_cnn"
    ]
    test = stats.ttest_ind(here, there, equal_var=False)
    low, high = (signed(100 * end) for end in test.confidence_interval())
    said(
        PAGE,
        f"[differs by {signed(100 * (np.mean(here) - np.mean(there)))}]",
        f"({low} to {high}, p = {test.pvalue:.2f})",
    )
