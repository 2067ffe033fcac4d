"""How published logs are held against intervals, epoch by epoch: SciPy and loops count again."""

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from mnist_bench.reproduction.intervals import ABOVE, BELOW, INSIDE, NO_INTERVAL
from mnist_bench.reproduction.published import CURVES as PUBLISHED_CURVES
from tests.support.made_up_evidence import Evidence, published_column, read_csv, row_of, rows_of

FIGURES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


@pytest.fixture
def evidence(tmp_path, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)  # the text is what counts here
    return Evidence(tmp_path)


def log_of(experiment):
    return np.array([published_column(experiment, figure) for figure in FIGURES])


def add(evidence, experiment, curves, **how):
    """Add a run for each of runs x figures x epochs; returns the curves."""
    columns = [
        figure.replace("accuracy", "binary_accuracy") if experiment == "vgg16" else figure
        for figure in FIGURES
    ]
    for seed, figures in enumerate(curves):
        curve = [dict(zip(columns, epoch, strict=True)) for epoch in figures.T]
        evidence.add(experiment, seed, {}, curve=curve, **how)
    return curves


def scattered(experiment, runs, scale, apart=0.0, seed=0):
    """Runs that scatter about curves `apart` from a published log: runs x 4 x epochs."""
    log, generator = log_of(experiment), np.random.default_rng(seed)
    curve = log + apart * generator.standard_normal(log.shape)
    return (curve + scale * generator.standard_normal((runs, *log.shape))).round(5)


def places(curves, log):
    """Where each value of the log lies: SciPy's t, a loop, and no code of the report's."""
    found = np.empty(log.shape, object)
    for index in np.ndindex(*log.shape):
        ours = [run[index] for run in curves]
        reach = stats.t.ppf(0.975, len(ours) - 1) * np.std(ours, ddof=1)
        reach *= np.sqrt(1 + 1 / len(ours))
        distance = log[index] - np.mean(ours)
        found[index] = INSIDE if abs(distance) <= reach else BELOW if distance < 0 else ABOVE
    return found


def section(text):
    return text.split("## Every published log, epoch by epoch")[1].split("## The last epochs")[0]


def test_a_log_is_counted_in_its_own_intervals_and_in_each_wrong_ones(evidence, tmp_path):
    log = log_of("cnn3x3")
    own = add(evidence, "cnn3x3", scattered("cnn3x3", 5, 0.0004, apart=0.0008, seed=1))
    near = add(evidence, "cnn5x5", scattered("cnn3x3", 3, 0.001, apart=0.004, seed=2))
    far = add(evidence, "cnn5x5_single", scattered("cnn3x3", 5, 0.0004, apart=0.004, seed=3))
    _, text = evidence.report(tmp_path)
    counts = {
        name: int((places(curves, log) == INSIDE).sum())
        for name, curves in (("cnn3x3", own), ("cnn5x5", near), ("cnn5x5_single", far))
    }
    assert 80 > counts["cnn3x3"] > counts["cnn5x5"] > counts["cnn5x5_single"]
    told, rest = section(text).split("Every log (a column")
    matrix = rest.split("Which values lie outside")[0]
    assert row_of(told, "cnn3x3")[1:] == [
        *("fp32", "machine A", "5", f"{counts['cnn3x3']} of 80"),
        *("cnn5x5", "3", f"{counts['cnn5x5']} of 80"),
    ]
    (header,) = rows_of(matrix, "our experiment")
    column = header.index("cnn3x3 (80)")
    cells = {row[0]: row[column] for row in rows_of(matrix) if row[0] in counts}
    expected = {name: str(count) for name, count in counts.items()}
    assert cells == {**expected, "cnn3x3": f"**{counts['cnn3x3']}**"}
    table = {row["experiment"]: row for row in read_csv(tmp_path / "reproduction/agreement.csv")
             if row["log"] == "cnn3x3"}  # fmt: skip
    assert list(table) == ["cnn3x3", "cnn5x5", "cnn5x5_single"]  # its own first
    assert {name: int(row["inside"]) for name, row in table.items()} == counts
    for row in table.values():
        assert sum(int(row[figure]) for figure in FIGURES) == int(row["inside"])


def test_the_epochs_outside_are_named_by_figure(evidence, tmp_path):
    curves = add(evidence, "cnn3x3", scattered("cnn3x3", 5, 0.0004, apart=0.0008, seed=1))
    _, text = evidence.report(tmp_path)
    found = places(curves, log_of("cnn3x3"))
    outside = section(text).split("Which values lie outside")[1]
    for figure, row in zip(FIGURES, found, strict=True):
        cells = row_of(outside, "cnn3x3", figure.replace("_", " "))[2:]
        epochs = [
            ", ".join(str(epoch) for epoch, where in enumerate(row, 1) if where == side) or "-"
            for side in (BELOW, ABOVE)
        ]
        assert cells == [f"{(row == INSIDE).sum()} of 20", *epochs]
    assert (found == BELOW).any() and (found == ABOVE).any()


def test_every_interval_can_be_computed_again_from_its_file(evidence, tmp_path):
    curves = add(evidence, "cnn3x3", scattered("cnn3x3", 3, 0.0004))
    evidence.report(tmp_path)
    rows = read_csv(tmp_path / "reproduction" / "intervals.csv")
    assert len(rows) == 4 * 20
    log, found = log_of("cnn3x3"), places(curves, log_of("cnn3x3"))
    for row in rows:
        index = FIGURES.index(row["figure"]), int(row["epoch"]) - 1
        ours = curves[(slice(None), *index)]
        low, high = stats.t.interval(
            0.95, 2, ours.mean(), stats.sem(ours) * np.sqrt(3) * np.sqrt(1 + 1 / 3)
        )
        assert float(row["low"]) == pytest.approx(low, rel=1e-6)
        assert float(row["high"]) == pytest.approx(high, rel=1e-6)
        assert float(row["median"]) == pytest.approx(sorted(ours)[1], rel=1e-6)
        assert float(row["published"]) == log[index]
        assert row["place"] == found[index]
    assert {tuple(row.values())[:4] for row in rows} == {("cnn3x3", "fp32", "machine A", "3")}


def test_values_that_are_equal_in_all_runs_are_not_counted(evidence, tmp_path):
    curves = scattered("cnn3x3", 3, 0.0004)
    curves[:, 3, 4:7] = 0.99
    add(evidence, "cnn3x3", curves)
    _, text = evidence.report(tmp_path)
    assert rows_of(section(text), "cnn3x3")[0][4].endswith(" of 77")
    empty = [
        (row["figure"], row["epoch"])
        for row in read_csv(tmp_path / "reproduction" / "intervals.csv")
        if row["place"] == NO_INTERVAL
    ]
    assert empty == [("val_accuracy", epoch) for epoch in "567"]


def test_an_experiment_takes_three_runs_alike_and_as_many_epochs_as_the_log(evidence, tmp_path):
    few = scattered("cnn3x3", 4, 0.0004)
    add(evidence, "cnn3x3", few[:2])
    add(evidence, "cnn3x3", few[2:], precision="bf16")  # four, of two and two
    add(evidence, "mnist_cnn", scattered("mnist_cnn", 3, 0.0004))  # of 12 epochs, and not of 20
    wrong = add(evidence, "cnn5x5_single", scattered("cnn5x5_single", 3, 0.0004))
    _, text = evidence.report(tmp_path)
    told = section(text)
    # The first rows are those of the table with each log's own experiment.
    inside = int((places(wrong, log_of("cnn3x3")) == INSIDE).sum())
    assert rows_of(told, "cnn3x3")[0][3:] == [
        *("2", "2 runs", "cnn5x5_single", "3", f"{inside} of 80")
    ]
    assert rows_of(told, "mnist_cnn")[0][5] == "cnn5x5_single"
    pairs = {
        (row["log"], row["experiment"])
        for row in read_csv(tmp_path / "reproduction" / "agreement.csv")
    }
    assert ("cnn5x5_single", "mnist_cnn") not in pairs
    assert {("mnist_cnn", "cnn5x5_single"), ("cnn5x5_single",) * 2} < pairs
    assert not any("cnn3x3" in name for _, name in pairs)


def test_vgg16s_log_is_held_against_binary_accuracies_and_no_other_network(evidence, tmp_path):
    curves = add(evidence, "vgg16", scattered("vgg16", 4, 0.0002))
    add(evidence, "mnist_cnn", scattered("mnist_cnn", 3, 0.0004))
    _, text = evidence.report(tmp_path)
    inside = int((places(curves, log_of("vgg16")) == INSIDE).sum())
    assert rows_of(section(text), "vgg16")[0][3:] == ["4", f"{inside} of 200", "-", "-", "-"]
    logs = {row["log"] for row in read_csv(tmp_path / "reproduction/agreement.csv")
            if row["experiment"] == "vgg16"}  # fmt: skip
    assert logs == {"vgg16"}


def test_the_first_line_counts_all_values_and_the_logs_that_are_told_apart(evidence, tmp_path):
    own = add(evidence, "cnn3x3", scattered("cnn3x3", 5, 0.0004, apart=0.0008, seed=1))
    # Runs of another experiment that hold the log better than its own.
    add(evidence, "cnn5x5", scattered("cnn3x3", 3, 0.0004, seed=5))
    _, text = evidence.report(tmp_path)
    inside = int((places(own, log_of("cnn3x3")) == INSIDE).sum())
    flat = " ".join(section(text).split())
    assert f"{inside} of 80 published values, of 1 log, lie inside the intervals of their" in flat
    assert "1 can be held against wrong experiments too: of 0 of these the own experiment" in flat


def test_without_three_runs_alike_the_section_says_so(evidence, tmp_path):
    add(evidence, "cnn3x3", scattered("cnn3x3", 2, 0.0004))
    _, text = evidence.report(tmp_path)
    assert "no experiment has 3 runs in one precision on one machine" in section(text)
    assert read_csv(tmp_path / "reproduction" / "intervals.csv") == []


def test_figures_show_median_band_and_what_lies_outside(evidence, tmp_path, monkeypatch):
    curves = add(evidence, "cnn3x3", scattered("cnn3x3", 5, 0.0004, apart=0.0008, seed=1))
    drawn = {}
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, path, **_: drawn.update({path.stem: figure})
    )
    evidence.report(tmp_path)
    found = places(curves, log_of("cnn3x3"))
    # Losses above, accuracies beneath; training left, validation right.
    train_loss, val_loss, train_accuracy, val_accuracy = drawn["cnn3x3"].axes
    for row, axes in enumerate((train_loss, train_accuracy, val_loss, val_accuracy)):
        lines = {line.get_label(): line for line in axes.get_lines()}
        median = lines["our median, and 95 % of further runs"].get_ydata()
        assert median == pytest.approx(np.median(curves[:, row], axis=0))
        assert lines["published"].get_ydata() == pytest.approx(log_of("cnn3x3")[row])
        outside = [epoch for epoch, where in enumerate(found[row], 1) if where != INSIDE]
        assert list(lines["published, outside"].get_xdata()) == outside
        reach = stats.t.ppf(0.975, 4) * curves[:, row].std(0, ddof=1) * np.sqrt(1 + 1 / 5)
        (band,) = axes.collections
        corners = band.get_paths()[0].vertices[:, 1]
        assert max(corners) == pytest.approx((curves[:, row].mean(0) + reach).max())
        assert min(corners) == pytest.approx((curves[:, row].mean(0) - reach).min())


# --- The last epochs --------------------------------------------------------------------------


def test_the_last_epochs_are_those_of_runs_alike(evidence, tmp_path):
    curves = add(evidence, "mnist_cnn", scattered("mnist_cnn", 3, 0.0004))
    add(evidence, "mnist_cnn", scattered("mnist_cnn", 2, 0.1), device="machine B")
    _, text = evidence.report(tmp_path)
    ours = 100 * curves[:, 3, -5:]
    log = [100 * float(r["val_accuracy"]) for r in read_csv(PUBLISHED_CURVES)
           if r["experiment"] == "mnist_cnn"][-5:]  # fmt: skip
    falls = [[a - b for a, b in pairwise(run)] for run in [log, *ours]]
    assert row_of(text.split("## The last epochs")[1], "mnist_cnn", f"{np.mean(log):.2f}")[2:] == [
        *(f"{max(log) - min(log):.2f}", f"{max(falls[0]):.2f}", "3"),
        *(f"{value:.2f}" for value in (ours.mean(), ours.std(ddof=1), ours.min(), ours.max())),
        f"{max(max(run) - min(run) for run in ours):.2f}",
        f"{max(max(run) for run in falls[1:]):.2f}",
    ]
