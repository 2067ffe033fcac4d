"""What a report concludes from made-up sweeps."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats import multitest

from benchmarks.reading import write_sweep
from mnist_bench.analysis.measures import Measure
from mnist_bench.analysis.report.outlook import rest_commands
from mnist_bench.analysis.report.sentences import (
    best_run,
    lessons,
    missing,
    plus_minus,
    points,
    verdict,
)
from mnist_bench.analysis.report.text import as_markdown
from mnist_bench.errors import ConfigError
from tests.support.made_up_sweep import AXES, better_by_kernel, built, write_kernels


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be written to."""
    return write_kernels(tmp_path_factory.mktemp("made_up") / "kernels")


@pytest.fixture
def copy(sweep: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sweep, tmp_path / "kernels"))


def change(run: Path, **keys: object) -> None:
    content = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**content, **keys}))


def values_of(sweep: Path, pattern: str, key: str = "test_accuracy") -> list[float]:
    runs = sorted(sweep.glob(pattern))
    return [json.loads((run / "summary.json").read_text())[key] for run in runs]


def test_runs_that_differ_by_their_seed_are_one_row(sweep: Path) -> None:
    (section,) = built(sweep).sections
    assert [row.setting.n for row in section.rows] == [4] * 4
    means = [row.estimate.mean for row in section.rows]
    assert means == sorted(means, reverse=True)
    row = next(r for r in section.rows if r.label == "kernel_size=5 dropout=0.25" or
               r.label == "dropout=0.25 kernel_size=5")  # fmt: skip
    own = values_of(sweep, "*dropout=0.25--*=5--*")
    assert row.estimate.mean == pytest.approx(np.mean(own))
    everything = [values_of(sweep, f"*={d}--*={k}--*") for d in (0.0, 0.25) for k in (3, 5)]
    std = np.sqrt(np.mean([np.var(v, ddof=1) for v in everything]))
    assert row.estimate.reach == pytest.approx(stats.t.ppf(0.975, 12) * std / 2)
    assert row.std == pytest.approx(np.std(own, ddof=1))


def test_the_best_run_is_told_with_where_its_setting_stands(copy: Path) -> None:
    worst = next(copy.glob("*--model.kernel_size=3--seed=0"))
    change(worst, val_loss=1e-6)
    (section,) = built(copy).sections
    assert section.best_run.path == worst
    assert "kernel_size=3, is ruled out as the best on average." in best_run(section)
    own = next(copy.glob(f"*={section.rows[0].values[0]}--*={section.rows[0].values[1]}--seed=0"))
    change(own, val_loss=1e-7)
    (section,) = built(copy).sections
    assert best_run(section).endswith(f"Its setting, {section.rows[0].label}, leads on average.")


def test_settings_that_are_all_the_same_have_no_leader(copy: Path) -> None:
    for run in copy.glob("*--seed=*"):
        change(run, test_accuracy=0.1135)
    (section,) = built(copy).sections
    assert verdict(section) == "All 4 settings gave the same test accuracy: none leads."


def test_sections_of_one_dataset_are_told_by_their_test_images(tmp_path: Path) -> None:
    for limit in (300, 400):
        write_sweep(tmp_path / str(limit), AXES, 2, images=limit, config={"data.limit": limit})
    titles = {section.section.title for section in built(tmp_path).sections}
    assert titles == {f"cnn5x5_single on mnist, data.limit={limit}" for limit in (300, 400)}


def test_the_leader_is_compared_on_images_with_holms_correction(sweep: Path) -> None:
    (section,) = built(sweep).sections
    compared = [row for row in section.rows if row.images is not None]
    adjusted = multitest.multipletests([row.images.p_value for row in compared], method="holm")[1]
    assert [row.images_p for row in compared] == pytest.approx(adjusted)
    assert len(compared) == 3


def test_nothing_is_written_as_less_than_zero_by_rounding_alone() -> None:
    assert points(-0.00001) == "+0.00"
    accuracy, loss = Measure("test_accuracy"), Measure("test_loss")
    assert (accuracy.number(-1e-6), accuracy.number(-1e-6, "+")) == ("0.00", "+0.00")
    assert loss.number(-1e-6, "+") == "+0.0000" and loss.number(-0.01) == "-0.0100"


def test_the_better_kernel_is_found_and_the_others_are_ruled_out(sweep: Path) -> None:
    (section,) = built(sweep).sections
    assert {row.setting.values["model.kernel_size"] for row in section.candidates} == {5}
    assert "2 of 4 settings cannot be ruled out as the best" in verdict(section)
    assert "dropout=0.0 or 0.25, kernel_size=5" in verdict(section)
    effects = {effect.key: effect for effect in section.effects}
    assert effects["model.kernel_size"].p_value < 0.001 < effects["model.dropout"].p_value
    (found,) = section.maps
    assert (found.row_key, found.column_key) == ("model.kernel_size", "model.dropout")


def test_what_each_key_does_is_told_in_a_sentence(sweep: Path) -> None:
    (section,) = built(sweep).sections
    means = {k: np.mean(values_of(sweep, f"*kernel_size={k}--*")) for k in (3, 5)}
    first, second = lessons(section)
    points = f"{100 * (means[5] - means[3]):.2f} points"
    assert first.startswith(f"kernel_size makes a difference: on average 5 is {points} better than")
    assert first.endswith("better than 3 (p < 0.0001).")
    assert second.startswith("dropout: no difference shown on average (p = 0.")
    (section,) = built(sweep, metric="test_loss").sections
    assert "on average 5 is 0." in lessons(section)[0]
    assert " of test loss better than 3" in lessons(section)[0]


def test_by_a_loss_the_lower_is_better(sweep: Path) -> None:
    (section,) = built(sweep, metric="test_loss").sections
    assert {row.setting.values["model.kernel_size"] for row in section.candidates} == {5}
    with pytest.raises(ConfigError, match="--metric accuracy is not there: choose one of test_acc"):
        built(sweep, metric="accuracy")


def test_named_pairs_are_welchs_with_holms_correction(sweep: Path) -> None:
    found = built(sweep, compare=["model.kernel_size=5,3", "dropout=0.0,0.25 kernel_size=5"])
    names = [pair.names for pair in found.pairs]
    assert names == [
        ("kernel_size=5 less 3", "dropout=0.0"),
        ("kernel_size=5 less 3", "dropout=0.25"),
        ("dropout=0.0 less 0.25", "kernel_size=5"),
    ]
    p_values = [
        stats.ttest_ind(values_of(sweep, a), values_of(sweep, b), equal_var=False).pvalue
        for a, b in (
            ("*=0.0--*=5--*", "*=0.0--*=3--*"),
            ("*=0.25--*=5--*", "*=0.25--*=3--*"),
            ("*=0.0--*=5--*", "*=0.25--*=5--*"),
        )
    ]
    assert [pair.difference.p_value for pair in found.pairs] == pytest.approx(p_values)
    ranked = sorted(p_values)
    assert found.pairs[p_values.index(ranked[0])].p_holm == pytest.approx(3 * ranked[0])


def test_on_images_the_share_of_the_seeds_is_compared(sweep: Path) -> None:
    (pair,) = built(sweep, compare=["kernel_size=5,3 dropout=0.0"]).pairs
    shares = []
    for pattern in ("*=0.0--*=5--*", "*=0.0--*=3--*"):
        right = []
        for run in sweep.glob(pattern):
            with np.load(run / "predictions.npz") as saved:
                right.append(saved["logits"].argmax(1) == saved["labels"])
        shares.append(np.mean(right, 0))
    expected = stats.ttest_rel(*shares)
    assert pair.images is not None and pair.images.images == 4000
    assert pair.images.difference.p_value == pytest.approx(expected.pvalue)
    assert pair.images.difference.mean == pytest.approx(shares[0].mean() - shares[1].mean())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model.kernel_size=3", "is not understood: give keys with the two values"),
        ("kernel_size", "is not understood"),
        ("kernel_size=3,7", "names no two settings .* model.kernel_size=3,5"),
        ("lr=1,2", "names no two settings"),
    ],
)
def test_a_pair_that_cannot_be_is_refused(sweep: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built(sweep, compare=[text])


def test_the_keys_of_the_map_can_be_chosen(sweep: Path) -> None:
    (found,) = built(sweep, map=("dropout", "kernel_size")).sections[0].maps
    assert (found.row_key, found.column_key) == ("model.dropout", "model.kernel_size")
    with pytest.raises(
        ConfigError, match=r"--map lr,dropout cannot be drawn, as nothing varies lr"
    ):
        built(sweep, map=("lr", "dropout"))


def test_networks_are_compared_across_sweeps_if_that_is_asked(tmp_path: Path) -> None:
    for model, channels in (("cnn5x5_single", [32]), ("cnn3x3", [32, 64])):
        config = {"model.name": model, "model.channels": channels}
        write_sweep(tmp_path / model, {"model.dropout": [0.0, 0.5]}, 3, images=300, config=config)
    assert len(built(tmp_path).sections) == 2
    found = built(tmp_path, compare=["model=cnn3x3,cnn5x5_single dropout=0.5"])
    (pair,) = found.pairs
    assert pair.names == ("model=cnn3x3 less cnn5x5_single", "dropout=0.5")
    assert len(found.sections) == 1


def test_a_single_seed_each_is_said_to_tell_nothing(tmp_path: Path) -> None:
    write_sweep(tmp_path / "one", AXES, 1, better_by_kernel, images=400)
    found = built(tmp_path / "one", compare=["kernel_size=5,3 dropout=0.0"])
    (section,) = found.sections
    assert section.best is None and not section.candidates
    assert "cannot be told" in verdict(section)
    assert section.outlook[0].endswith("Train each with several seeds, such as 'seed=range(5)'.")
    command = dict(rest_commands(section))["more seeds, in one"]
    assert "'seed=range(0,5)'" in command and "model.kernel_size=3,5" in command
    (pair,) = found.pairs
    assert pair.p_holm is None
    # What single networks can be asked is McNemar's question.
    assert pair.images is not None and pair.images.mcnemar is not None
    text = as_markdown(found)
    assert "There is no ±" in text and "one seed only" in text


def test_a_deviation_that_stands_out_changes_the_method_and_is_said(copy: Path) -> None:
    for seed in range(4):
        run = copy / f"model.dropout=0.0--model.kernel_size=3--seed={seed}"
        change(run, test_accuracy=0.9 + 0.02 * seed)
    (section,) = built(copy).sections
    assert "Welch's test against each other setting" in verdict(section)
    assert "(Cochran's test, p < 0.0001)" in plus_minus(section)
    assert section.outlook == [
        "More seeds tell most where the deviation between them is largest: dropout=0.0 "
        "kernel_size=3, with 2.58 points."
    ]
    # Which the calm settings do not pay for.
    calm = next(row for row in section.rows if row.values == ["0.25", "5"])
    own = values_of(copy, "*=0.25--*=5--*")
    low, high = stats.t.interval(0.95, 3, np.mean(own), stats.sem(own))
    assert calm.estimate.reach == pytest.approx((high - low) / 2)


def test_what_is_missing_is_said_before_anything_else(copy: Path) -> None:
    runs = sorted(path for path in copy.iterdir() if path.is_dir())
    shutil.rmtree(runs[0])
    change(runs[1], status="failed", error="The loss is NaN.")
    found = built(copy)
    (section,) = found.sections
    told = missing(section)
    assert told.startswith("Incomplete: 2 of 16 runs are missing (1 waiting, 1 failed): ")
    assert [row.setting.n for row in section.rows].count(2) == 1
    assert "Settings have 2 to 4 seeds." in section.notes
    assert [why for _, why in found.uncounted] == ["waiting", "failed: The loss is NaN."]
    (what, command), *_ = rest_commands(section)
    assert what == "do the rest of kernels" and command.startswith("python train.py -m model=")
    assert as_markdown(found).index("Incomplete") < as_markdown(found).index("What each key does")


def test_the_command_for_more_seeds_trains_what_may_be_the_best(sweep: Path) -> None:
    (section,) = built(sweep).sections
    (_, command), *_ = rest_commands(section)
    parts = command.split()
    assert "model.kernel_size=5" in parts and "model.dropout=0.0,0.25" in parts
    assert "'seed=range(0,8)'" in parts and "sweep.name=kernels" in parts
    assert command.count("seed=") == command.count("kernel_size=") == 1


def test_more_seeds_are_as_many_again_whatever_those_at_hand_are(copy: Path) -> None:
    for run in copy.glob("*--seed=3"):
        config = json.loads((run / "summary.json").read_text())["config"]
        change(run, seed=1000, config={**config, "seed": 1000})
    commands = dict(rest_commands(built(copy).sections[0]))
    assert "seed=0,1,2,1000,1001,1002,1003,1004" in commands["more seeds, in kernels"]


def test_settings_that_learnt_nothing_make_no_interval_smaller(copy: Path) -> None:
    """Networks at chance have one figure with every seed, which tells nothing of the others."""
    for run in copy.glob("model.dropout=0.0--model.kernel_size=3--*"):
        change(run, test_accuracy=0.1135)
    section = built(copy).sections[0]
    varying = [
        values_of(copy, f"model.dropout={dropout}--model.kernel_size={size}--*")
        for dropout, size in ((0.0, 5), (0.25, 3), (0.25, 5))
    ]
    squares = sum(np.var(values) * len(values) for values in varying)
    assert section.chance.pooled.freedom == 9
    assert section.chance.pooled.std == pytest.approx(np.sqrt(squares / 9))
    assert any("1 of 4 settings gave the same figure" in note for note in section.notes)
    assert "pooled over 3 settings, with 9 degrees of freedom" in plus_minus(section)


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive"], ids=["empty", "truncated", "text"])
def test_a_predictions_file_that_cannot_be_read_spoils_nothing_else(
    copy: Path, content: bytes
) -> None:
    for file in copy.glob("*--seed=0/predictions.npz"):
        file.unlink()
        file.write_bytes(content)
    assert all(row.images is None for row in built(copy).sections[0].rows)


@pytest.mark.parametrize(
    ("key", "value"), [("seed", None), ("device", 3), ("epochs", "six"), ("overrides", None)]
)
def test_a_summary_of_other_types_is_a_damaged_run(copy: Path, key: str, value: object) -> None:
    change(next(copy.glob("*--seed=0")), **{key: value})
    found = built(copy)
    ((_, why),) = found.uncounted
    assert "is damaged" in why and key in why
    assert sum(row.setting.n for row in found.sections[0].rows) == 15


def test_what_runs_mix_is_said(copy: Path) -> None:
    runs = sorted(path for path in copy.iterdir() if path.is_dir())
    for run in runs[:4]:
        change(run, precision="fp32", device="NVIDIA H100", git_commit="0" * 40)
    change(runs[5], warning="This network cannot be relied on.", validation="test")
    change(runs[6], git_changes=" M train.py")
    notes = "\n".join(built(copy).sections[0].notes)
    assert "These runs mix precisions: bf16 (12), fp32 (4); a difference between settings" in notes
    assert "mix devices: AMD EPYC, 2 threads (12), NVIDIA H100 (4)" in notes
    assert "mix commits of the code" in notes
    assert "1 of 16 runs are validated on the test set" in notes
    assert f"networks that learnt next to nothing, and are counted: {runs[5].name}" in notes
    assert "1 of 16 runs are of code with changes that are not committed." in notes


def test_runs_without_the_figure_are_listed_and_not_counted(copy: Path) -> None:
    run = next(path for path in sorted(copy.iterdir()) if path.is_dir())
    change(run, test_loss=float("inf"))
    found = built(copy, metric="test_loss")
    assert [(r.path, why) for r, why in found.uncounted] == [(run, "it has no test loss")]
    assert sum(setting.n for setting in found.sections[0].section.settings) == 15


def test_nothing_completed_is_refused_in_a_sentence(copy: Path) -> None:
    for run in copy.iterdir():
        if run.is_dir():
            change(run, status="failed")
    with pytest.raises(ConfigError, match="None of these 16 runs is completed"):
        built(copy)


def test_predictions_that_are_gone_leave_out_the_comparison_on_images(copy: Path) -> None:
    for run in copy.glob("*=3--*"):
        (run / "predictions.npz").write_bytes(b"damaged")
    (section,) = built(copy).sections
    compared = {row.setting.values["model.kernel_size"]: row.images for row in section.rows[1:]}
    assert compared[5] is not None and compared[3] is None
