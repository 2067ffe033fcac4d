"""The pictures of a run: what they say, and that any data set has those that make sense."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from mnist_bench.loggers import drawing
from mnist_bench.loggers.drawing import PICTURES, draw
from mnist_bench.loggers.pictures import RunPictures, Tiles
from tests.support.made_up_runs import RECORD


def tiles(count: int, *shape: int, caption: str = "7 / 3") -> Tiles:
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    return Tiles(images, [caption] * count)


def made_up(
    classes: int = 10, shape: tuple[int, ...] = (1, 28, 28), name: str = "{}", epochs: int = 3
) -> RunPictures:
    rng = np.random.default_rng(0)
    return RunPictures(
        name="model.dropout=0.25--model.kernel_size=3--optimizer=sgd--seed=0--and=more",
        result="test accuracy 90.00%, 1,000 errors in 10,000",
        class_names=tuple(name.format(i) for i in range(classes)),
        history=[{**RECORD, "epoch": epoch + 1} for epoch in range(epochs)],
        tested_epoch=epochs,
        samples=tiles(50, *shape, caption=name.format(1)),
        right=tiles(9, *shape),
        wrong=tiles(9, *shape),
        mistakes=tiles(16, *shape, caption="7 / 3  98%"),
        confusion=rng.integers(0, 3, (classes, classes)) + 5 * np.eye(classes, dtype=int),
        kernels=rng.normal(size=(32, shape[0], 3, 3)).astype(np.float32),
    )


RUNS = {
    "MNIST": made_up(),
    "two classes in colour, one epoch, one mistake": replace(
        made_up(2, (3, 96, 40), epochs=1), samples=tiles(5, 3, 8, 8), wrong=tiles(1, 3, 8, 8)
    ),
    "a thousand classes": made_up(1000, (3, 64, 64), "class number {} of very many", 100),
    "long names": made_up(26, (1, 9, 9), "aardvark {} $5_x^2 und Ähnliches"),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_any_data_set_has_pictures_that_fit_and_can_be_looked_at(run, tmp_path, recwarn) -> None:
    files = draw(run, tmp_path / "figures")
    assert files.keys() == PICTURES.keys()
    assert sorted(files.values()) == sorted((tmp_path / "figures").iterdir())
    for path in files.values():
        with Image.open(path) as image:
            assert 150 <= image.height <= 1400 and 450 <= image.width <= 2000, path
            pixels = np.asarray(image.convert("L"))
        assert np.ptp(pixels) > 100
        edges = (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:])
        assert all((edge == 255).all() for edge in edges), path  # nothing is cut off
    assert [str(warning.message) for warning in recwarn] == []


def test_a_picture_that_makes_no_sense_is_left_out_and_an_earlier_one_removed(tmp_path) -> None:
    run = made_up()
    for name in PICTURES:
        (tmp_path / f"{name}.png").touch()
    none = Tiles(np.zeros((0, 1, 28, 28), np.uint8), [])
    perfect = replace(run, wrong=none, mistakes=none, kernels=None, history=[])
    files = draw(perfect, tmp_path)
    assert files.keys() == {"samples", "predictions", "confusion"}
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(f"{f}.png" for f in files)


def texts(figure: Figure | None) -> list[str]:
    assert figure is not None
    own = [text.get_text() for text in figure.texts]
    return own + [
        text.get_text()
        for axes in figure.axes
        for text in (*axes.texts, axes.title, *axes.get_xticklabels(), *axes.get_yticklabels())
    ]


def test_pictures_tell_predicted_and_truth_and_the_counts() -> None:
    run = made_up()
    assert texts(drawing.draw_predictions(run)).count("7 / 3") == 18
    assert texts(drawing.draw_mistakes(run)).count("7 / 3  98%") == 16
    assert texts(drawing.draw_samples(run)).count("1") == 50
    cells = [int(t) for t in texts(drawing.draw_confusion(run)) if t.isdigit()]
    assert sum(cells) == run.confusion.sum() + 2 * sum(range(10))  # names of rows and columns


def test_of_many_classes_the_commonest_mistakes_are_told() -> None:
    run = made_up(100, name="class {}")
    confusion = np.eye(100, dtype=int)
    confusion[3, 7], confusion[50, 2] = 9, 4
    told = texts(drawing.draw_confusion(replace(run, confusion=confusion)))
    mistakes = [text for text in told if "taken for" in text]
    assert mistakes == ["class 3, taken for class 7", "class 50, taken for class 2"]


def test_images_stand_in_rows_with_space_for_their_captions() -> None:
    images = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 1, 2, 3)
    canvas, corners = drawing._mosaic(images, columns=2, gap=(1, 4), empty=255)
    assert canvas.shape == (9, 10, 1)
    assert corners == [(1, 0), (1, 7), (4, 0), (4, 7), (7, 0)]
    for image, (top, left) in zip(images, corners, strict=True):
        assert (canvas[top : top + 2, left : left + 3, 0] == image[0]).all()
    assert (canvas == 255).sum() == 90 - 30


def test_curves_show_what_the_columns_hold() -> None:
    run = made_up()
    history = [{**RECORD, "epoch": e, "val_loss": 1 / e, "train_loss": 0.01 / e} for e in (1, 2, 3)]
    figure = drawing.draw_curves(replace(run, history=history, tested_epoch=2))
    assert figure is not None
    loss, accuracy = figure.axes
    lines = {line.get_color(): line.get_ydata() for line in loss.lines[:2]}
    assert list(lines[drawing.BLUE]) == [0.01, 0.005, 0.01 / 3]
    assert list(lines[drawing.ORANGE]) == [1, 0.5, 1 / 3]
    assert loss.get_yscale() == "log" and accuracy.get_yscale() == "linear"
    assert loss.lines[2].get_xdata()[0] == 2
