"""A network tested again: figures against plain loops and closed forms, and against its run."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from mnist_bench.analysis.evaluate.evaluation import evaluate_run
from mnist_bench.analysis.evaluate.figures import calibrate, confusion_matrix, figures_of_classes
from mnist_bench.analysis.predict.answers import answer_files
from mnist_bench.cli import app
from mnist_bench.errors import ConfigError, DataError
from mnist_bench.runs.load import load
from tests.support.own_parts import write_own_parts
from tests.support.train_command import read_summary, run_train

DRAW = np.random.default_rng(0)
NAMES = tuple("abcd")


# --- Figures ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answers():
    """Labels and predictions of four classes; d is never predicted, c has no images."""
    labels = DRAW.choice([0, 1, 3], 300)
    predicted = np.where(DRAW.random(300) < 0.7, labels, DRAW.integers(0, 3, 300))
    return labels, np.where(predicted == 3, 0, predicted)


def test_the_confusion_matrix_counts_pairs(answers) -> None:
    labels, predicted = answers
    expected = [[0] * 4 for _ in range(4)]
    for label, guess in zip(labels.tolist(), predicted.tolist(), strict=True):
        expected[label][guess] += 1
    assert confusion_matrix(labels, predicted, 4).tolist() == expected


def test_precision_recall_and_f1_of_each_class(answers) -> None:
    labels, predicted = answers
    found = figures_of_classes(confusion_matrix(labels, predicted, 4), NAMES)
    pairs = list(zip(labels.tolist(), predicted.tolist(), strict=True))
    for k, figures in enumerate(found):
        right = sum(label == guess == k for label, guess in pairs)
        images = sum(label == k for label, _ in pairs)
        guesses = sum(guess == k for _, guess in pairs)
        assert (figures.name, figures.images) == (NAMES[k], images)
        assert figures.recall == (None if images == 0 else pytest.approx(right / images))
        assert figures.precision == (None if guesses == 0 else pytest.approx(right / guesses))
        if right:
            mean = 2 / (1 / figures.recall + 1 / figures.precision)
            assert figures.f1 == pytest.approx(mean)
    assert found[2].recall is None and found[3].precision is None and found[3].f1 == 0


def test_the_calibration_error_is_that_of_guo_and_others() -> None:
    confidences = DRAW.random(2000).astype(np.float32)
    confidences[:3] = 0, 1, np.float32(1 / 3)
    right = DRAW.random(2000) < confidences**2
    found = calibrate(confidences, right, bins=15)
    error = 0.0
    for b in range(15):
        low, high = b / 15, (b + 1) / 15
        inside = [
            (c, r)
            for c, r in zip(confidences.astype(float).tolist(), right.tolist(), strict=True)
            if low < c <= high or (b == 0 and c == 0)
        ]
        assert found.bins[b].images == len(inside)
        accuracy = sum(r for _, r in inside) / len(inside)
        confidence = sum(c for c, _ in inside) / len(inside)
        assert found.bins[b].accuracy == pytest.approx(accuracy)
        assert found.bins[b].confidence == pytest.approx(confidence)
        error += len(inside) / 2000 * abs(accuracy - confidence)
    assert found.ece == pytest.approx(error)
    assert found.gap == pytest.approx(confidences.astype(float).mean() - right.mean())


@pytest.mark.parametrize(
    ("confidence", "right", "ece", "gap"),
    [(0.8, 8, 0.0, 0.0), (1.0, 5, 0.5, 0.5), (0.5, 10, 0.5, -0.5), (1.0, 10, 0.0, 0.0)],
)
def test_calibration_of_equal_confidences(confidence, right, ece, gap) -> None:
    found = calibrate(np.full(10, confidence), np.arange(10) < right)
    assert found.ece == pytest.approx(ece) and found.gap == pytest.approx(gap)
    assert sum(b.images for b in found.bins) == 10


# --- Runs -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evaluation(trained):
    return evaluate_run(trained)


def test_the_figures_are_those_of_the_run_to_the_bit(evaluation, trained) -> None:
    summary = read_summary(trained)
    assert evaluation.as_recorded and evaluation.unlike is None
    tested = {key: value for key, value in summary.items() if key.startswith("test_")}
    tested.pop("test_images")
    assert evaluation.figures == tested
    with np.load(trained / "predictions.npz") as saved:
        assert np.array_equal(evaluation.logits, saved["logits"])
        assert np.array_equal(evaluation.labels, saved["labels"])
    assert np.trace(evaluation.confusion) == len(evaluation.labels) - summary["test_errors"]


def test_also_of_mean_weights_in_mixed_precision_under_another_loss(tmp_path, mnist_root) -> None:
    tiny = ("model.channels=[4,4]", "model.dense=[8]", "data.limit=200", "trainer.epochs=1")
    done = run_train(
        *(*tiny, "trainer.gpus=0", "trainer.precision=bf16", "trainer.ema_decay=0.9"),
        *("loss=binary_cross_entropy", "logger=none", "hydra.run.dir=run"),
        cwd=tmp_path,
        data_root=mnist_root,
    )
    assert done.returncode == 0, done.stderr
    found = evaluate_run(tmp_path / "run")
    assert found.as_recorded, found.unlike
    assert (
        found.figures["test_binary_accuracy"]
        == read_summary(tmp_path / "run")["test_binary_accuracy"]
    )
    assert found.computed_by["precision"] == "bf16"


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def test_other_figures_are_told_with_the_reason(copied) -> None:
    summary = read_summary(copied)
    changed = {**summary, "test_errors": summary["test_errors"] + 1, "device": "abacus"}
    (copied / "summary.json").write_text(json.dumps(changed))
    found = evaluate_run(copied)
    assert not found.as_recorded
    assert f"test_errors {summary['test_errors'] + 1}" in found.unlike
    assert "device was abacus and is" in found.unlike
    (copied / "summary.json").write_text(json.dumps({**summary, "test_loss": 1.0}))
    assert "the weights, the images or the machine" in evaluate_run(copied).unlike


def test_a_run_that_was_not_tested_has_nothing_to_compare_with(copied) -> None:
    (copied / "summary.json").unlink()
    found = evaluate_run(copied)
    assert "no test figures to compare with" in found.unlike and not found.as_recorded


def test_wrong_images_come_with_the_most_confident_first(evaluation) -> None:
    probabilities = torch.from_numpy(evaluation.logits).softmax(1)
    expected = sorted(
        (-float(row.max()), n)
        for n, (row, label) in enumerate(zip(probabilities, evaluation.labels, strict=True))
        if int(row.argmax()) != label
    )
    assert [one.image for one in evaluation.wrong] == [n for _, n in expected]
    worst = evaluation.wrong[0]
    assert worst.label == str(evaluation.labels[worst.image])
    assert worst.label_probability == pytest.approx(
        float(probabilities[worst.image, int(worst.label)])
    )


# --- Other images -----------------------------------------------------------------------------


def save_npz(path, images, rows=slice(0, 300), change=lambda pixels: pixels, labels=None):
    pixels = change(images.test_images[rows].numpy())
    labels = images.test_labels[rows].numpy() if labels is None else labels
    np.savez(path, x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    return ["data=npz", f"data.path={path}"]


def test_other_images_of_the_same_classes(trained, evaluation, images, tmp_path) -> None:
    found = evaluate_run(trained, save_npz(tmp_path / "own.npz", images))
    right = (evaluation.predicted == evaluation.labels)[:300].sum()
    assert found.figures["test_errors"] == 300 - right
    assert found.dataset == "npz" and not found.as_recorded and found.unlike is None


def test_classes_are_found_by_their_names(trained, evaluation, images, tmp_path) -> None:
    """Only sevens and twos, in folders."""
    for part in ("train", "test"):
        for n in range(200):
            if (label := int(images.test_labels[n])) in (2, 7):
                path = tmp_path / "digits" / part / str(label) / f"{n}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(images.test_images[n].numpy()).save(path)
    settings = ["data=image_folder", f"data.root={tmp_path / 'digits'}"]
    found = evaluate_run(trained, settings)
    assert set(found.labels) == {2, 7}
    places = [int(name.split("/")[-1].removesuffix(".png")) for name in found.image_names]
    assert np.array_equal(found.predicted, evaluation.predicted[places])


def test_as_many_classes_of_other_names_are_taken_in_their_order(trained, images, tmp_path) -> None:
    labels = images.test_labels[:300].numpy() + 100
    found = evaluate_run(trained, save_npz(tmp_path / "own.npz", images, labels=labels))
    assert found.figures["test_accuracy"] > 0.9
    assert "taken in their order" in found.notes[0]


def test_other_numbers_of_classes_are_refused(trained, images, tmp_path) -> None:
    labels = np.arange(300) % 12
    with pytest.raises(DataError, match=r"npz has 12 classes .* this network knows 10"):
        evaluate_run(trained, save_npz(tmp_path / "own.npz", images, labels=labels))


def test_other_sizes_are_refused_and_the_remedy_helps(trained, images, tmp_path) -> None:
    def colours(pixels):
        return pixels.repeat(2, 1).repeat(2, 2)[..., None].repeat(3, 3)

    settings = save_npz(tmp_path / "own.npz", images, change=colours)
    told = r"56 x 56 in 3 channels, and this network takes 28 x 28: give data.image_size=\[28,28\] "
    with pytest.raises(DataError, match=f"{told}and data.grey=true"):
        evaluate_run(trained, settings)
    found = evaluate_run(trained, [*settings, "data.image_size=[28,28]", "data.grey=true"])
    assert found.figures["test_accuracy"] > 0.9


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("model.dropout=0", "model.dropout cannot be given to evaluate"),
        ("fashion_mnist", "is not a setting"),
        ("data.limits=3", "data.limits"),
        ("data=mnits", "mnits"),
        ("data.limit=x", "data.limit"),
        ("trainer.precision=fp16", "fp16"),
    ],
)
def test_what_cannot_be_changed_is_refused(trained, line, said) -> None:
    with pytest.raises(ConfigError, match=said):
        evaluate_run(trained, [line])


def test_parts_of_ones_own_are_found_by_config_dir(tmp_path, mnist_root) -> None:
    write_own_parts(tmp_path)
    options = ("--config-dir", "mine", "model=tiny", "data=stripes", "logger=none")
    done = run_train(
        *(*options, "trainer.gpus=0", "trainer.epochs=2", "hydra.run.dir=run"),
        cwd=tmp_path,
        data_root=mnist_root,
    )
    assert done.returncode == 0, done.stderr
    run, mine = tmp_path / "run", tmp_path / "mine"
    found = evaluate_run(run, config_dir=mine)
    assert found.as_recorded, found.unlike
    assert found.images.shape == (100, 32, 32, 3) and found.class_names == ("lie", "stand")
    # Others of the same kind, of which a quarter is to test on.
    others = evaluate_run(run, ["data=stripes", "data.count=40"], config_dir=mine)
    assert others.dataset == "stripes" and len(others.labels) == 10 and not others.as_recorded
    assert len(evaluate_run(run, ["data.count=80"], config_dir=mine).labels) == 20
    stripes = Image.fromarray(found.images[0]).resize((96, 96), Image.Resampling.NEAREST)
    stripes.save(tmp_path / "stripes.png")
    (answer,) = answer_files(load(run, mine), [tmp_path / "stripes.png"])
    assert answer.seen.shape == (32, 32, 3)


# --- The command ------------------------------------------------------------------------------


def test_all_of_it_is_in_the_json_and_in_the_folder(trained, evaluation, tmp_path) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["evaluate", str(trained), "--json", "--out", str(out)])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told == json.loads((out / "evaluation.json").read_text())
    assert told["test_loss"] == evaluation.figures["test_loss"]
    assert told["confusion"] == evaluation.confusion.tolist()
    assert sum(b["images"] for b in told["calibration"]["bins"]) == told["images"]
    with (out / "wrong.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["image"]) for row in rows] == [one["image"] for one in told["wrong"]]
    assert len(rows) == told["test_errors"]
    for name in ("confusion", "reliability", "mistakes"):
        with Image.open(out / f"{name}.png") as picture:
            assert min(picture.size) > 300


def test_the_terminal_has_figures_classes_confusion_and_the_worst(trained, evaluation) -> None:
    done = CliRunner().invoke(app, ["evaluate", str(trained)])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert any(f"{evaluation.figures['test_accuracy']:.2%}" in line for line in lines)
    assert "To the bit what summary.json has." in done.stdout
    rows = [line.replace("·", "0").split() for line in lines]
    assert ["7", *map(str, evaluation.confusion[7].tolist())] in rows
    worst = evaluation.wrong[0]
    assert [str(worst.image), worst.label, worst.predicted] in [row[:3] for row in rows]
