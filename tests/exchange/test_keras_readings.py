"""What a file of weights leaves open: scaling, order, layers. A reading that does not fit is told,
with the one that does."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras.layers import Conv2D, Dense, Dropout, Flatten, MaxPooling2D

from mnist_bench.config.schema import TrainConfig
from mnist_bench.data.images import Images
from mnist_bench.errors import ConfigError, DataError
from mnist_bench.exchange.keras.builtin import INERT, UNREAD
from mnist_bench.exchange.keras.model_config import READ
from mnist_bench.exchange.keras.reading import read_keras_file
from mnist_bench.exchange.keras.runs import import_run
from mnist_bench.models import ConvNet
from tests.support.keras_files import SUFFIXES, read_into, save
from tests.support.notebooks import teach

Compose = Callable[..., TrainConfig]
COUNT = 500


def single(*first: keras.Layer, shape: tuple[int, ...] = (28, 28, 1), **config: Any) -> Any:
    """cnn5x5_single behind `first`; `config` is of its convolution and pooling."""
    flatten = config.pop("flatten", None)
    return keras.Sequential(
        [
            *(keras.Input(shape), *first),
            *(Conv2D(32, 5, activation="relu", **config), MaxPooling2D(2, **config), Dropout(0.25)),
            *(Flatten(data_format=flatten), Dense(128, activation="relu"), Dropout(0.5)),
            Dense(10, activation="softmax"),
        ]
    )


@pytest.fixture
def taught(images: Images) -> Callable[..., int]:
    """`taught(model, scale, shape)` teaches a network, and returns its errors in Keras."""

    def teach_and_count(
        model: keras.Model, scale: float = 1 / 255, shape: tuple[int, ...] = (28, 28, 1)
    ) -> int:
        keras.utils.set_random_seed(0)
        inputs, tested = (
            (some[:COUNT].numpy().reshape(-1, *shape) * scale).astype("float32")
            for some in (images.train_images, images.test_images)
        )
        teach(model, inputs, images.train_labels[:COUNT].numpy())
        wrong = model.predict(tested, verbose=0).argmax(1) != images.test_labels[:COUNT].numpy()
        errors = int(wrong.sum())
        assert errors < 0.3 * COUNT
        return errors

    return teach_and_count


@pytest.fixture
def read(mnist_root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`read(file, *overrides, out=...)` imports it; returns what is told and its summary."""
    monkeypatch.setenv("MNIST_BENCH_DATA", str(mnist_root))

    def run(file: Path, *overrides: str, out: str = "run", flatten: str | None = None) -> Any:
        folder = file.parent / out
        settings = ["model=cnn5x5_single", f"data.limit={COUNT}", *overrides]
        told = import_run(file, folder, settings, flatten)
        return told, json.loads((folder / "summary.json").read_text())

    return run


def read_as_told(read: Callable[..., Any], told: str) -> Any:
    """Do what the last line says; return the summary."""
    say, command = told.splitlines()[-1].split(": ", 1)
    assert say == "To read it so"
    program, verb, file, *rest = shlex.split(command)
    assert (program, verb) == ("mnist-bench", "import-keras")
    options = {rest[i]: rest[i + 1] for i, word in enumerate(rest) if word.startswith("--")}
    assert options["--model"] == "cnn5x5_single"
    settings = [word for word in rest if word.startswith("data.") and "limit" not in word]
    out = Path(options["--out"])
    assert not out.exists()
    return read(Path(file), *settings, out=out.name, flatten=options.get("--flatten"))[1]


def test_weights_for_raw_pixels_are_told(taught: Any, read: Any, tmp_path: Path) -> None:
    model = single()
    errors = taught(model, scale=1)
    told, summary = read(save(model, tmp_path / "raw.weights.h5"))
    assert summary["test_accuracy"] < 0.2
    assert "is that of a guess" in summary["warning"]
    assert f"; with data.scaling=raw it has {errors} errors in 500 test" in summary["warning"]
    assert summary["warning"] in told.splitlines()
    assert read_as_told(read, told)["test_errors"] == errors


def test_weights_flattened_channels_first_are_told(taught: Any, read: Any, tmp_path: Path) -> None:
    """And a file that has its layers tells it itself."""
    model = single(shape=(1, 28, 28), data_format="channels_first", flatten="channels_last")
    errors = taught(model, shape=(1, 28, 28))
    told, summary = read(save(model, tmp_path / "first.weights.h5"))
    assert summary["test_errors"] > 2 * errors
    assert f"with data.scaling=unit --flatten channels_first it has {errors} " in summary["warning"]
    assert read_as_told(read, told)["test_errors"] == errors
    _, whole = read(save(model, tmp_path / "first.keras"), out="whole")
    assert (whole["test_errors"], whole["warning"]) == (errors, None)
    with pytest.raises(ConfigError, match=r"first\.keras tells how maps are flattened"):
        read(tmp_path / "first.keras", out="again", flatten="channels_last")
    with pytest.raises(ConfigError, match="--flatten c is neither"):
        read(tmp_path / "first.weights.h5", out="again", flatten="c")


@pytest.mark.slow
def test_channels_first_that_is_flattened_as_ours_is_read(
    taught: Any, read: Any, tmp_path: Path
) -> None:
    model = single(shape=(1, 28, 28), data_format="channels_first", flatten="channels_first")
    errors = taught(model, shape=(1, 28, 28))
    for suffix in (".h5", ".weights.h5"):
        _, summary = read(save(model, tmp_path / f"first{suffix}"), out=suffix)
        assert (summary["test_errors"], summary["warning"]) == (errors, None)


def test_weights_that_fit_in_no_way_are_told(read: Any, tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    told, summary = read(save(single(), tmp_path / "fresh.weights.h5"))
    assert "is that of a guess" in summary["warning"]
    assert "; no data.scaling and no --flatten is better: it was saved" in summary["warning"]
    assert told.splitlines()[-1] == summary["warning"]
    _, whole = read(save(single(), tmp_path / "fresh.keras"), out="whole")
    assert "; no data.scaling is better: it was trained on other data" in whole["warning"]


def test_the_layers_beside_weights_are_read(
    compose: Compose, taught: Any, read: Any, tmp_path: Path
) -> None:
    model = single(keras.layers.GaussianNoise(0.1))
    errors = taught(model)
    file = save(model, tmp_path / "theirs.weights.h5")
    (tmp_path / "model.json").write_text('{"name": "of a web page"}')  # not Keras's
    assert read(file, out="first")[1]["test_errors"] == errors
    (tmp_path / "model.json").write_text(model.to_json())
    told, summary = read(file, out="second")
    assert summary["test_errors"] == errors
    assert "Left out, as they do nothing but in training: GaussianNoise." in told.splitlines()
    (tmp_path / "theirs.json").write_text(single(padding="same").to_json())
    with pytest.raises(DataError, match=r"theirs\.json differs .* padding=same"):
        read(file, out="third")


def test_a_rescaling_in_the_file_is_the_runs(taught: Any, read: Any, tmp_path: Path) -> None:
    model = single(keras.layers.Rescaling(1 / 255))
    errors = taught(model, scale=1)
    for suffix in SUFFIXES:
        _, summary = read(save(model, tmp_path / f"theirs{suffix}"), out=suffix)
        assert (summary["test_errors"], summary["warning"]) == (errors, None)
    with pytest.raises(DataError, match=r"rescales pixels itself.*give data\.scaling=unit\."):
        read(tmp_path / "theirs.keras", "data.scaling=raw")
    other = save(single(keras.layers.Rescaling(1 / 127.5, -1)), tmp_path / "other.keras")
    with pytest.raises(DataError, match=r"0\.00784314 x \+ -1,.*no data\.scaling does that\."):
        read(other)
    assert not (tmp_path / "run").exists()


def test_pixels_that_are_brought_to_another_shape_are_refused(
    compose: Compose, tmp_path: Path
) -> None:
    """28 columns of 28 rows are as many as 784 in one; only the image's own shape is its shape."""
    square = ["model.channels=[4]", "model.kernel_size=1", "model.pool_after=[]", "model.dense=[]"]
    network = ConvNet(compose("model=cnn5x5_single", *square, "model.dropout=0").model)
    for shape, fits in (((28, 28, 1), True), ((28, 28, -1), True), ((14, 56, 1), False)):
        layers = [keras.Input((784,)), keras.layers.Reshape(shape), Conv2D(4, 1, activation="relu")]
        model = keras.Sequential([*layers, Flatten(), Dense(10, activation="softmax")])
        file = save(model, tmp_path / "m.keras")
        if fits:
            read_into(network, file)
        else:
            with pytest.raises(DataError, match=r"brings its input to \(1, 14, 56\)"):
                read_into(network, file)


ARGUMENTS = {
    "GaussianNoise": {"stddev": 0.5},
    "RandomTranslation": {"height_factor": 0.2, "width_factor": 0.2},
    "RandomZoom": {"height_factor": 0.2},
    "RandomPosterization": {"factor": 4},
    **{kind: {"rate": 0.5} for kind in INERT if "Dropout" in kind},
    **{
        f"Random{what}": {"factor": 0.5}
        for what in (
            *("Brightness", "ColorDegeneration", "Contrast", "Grayscale", "Hue", "Invert"),
            *("Rotation", "Saturation", "Sharpness"),
        )
    },
}


def test_what_only_training_uses_is_left_out(
    compose: Compose, images: Images, tmp_path: Path
) -> None:
    """As Keras itself shows: such layers pass on what they are given, but for those that only
    Keras 2 has, or that take no images."""
    kinds = sorted(INERT - {"RandomHeight", "RandomWidth", "SpatialDropout1D", "SpatialDropout3D"})
    grey = (images.test_images[:3, ..., None] / 255).numpy()
    colour = np.repeat(grey, 3, axis=3)
    for kind in kinds:
        layer = getattr(keras.layers, kind)(**ARGUMENTS.get(kind, {}))
        np.testing.assert_array_equal(np.asarray(layer(colour, training=False)), colour, kind)
    noisy = ["ActivityRegularization", "AlphaDropout", "GaussianNoise", "RandomRotation"]
    inert = [getattr(keras.layers, kind)(**ARGUMENTS.get(kind, {})) for kind in noisy]
    network = ConvNet(compose("model=cnn5x5_single").model)
    for suffix in SUFFIXES:
        read_into(network, save(single(*inert), tmp_path / f"m{suffix}"))
    content = read_keras_file(tmp_path / "m.keras")
    assert content.described is not None and content.described.left_out == noisy


def test_every_layer_of_keras_is_known_by_name() -> None:
    """So that none of them is taken for code of somebody's own."""
    theirs = {
        value.__name__
        for name in dir(keras.layers)
        if isinstance(value := getattr(keras.layers, name), type)
    }
    no_layers = {"InputSpec", "KerasTensor", "MaxNumBoundingBoxes"}
    code = {"FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper"}
    bases = {"Layer", "Pipeline", "Wrapper", "GRUCell", "LSTMCell", "SimpleRNNCell"}
    known = INERT | UNREAD | set(READ) | no_layers | code | bases | {"StackedRNNCells"}
    assert theirs <= known
