"""The figures of a run: of which images, that runs leave them, and drawing them anew."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import MNIST

from mnist_bench.data.splits import split_images
from mnist_bench.loggers.drawing import PICTURES
from mnist_bench.runs import figures
from mnist_bench.runs.figures import draw_again
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.records import read_summary
from tests.support.train_command import WITH_FIGURES, run_train


@pytest.fixture
def chosen(uninterrupted, images, compose):
    """What is drawn of a run of five epochs on 1,000 images."""
    splits = split_images(images, compose("data.limit=1000").data)
    weights = torch.load(uninterrupted / "checkpoints" / "last.pt", weights_only=True)["network"]
    folder = RunFolder(uninterrupted)
    history = figures.read_history(folder)
    return figures.choose_pictures(folder, read_summary(uninterrupted), history, splits, weights)


def test_right_wrong_and_surest_are_of_the_images_that_they_say(
    chosen, uninterrupted, mnist_root
) -> None:
    """Against torchvision's MNIST, image by image."""
    test = MNIST(mnist_root, train=False)
    images, labels = test.data[:1000].numpy(), test.targets[:1000].numpy()
    logits = np.load(uninterrupted / "predictions.npz")["logits"].astype(np.float64)
    predicted = logits.argmax(1)
    shares = np.exp(logits - logits.max(1, keepdims=True))
    sure = (shares / shares.sum(1, keepdims=True)).max(1)
    assert len(chosen.right.images) == len(chosen.wrong.images) == 9
    for part, is_right in ((chosen.right, True), (chosen.wrong, False), (chosen.mistakes, False)):
        for image, caption in zip(part.images, part.captions, strict=True):
            (place,) = (images == image[0]).all((1, 2)).nonzero()[0]
            assert caption.startswith(f"{predicted[place]} / {labels[place]}")
            assert (predicted[place] == labels[place]) is np.bool_(is_right)
    by_sureness = sorted((sure[i] for i in range(1000) if predicted[i] != labels[i]), reverse=True)
    shown = [(images == image[0]).all((1, 2)).argmax() for image in chosen.mistakes.images]
    assert [sure[place] for place in shown] == by_sureness[:16]
    assert chosen.mistakes.captions[15].endswith(f"{by_sureness[15]:.0%}")


def test_counts_samples_curves_and_kernels_are_those_of_the_run(
    chosen, uninterrupted, mnist_root
) -> None:
    saved = np.load(uninterrupted / "predictions.npz")
    counts = np.zeros((10, 10), int)
    for truth, logits in zip(saved["labels"], saved["logits"], strict=True):
        counts[truth, logits.argmax()] += 1
    assert (chosen.confusion == counts).all()
    train = MNIST(mnist_root, train=True)
    for image, caption in zip(chosen.samples.images, chosen.samples.captions, strict=True):
        (place,) = (train.data[:1000].numpy() == image[0]).all((1, 2)).nonzero()[0]
        assert caption == str(int(train.targets[place]))
    assert [record["epoch"] for record in chosen.history] == [1, 2, 3, 4, 5]
    weights = torch.load(uninterrupted / "checkpoints" / "last.pt", weights_only=True)["network"]
    assert (chosen.kernels == weights["features.conv1.weight"].numpy()).all()
    assert "errors in 1,000" in chosen.result


@pytest.mark.parametrize(
    ("weights", "has"),
    [
        ({"stem.weight": torch.ones(4, 3, 5, 5)}, True),
        ({"stem.weight": torch.ones(4, 3, 1, 1)}, False),  # no picture of one pixel
        ({"patch.weight": torch.ones(64, 48), "later.weight": torch.ones(4, 3, 5, 5)}, False),
        ({"depthwise.weight": torch.ones(3, 1, 5, 5)}, False),
        ({"scale": torch.ones(1)}, False),
        ({}, False),
    ],
)
def test_kernels_are_shown_where_the_first_layer_has_some_of_images(weights, has) -> None:
    assert (figures._first_kernels(weights, channels=3) is not None) is has


def test_large_images_are_made_smaller_and_files_sorted_by_class_are_all_seen() -> None:
    images = torch.arange(8, dtype=torch.uint8)[:, None, None, None].expand(8, 1, 200, 100)
    assert figures._pixels(images, np.array([0, 7])).shape == (2, 1, 96, 48)
    assert (figures._pixels(images, np.array([3])) == 3).all()
    assert figures._spread(1000, 5).tolist() == [0, 250, 500, 749, 999]
    assert figures._spread(3, 5).tolist() == [0, 1, 2] and figures._spread(0, 5).tolist() == []


def test_a_run_leaves_its_figures_and_the_command_draws_the_same_again(
    tmp_path, mnist_root
) -> None:
    process = run_train(
        *(*WITH_FIGURES, "data.limit=300", "trainer.epochs=1", "trainer.figures=true"),
        "hydra.run.dir=run",
        cwd=tmp_path,
        data_root=mnist_root,
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    folder = tmp_path / "run" / "figures"
    drawn = {file.stem: np.asarray(Image.open(file)) for file in folder.iterdir()}
    assert drawn.keys() == PICTURES.keys()
    shutil.rmtree(folder)
    again = run_train("run", cwd=tmp_path, data_root=mnist_root, verb="figures")
    assert again.returncode == 0, again.stderr
    assert "run/figures: samples, curves, predictions, mistakes, confusion" in again.stdout
    for name, pixels in drawn.items():
        assert (np.asarray(Image.open(folder / f"{name}.png")) == pixels).all(), name


def test_the_same_sweep_again_draws_what_an_earlier_command_has_left_out(
    tmp_path, mnist_root
) -> None:
    sweep = ("-m", *WITH_FIGURES, "data.limit=200", "trainer.epochs=1", "sweep.name=two")
    for _ in range(2):
        done = run_train(
            *(*sweep, "seed=0,1", "trainer.figures=true"), cwd=tmp_path, data_root=mnist_root
        )
        assert done.returncode == 0 and done.stderr == "", done.stderr
        runs = [tmp_path / "outputs" / "sweeps" / "two" / f"seed={seed}" for seed in (0, 1)]
        for run in runs:
            assert {file.stem for file in (run / "figures").iterdir()} == PICTURES.keys()
        shutil.rmtree(runs[0] / "figures")


def test_what_has_no_result_is_refused_in_a_sentence(uninterrupted, tmp_path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(uninterrupted, copy)
    whole = (copy / "predictions.npz").read_bytes()
    for damaged in (b"PK", whole[:500], b""):
        (copy / "predictions.npz").write_bytes(damaged)
        with pytest.raises(figures.DataError, match=r"predictions\.npz is damaged"):
            draw_again(copy, None, print)
    (copy / "summary.json").unlink()
    with pytest.raises(figures.ConfigError, match="has no result to draw"):
        draw_again(copy, None, print)
