"""Image files answered by a trained network, as `mnist-bench predict` does it."""

import json

import numpy as np
import pytest
from PIL import Image, ImageOps
from typer.testing import CliRunner

from mnist_bench.analysis.evaluate.evaluation import evaluate_run
from mnist_bench.analysis.predict.answers import Answer, answer_files
from mnist_bench.analysis.predict.command import predict_files
from mnist_bench.analysis.predict.show import Lines, blocks, draw_sheet
from mnist_bench.cli import app
from mnist_bench.errors import ConfigError
from mnist_bench.runs.load import load
from tests.support.train_command import run_train

COUNT = 200


@pytest.fixture(scope="module")
def network(trained):
    return load(trained)


@pytest.fixture(scope="module")
def digits(images):
    return [Image.fromarray(digit) for digit in images.test_images[:COUNT].numpy()]


@pytest.fixture(scope="module")
def evaluated(trained):
    """What `evaluate` says of the same images."""
    evaluation = evaluate_run(trained, [f"data.limit={COUNT}"])
    return [evaluation.class_names[k] for k in evaluation.predicted]


def labels_of(network, pictures, folder, suffix=".png"):
    folder.mkdir()
    for n, picture in enumerate(pictures):
        picture.save(folder / f"{n:05}{suffix}")
    return [a.top[0][0] if a.top else None for a in answer_files(network, sorted(folder.iterdir()))]


def test_files_of_mnist_get_the_labels_of_evaluate(network, digits, evaluated, tmp_path) -> None:
    assert labels_of(network, digits, tmp_path / "digits") == evaluated


def enlarged(digit):
    return digit.resize((280, 280), Image.Resampling.BICUBIC)


def on_a_wider_ground(digit):
    wide = Image.new("L", (700, 400))
    wide.paste(enlarged(digit), (60, 80))
    return wide


def in_colour(digit):
    ink = np.asarray(enlarged(digit), float)[..., None] / 255
    pixels = ink * [30, 50, 150] + (1 - ink) * [250, 243, 225]
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize(
    ("change", "suffix"),
    [
        (ImageOps.invert, ".png"),
        (enlarged, ".png"),
        (on_a_wider_ground, ".png"),
        (in_colour, ".jpg"),
    ],
)
def test_pictures_of_the_same_digits_are_told_nearly_as_well(
    network, images, digits, evaluated, tmp_path, change, suffix
) -> None:
    """At most 1.5 points fewer; `python -m benchmarks.pictures` has all 10,000 and more kinds."""
    truth = [str(int(label)) for label in images.test_labels[:COUNT]]
    found = labels_of(network, map(change, digits), tmp_path / "changed", suffix)

    def right(labels):
        return sum(a == b for a, b in zip(labels, truth, strict=True))

    assert right(found) >= right(evaluated) - 0.015 * COUNT


def test_what_cannot_be_read_is_named_and_the_others_are_answered(
    trained, digits, tmp_path
) -> None:
    digits[0].save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    Image.new("L", (1, 1)).save(tmp_path / "c.png")
    Image.new("RGB", (300, 200), "white").save(tmp_path / "d.png")
    digits[1].save(tmp_path / "e.png")
    done = CliRunner().invoke(app, ["predict", str(trained), str(tmp_path), "--json"])
    assert done.exit_code == 1
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["image"][-5:] for answer in answers] == [f"{c}.png" for c in "abcde"]
    assert [answer.get("label") for answer in answers] == ["7", None, None, None, "2"]
    assert "cannot be read as an image" in answers[1]["error"]
    assert all("nothing is drawn on it" in answers[n]["error"] for n in (2, 3))
    first = answers[0]
    assert first.keys() == {"image", "label", "probability", "top3"}
    shares = [one["probability"] for one in first["top3"]]
    assert shares == sorted(shares, reverse=True) and len(shares) == 3
    assert first["top3"][0] == {"label": first["label"], "probability": first["probability"]}

    plain = CliRunner().invoke(app, ["predict", str(trained), str(tmp_path)])
    assert plain.exit_code == 1
    first, second = plain.stdout.splitlines()
    assert len(first) == len(second)
    assert first.split()[1] == "7" and second.split()[1] == "2"
    assert len(plain.stderr.splitlines()) == 3 and "Traceback" not in plain.output


def test_a_picture_does_not_replace_an_image(trained, digits, tmp_path) -> None:
    digits[0].save(tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(ConfigError, match=r"a\.png is one of the images to read"):
        predict_files(trained, [tmp_path], picture=tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == before


def test_a_picture_of_nothing_is_not_written(trained, tmp_path) -> None:
    (tmp_path / "empty.png").touch()
    picture = tmp_path / "sheet.png"
    arguments = [str(trained), str(tmp_path / "empty.png"), "--picture", str(picture)]
    done = CliRunner().invoke(app, ["predict", *arguments])
    assert done.exit_code == 1 and not picture.exists()
    assert "sheet.png is not written: no image could be read." in done.stderr


def test_status_0_if_all_are_answered(trained, digits, tmp_path) -> None:
    digits[0].save(tmp_path / "a.png")
    picture = tmp_path / "sheet.png"
    options = ["--show", "--picture", str(picture)]
    done = CliRunner().invoke(app, ["predict", str(trained), str(tmp_path / "a.png"), *options])
    assert done.exit_code == 0
    assert "a.png" in done.stdout and "▓" in done.stdout
    with Image.open(picture) as sheet:
        shown = np.asarray(sheet.convert("L").crop((14, 14, 126, 126)).resize((28, 28), 0))
    assert np.array_equal(shown, np.asarray(digits[0]))


def test_a_network_of_other_data_sees_their_size_and_colours(tmp_path, mnist_root) -> None:
    """Colours of 20 x 24 pixels, in three classes: scaled as in training, and nothing centred."""
    draw = np.random.default_rng(0)
    colours = {"blue": (20, 30, 200), "green": (20, 180, 30), "red": (200, 30, 20)}
    for part, count in (("train", 30), ("test", 5)):
        for name, colour in colours.items():
            for n in range(count):
                path = tmp_path / "images" / part / name / f"{n}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.array(colour) + draw.integers(-20, 20, (20, 24, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    done = run_train(
        *("data=image_folder", "data.root=images", "model=cnn5x5_single", "trainer.epochs=4"),
        *("model.channels=[4]", "model.dense=[8]", "trainer.gpus=0", "trainer.batch_size=16"),
        *("logger=none", "model.dropout=0", "hydra.run.dir=run"),
        cwd=tmp_path,
        data_root=mnist_root,
    )
    assert done.returncode == 0, done.stderr
    network = load(tmp_path / "run")
    given = np.tile(np.uint8([[200, 30, 20], [180, 20, 40]]), (40, 24, 1))  # 40 x 48
    given[:, :24, 0] -= 40
    Image.fromarray(given).save(tmp_path / "large.png")
    small = tmp_path / "images" / "test" / "green" / "0.png"
    large, exact = answer_files(network, [tmp_path / "large.png", small])
    assert large.seen.shape == (20, 24, 3)
    halves = given.reshape(20, 2, 24, 2, 3).mean((1, 3))
    # Bilinear weights reach one pixel further than halves do.
    assert np.abs(large.seen[:, 1:11].astype(float) - halves[:, 1:11]).max() <= 2
    assert large.top[0][0] == "red"
    with Image.open(small) as image:
        assert np.array_equal(exact.seen, np.asarray(image))
    assert exact.top[0][0] == "green"
    # The files that it was tested on have their names in an evaluation.
    evaluation = evaluate_run(tmp_path / "run", [f"data.root={tmp_path / 'images'}"])
    assert len(evaluation.image_names) == 15
    for name, label in zip(evaluation.image_names, evaluation.labels, strict=True):
        assert name.split("/")[-2] == evaluation.class_names[label]


# --- How it is shown --------------------------------------------------------------------------


def answer(path="digit.png", shares=(0.1, 0.7, 0.2), seen=None):
    return Answer(path, ("a", "bb", "ccc"), seen, np.float32(shares))


def test_lines_are_aligned_whatever_the_names() -> None:
    paths = ["x.png", "a/much/longer/name.png", "mid.png"]
    lines = Lines(paths, ("a", "bb", "ccc"), None)
    shares = ((0.99999, 0, 0), (0.2, 0.2, 0.6), (0.05, 0.9, 0.05))
    texts = [lines.line(answer(p, s)).plain for p, s in zip(paths, shares, strict=True)]
    assert len({len(text) for text in texts}) == 1
    assert len({text.index("then") for text in texts}) == 1
    assert ">99.99%" in texts[0] and "90.00%" in texts[2]


def test_a_path_that_is_too_long_loses_its_middle() -> None:
    lines = Lines(["a" * 30 + "/end.png"], ("a", "bb", "ccc"), 15)
    text = lines.line(answer("a" * 30 + "/end.png")).plain
    assert text.startswith("aaaaaaa…end.png"[:8]) and "end.png  " in text


def test_blocks_in_colour_are_the_pixels() -> None:
    seen = np.random.default_rng(0).integers(0, 255, (6, 5, 3), np.uint8)
    text = blocks(seen, in_colour=True)
    assert text.plain == "\n".join(["▀" * 5] * 3)
    for row in range(3):
        for column in range(5):
            (span,) = [s for s in text.spans if s.start <= row * 6 + column < s.end]
            upper = "#{:02x}{:02x}{:02x}".format(*seen[2 * row, column])
            lower = "#{:02x}{:02x}{:02x}".format(*seen[2 * row + 1, column])
            assert (span.style.color.name, span.style.bgcolor.name) == (upper, lower)


def test_blocks_without_colour_are_shades() -> None:
    seen = np.uint8([[0, 255, 0, 128], [0, 255, 255, 128], [255, 0, 0, 0]])
    assert blocks(seen, in_colour=False).plain == " █▒▒\n▒   "


def test_a_sheet_has_a_tile_for_each(tmp_path) -> None:
    from pathlib import Path

    seen = np.zeros((28, 28), np.uint8)
    answers = [answer(Path(f"{n}.png"), seen=seen) for n in range(10)]
    draw_sheet(answers, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        dark = np.asarray(sheet.convert("L")) == 0
    assert dark.sum() >= 10 * 112 * 112
    assert sheet.size == (8 * 126 + 14, 2 * 164 + 14)
