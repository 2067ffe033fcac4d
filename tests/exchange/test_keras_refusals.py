"""Files of Keras that are refused: other networks, code, and what is damaged or built to harm."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import torch
from torch import nn

from mnist_bench.config.schema import TrainConfig
from mnist_bench.errors import ConfigError, DataError
from mnist_bench.exchange.keras.layers import to_keras
from mnist_bench.exchange.keras.reading import read_keras_file
from mnist_bench.exchange.keras.writing import write_keras_file
from mnist_bench.models import ConvNet
from tests.support import keras_reference
from tests.support.keras_files import SUFFIXES, read_into, save

Compose = Callable[..., TrainConfig]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("model", "difference"),
    [
        ("model=cnn3x3", "conv1|layer 1"),
        ("model=cnn5x5", "no Conv2D for conv2|layer 2"),
        ("model=wide5x7_bn", "conv1|layer 1"),
        ("model=cnn5x5_single model.dense=[64]", "dense1|layer 4"),
        (
            "model=cnn5x5_single model.dense=[128,128] model.dropout=[0.25,0.5,0.5]",
            "dense2|layer 6",
        ),
        ("model=cnn5x5_single model.batch_norm=true", "BatchNormalization for batch_norm1|layer 5"),
    ],
)
def test_another_network_is_refused_with_the_first_difference(
    compose: Compose, saved: Path, suffix: str, model: str, difference: str
) -> None:
    network = ConvNet(compose(*model.split()).model)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(DataError, match=difference):
        read_into(network, saved / f"single{suffix}")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


CONV = {"filters": 32, "kernel_size": 5, "activation": "relu"}


@pytest.mark.parametrize(
    ("layers", "complaint"),
    [
        ([keras.layers.Conv2D(**CONV, strides=2)], r"strides=\[2, 2\]"),
        ([keras.layers.Conv2D(**CONV, dilation_rate=2)], r"dilation_rate=\[2, 2\]"),
        ([keras.layers.Conv2D(**CONV, use_bias=False)], "use_bias=False"),
        ([keras.layers.Conv2D(32, 5, activation="tanh")], "activation tanh"),
        ([keras.layers.Conv2D(32, 5)], "activation=linear"),
        ([keras.layers.Conv2D(**CONV, padding="same")], "padding=same"),
        ([keras.layers.Conv2D(**CONV), keras.layers.MaxPooling2D(3)], "MaxPooling2D: 3|strides"),
        ([keras.layers.Conv2D(**CONV), keras.layers.AveragePooling2D(2)], "AveragePooling2D"),
        ([keras.layers.Conv2D(**CONV), keras.layers.ReLU(max_value=6)], "max_value=6"),
        ([keras.layers.Conv2D(**CONV), keras.layers.Lambda(lambda x: x)], "Lambda"),
        ([keras.layers.Conv2D(**CONV), keras.layers.Rescaling(1 / 255)], "Rescaling .* behind"),
        ([keras.layers.Conv2D(**CONV), keras.layers.Reshape((24, 32, 24))], "Reshape .* behind"),
        ([keras.layers.Reshape((14, 56, 1)), keras.layers.Conv2D(**CONV)], "at layer 2"),
    ],
)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_layers_that_compute_something_else_are_refused(
    compose: Compose, tmp_path: Path, layers: list[keras.Layer], complaint: str, suffix: str
) -> None:
    model = keras.Sequential([keras.Input((28, 28, 1)), *layers])
    with pytest.raises(DataError, match=complaint):
        read_into(
            ConvNet(compose("model=cnn5x5_single").model), save(model, tmp_path / f"m{suffix}")
        )


def test_other_batch_norm_settings_are_refused(compose: Compose, tmp_path: Path) -> None:
    model = keras_reference.trained_reference("wide3x5_bn", seed=1)
    next(x for x in model.layers if x.name.startswith("batch_norm")).epsilon = 1e-5
    with pytest.raises(DataError, match=r"epsilon=1e-05.*epsilon=0\.001"):
        read_into(ConvNet(compose("model=wide3x5_bn").model), save(model, tmp_path / "m.keras"))


class Evil(keras.layers.Layer):
    """A layer of the user's own, with a variable."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.scale = self.add_weight(shape=(1,))

    def call(self, x: object) -> object:
        return x


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_custom_layers_are_refused(compose: Compose, tmp_path: Path, suffix: str) -> None:
    model = keras.Sequential([keras.Input((28, 28, 1)), Evil(), keras.layers.Conv2D(**CONV)])
    with pytest.raises(DataError, match=r"(?i)evil"):
        read_into(
            ConvNet(compose("model=cnn5x5_single").model), save(model, tmp_path / f"m{suffix}")
        )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_layers_of_keras_that_no_network_has_are_named_at_once(tmp_path: Path, suffix: str) -> None:
    """And are not called somebody's own; a legacy file of weights has only those with weights."""
    layers = [
        *(keras.layers.Conv2D(**CONV), keras.layers.LayerNormalization()),
        *(keras.layers.AveragePooling2D(2), keras.layers.LeakyReLU(), keras.layers.Flatten()),
    ]
    model = keras.Sequential([keras.Input((28, 28, 1)), *layers])
    with pytest.raises(DataError) as refusal:
        read_keras_file(save(model, tmp_path / f"m{suffix}"))
    told = str(refusal.value)
    for kind in ("LayerNormalization", "AveragePooling2D", "LeakyReLU"):
        assert kind in told.partition("which no network here has; its layers are ")[0]
    order = ("Conv2D", "LayerNormalization", "AveragePooling2D", "LeakyReLU", "Flatten")
    if suffix != ".weights.h5":
        assert told.endswith(f"its layers are {', '.join(order)}.")
    assert "custom" not in told and "executed" not in told


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = keras.layers.Dense(8)

    def call(self, x: object) -> object:
        return self.hidden(x)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
def test_a_model_that_is_code_is_not_called_damaged(tmp_path: Path, suffix: str) -> None:
    model = Subclassed()
    model(np.zeros((1, 4)))
    with pytest.raises(DataError, match=r"code of its own: only .*Sequential and functional"):
        read_keras_file(save(model, tmp_path / f"m{suffix}"))


@pytest.mark.parametrize("legacy", [False, True])
def test_one_variable_under_many_names_is_refused(tmp_path: Path, legacy: bool) -> None:
    """A file of 4 MB that would fill 800."""
    kernel = np.zeros((1024, 1024), "f4")
    names = [f"dense_{i}" for i in range(200)]
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["kernel"] = kernel
        for name in names:
            group = file.create_group(name if legacy else f"layers/{name}/vars")
            group["0"] = file["kernel"]
            group.attrs["weight_names"] = [b"0"]
        if legacy:
            file.attrs["layer_names"] = np.array(names, "S")
    with pytest.raises(DataError, match="its variables are more than 512 MiB"):
        read_keras_file(tmp_path / "m.h5")


def test_a_compressed_archive_is_read_once(saved: Path, tmp_path: Path) -> None:
    """Reading back in what is compressed begins it anew, each time."""
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("config.json", "model.weights.h5"):
            archive.writestr(name, zipfile.ZipFile(saved / "single.keras").read(name))
    opened = []
    with pytest.MonkeyPatch.context() as patch:
        rewind = zipfile.ZipExtFile.seek
        patch.setattr(zipfile.ZipExtFile, "seek", lambda *a: opened.append(a) or rewind(*a))
        compressed = read_keras_file(tmp_path / "m.keras")
    assert not opened
    stored = read_keras_file(saved / "single.keras")
    for ours, theirs in zip(compressed.weighted, stored.weighted, strict=True):
        assert all(map(np.array_equal, ours.variables, theirs.variables))


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.h5")
    with pytest.raises(DataError, match=r"m\.h5 is not a file: give"):
        read_keras_file(tmp_path / "m.h5")


def test_a_branching_model_is_refused(compose: Compose, tmp_path: Path) -> None:
    first = keras.Input((28, 28, 1))
    conv = keras.layers.Conv2D(**CONV)(first)
    both = keras.layers.Flatten()(conv)
    skipped = keras.layers.Dense(10)(keras.layers.Dropout(0.5)(both))
    model = keras.Model(first, [skipped, keras.layers.Dense(10)(both)])
    with pytest.raises(DataError, match="branches at its layer"):
        read_keras_file(save(model, tmp_path / "m.keras"))


def point_outside(group: h5py.Group, outside: Path) -> None:
    del group["0"]
    group["0"] = h5py.ExternalLink(str(outside), "secret")


def store_outside(group: h5py.Group, outside: Path) -> None:
    del group["0"]
    group.create_dataset("0", (5, 5, 1, 32), "f4", external=[(str(outside), 0, 3200)])


def claim_a_terabyte(group: h5py.Group, outside: Path) -> None:
    del group["0"]
    group.create_dataset("0", (2**38,), "f4", chunks=(1024,))


def claim_without_storing(group: h5py.Group, outside: Path) -> None:
    del group["0"]
    group.create_dataset("0", (2**26,), "f4")  # allocated when it is first written


def expand(group: h5py.Group, outside: Path) -> None:
    del group["0"]
    group.create_dataset("0", (4,), "f4", chunks=(2**20,), maxshape=(None,), compression="gzip")


def hold_nothing(group: h5py.Group, outside: Path) -> None:
    del group["0"]
    group["0"] = h5py.Empty("f4")


def hold_text(group: h5py.Group, outside: Path) -> None:
    del group["0"]
    group["0"] = "weights"


def name_it_otherwise(group: h5py.Group, outside: Path) -> None:
    group["kernel"] = group.pop("0")


@pytest.mark.parametrize(
    "tamper",
    [
        *(point_outside, store_outside, claim_a_terabyte, claim_without_storing, expand),
        *(hold_nothing, hold_text, name_it_otherwise),
    ],
)
def test_nothing_outside_the_file_is_read(
    saved: Path, tmp_path: Path, tamper: Callable[[h5py.Group, Path], None]
) -> None:
    with h5py.File(tmp_path / "outside.h5", "w") as file:
        file["secret"] = np.zeros((5, 5, 1, 32), "f4")
    path = tmp_path / "m.weights.h5"
    path.write_bytes((saved / "single.weights.h5").read_bytes())
    with h5py.File(path, "a") as file:
        tamper(file["layers/conv2d/vars"], tmp_path / "outside.h5")
    with pytest.raises(DataError):
        read_keras_file(path)


@pytest.mark.parametrize(
    "names", [7, [1, 2], h5py.Empty("S1"), [b"conv2d", b"conv2d"], [b"nowhere"]]
)
def test_odd_names_of_layers_are_refused(saved: Path, tmp_path: Path, names: object) -> None:
    path = tmp_path / "m.h5"
    path.write_bytes((saved / "single.h5").read_bytes())
    with h5py.File(path, "a") as file:
        file["model_weights"].attrs["layer_names"] = names
    with pytest.raises(DataError):
        read_keras_file(path)


def test_a_damaged_compressed_archive_is_refused(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("config.json", "model.weights.h5"):
            archive.writestr(name, zipfile.ZipFile(saved / "single.keras").read(name))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError):
        read_keras_file(path)


def test_an_archive_that_expands_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * 2**24)
        archive.writestr("model.weights.h5", b"")
    with pytest.raises(DataError, match=r"config\.json is larger"):
        read_keras_file(tmp_path / "m.keras")


def test_a_rate_that_is_no_number_is_another_network(
    compose: Compose, saved: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(saved / "single.keras") as whole:
        config = whole.read("config.json").replace(b'"rate": 0.25', b'"rate": "0.25"')
        weights = whole.read("model.weights.h5")
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", weights)
    with pytest.raises(DataError, match="differs from this network at layer 3"):
        read_into(ConvNet(compose("model=cnn5x5_single").model), tmp_path / "m.keras")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_a_truncated_file_is_refused(
    saved: Path, tmp_path: Path, suffix: str, share: float
) -> None:
    whole = (saved / f"single{suffix}").read_bytes()
    path = tmp_path / f"part{suffix}"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match="part"):
        read_keras_file(path)


def test_an_archive_without_weights_is_refused(saved: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(DataError, match=r"no model\.weights\.h5"):
        read_keras_file(tmp_path / "m.keras")


@pytest.mark.parametrize("config", ["", "[]", "{}", '{"class_name": "Sequential"}', '{"a": NaN'])
def test_a_damaged_configuration_is_refused(saved: Path, tmp_path: Path, config: str) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", config)
        archive.write(saved / "single.weights.h5", "model.weights.h5")
    with pytest.raises(DataError, match="configuration"):
        read_keras_file(tmp_path / "m.keras")


@pytest.mark.parametrize("name", ["weights.h5.txt", "model.hdf5", "single.weights.h5"])
def test_what_cannot_be_written_is_refused(
    compose: Compose, saved: Path, tmp_path: Path, name: str
) -> None:
    network = ConvNet(compose("model=cnn5x5_single").model)
    (tmp_path / "single.weights.h5").write_text("something of value")
    with pytest.raises(ConfigError, match=r"must end in|is there already"):
        write_keras_file(tmp_path / name, to_keras(network), "network")
    assert (tmp_path / "single.weights.h5").read_text() == "something of value"


@pytest.mark.parametrize(
    "layer", [nn.AvgPool2d(2), nn.Sigmoid(), nn.Conv2d(64, 64, 3, dilation=2), nn.MaxPool2d(3)]
)
def test_a_layer_that_keras_is_not_told_of_is_refused_by_name(
    compose: Compose, layer: nn.Module
) -> None:
    """And not left out, so that another network would be written."""
    network = ConvNet(compose("model=cnn5x5").model)
    network.features.add_module("unknown", layer)
    with pytest.raises(ConfigError) as refusal:
        to_keras(network)
    assert f"unknown of this network, {layer}, cannot be written for Keras" in str(refusal.value)


def test_a_network_of_a_users_is_refused() -> None:
    with pytest.raises(ConfigError, match="A Sequential cannot go to Keras"):
        to_keras(nn.Sequential(nn.Linear(2, 2)))
