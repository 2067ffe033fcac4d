"""Networks that Keras saved are read, and those that are written here Keras loads.

The other way round is the reference: Keras itself saves, loads and predicts.
"""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import torch

from mnist_bench.config.schema import TrainConfig
from mnist_bench.data.images import Images
from mnist_bench.errors import DataError
from mnist_bench.exchange.keras.layers import to_keras
from mnist_bench.exchange.keras.model_config import check_same_layers, read_model_config
from mnist_bench.exchange.keras.writing import write_keras_file
from mnist_bench.models import ConvNet
from tests.support import keras_reference
from tests.support.keras_files import SUFFIXES, read_into, save
from tests.support.keras_reference import pixels

Compose = Callable[..., TrainConfig]


@torch.inference_mode()
def probabilities(network: ConvNet, inputs: np.ndarray) -> np.ndarray:
    pixels_N1HW = torch.from_numpy(inputs).permute(0, 3, 1, 2)
    return network.eval()(pixels_N1HW).softmax(1).numpy()


# Slow for their tens of millions of weights.
LARGE = {"vgg16", "conv3_dense7744"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name
        for name in sorted(keras_reference.NETWORKS)
    ],
)
def test_a_network_goes_to_keras_and_back(
    compose: Compose, images: Images, tmp_path: Path, name: str
) -> None:
    config = compose(f"model={name}").model
    model = keras_reference.trained_reference(name, seed=1)
    inputs = pixels(images, 3)
    expected = model.predict(inputs, verbose=0)

    network = read_into(ConvNet(config), save(model, tmp_path / "theirs.keras"))
    np.testing.assert_allclose(probabilities(network, inputs), expected, atol=1e-5)

    write_keras_file(tmp_path / "ours.keras", to_keras(network), name)
    loaded = keras.saving.load_model(tmp_path / "ours.keras")
    np.testing.assert_allclose(loaded.predict(inputs, verbose=0), expected, atol=1e-5)
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)

    write_keras_file(tmp_path / "ours.h5", to_keras(network), name)
    loaded = keras.saving.load_model(tmp_path / "ours.h5")
    np.testing.assert_allclose(loaded.predict(inputs, verbose=0), expected, atol=1e-5)
    back = read_into(ConvNet(config), tmp_path / "ours.h5").state_dict()
    assert all(torch.equal(value, back[key]) for key, value in network.state_dict().items())

    write_keras_file(tmp_path / "ours.weights.h5", to_keras(network), name)
    fresh = keras_reference.fresh_reference(name, seed=2)
    fresh.load_weights(tmp_path / "ours.weights.h5")
    for ours, theirs in zip(fresh.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "change", ["model.stride=[2,1]", "model.crop=3", "model.conv_batch_norm=true"]
)
def test_what_no_published_network_has_goes_to_keras_and_back(
    compose: Compose, images: Images, tmp_path: Path, change: str
) -> None:
    config = compose("model=cnn5x5", change).model
    network = ConvNet(config)
    for tensor in network.buffers():  # running statistics that differ from the first ones
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 2)
    write_keras_file(tmp_path / "ours.keras", to_keras(network), "changed")
    inputs = pixels(images, 3)
    expected = keras.saving.load_model(tmp_path / "ours.keras").predict(inputs, verbose=0)
    np.testing.assert_allclose(probabilities(network, inputs), expected, atol=1e-5)
    back = read_into(ConvNet(config), tmp_path / "ours.keras")
    np.testing.assert_allclose(probabilities(back, inputs), expected, atol=1e-5)
    with pytest.raises(DataError, match="differs"):
        read_into(ConvNet(compose("model=cnn5x5").model), tmp_path / "ours.keras")


@pytest.mark.parametrize("axis", [-1, 3, [3], 1, [1]])
def test_batch_norm_on_a_map_is_over_its_channels(
    compose: Compose, tmp_path: Path, axis: int | list[int]
) -> None:
    """Keras 2 wrote [3] where Keras 3 writes -1; 1 would be the rows."""
    network = ConvNet(compose("model=cnn5x5", "model.conv_batch_norm=true").model)
    write_keras_file(tmp_path / "ours.keras", to_keras(network), "normalised")
    described = json.loads(zipfile.ZipFile(tmp_path / "ours.keras").read("config.json"))
    for layer in described["config"]["layers"]:
        if layer["class_name"] == "BatchNormalization":
            layer["config"]["axis"] = axis
    if axis in (1, [1]):
        with pytest.raises(DataError, match="over its rows"):
            read_model_config(json.dumps(described), "theirs.keras")
    else:
        read = read_model_config(json.dumps(described), "theirs.keras")
        check_same_layers(read, network)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["cnn5x5", "wide5x7_bn"])
def test_every_format_gives_the_same_weights(
    compose: Compose, tmp_path: Path, name: str, suffix: str
) -> None:
    model = keras_reference.trained_reference(name, seed=1)
    network = ConvNet(compose(f"model={name}").model)
    read_into(network, save(model, tmp_path / f"model{suffix}"))
    ours = [variable for layer in to_keras(network) for variable in layer.variables]
    for our, their in zip(ours, model.get_weights(), strict=True):
        np.testing.assert_array_equal(our, their)


def write_as_keras_2(path: Path, model: keras.Model, functional: bool) -> None:
    """What Keras 2.1 to 2.2.4 left of notebook 003's `model.save`: bytes, lists, numbered names."""
    layers = []
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights")
        for layer in model.layers:
            if isinstance(layer, keras.layers.Softmax):
                continue
            kind = type(layer).__name__
            config = {k: v for k, v in layer.get_config().items() if k not in ("dtype", "groups")}
            if not layers:
                config["batch_input_shape"] = [None, 28, 28, 1]
            if layer is model.layers[-2]:
                config["activation"] = "softmax"
            config["kernel_initializer"] = {"class_name": "VarianceScaling", "config": {}}
            layers.append({"class_name": kind, "config": config})
            stored = group.create_group(layer.name)
            names = [f"{layer.name}/{v.name}:0".encode() for v in layer.weights]
            stored.attrs["weight_names"] = np.array(names, dtype="S") if names else []
            for name, variable in zip(names, layer.weights, strict=True):
                stored[name.decode()] = np.asarray(variable)
        group.attrs["layer_names"] = [layer["config"]["name"].encode() for layer in layers]
        group.attrs["backend"] = b"tensorflow"
        if functional:
            names = [layer["config"]["name"] for layer in layers]
            for layer, before in zip(layers, [None, *names[:-1]], strict=True):
                layer["inbound_nodes"] = [[[before, 0, 0, {}]]] if before else []
            model_config = {"class_name": "Model", "config": {"layers": layers}}
        else:
            model_config = {"class_name": "Sequential", "config": layers}
        file.attrs["model_config"] = json.dumps(model_config).encode()


@pytest.mark.parametrize("functional", [False, True])
def test_a_file_of_keras_2_is_read(compose: Compose, tmp_path: Path, functional: bool) -> None:
    model = keras_reference.trained_reference("cnn5x5", seed=1)
    write_as_keras_2(tmp_path / "keras_cnn.h5", model, functional)
    network = read_into(ConvNet(compose("model=cnn5x5").model), tmp_path / "keras_cnn.h5")
    ours = [variable for layer in to_keras(network) for variable in layer.variables]
    for our, their in zip(ours, model.get_weights(), strict=True):
        np.testing.assert_array_equal(our, their)


def test_legacy_weights_without_a_configuration_are_read(
    compose: Compose, saved: Path, tmp_path: Path
) -> None:
    with h5py.File(saved / "single.h5") as whole, h5py.File(tmp_path / "w.h5", "w") as file:
        for name in whole["model_weights"]:
            whole.copy(f"model_weights/{name}", file)
        file.attrs["layer_names"] = whole["model_weights"].attrs["layer_names"]
    config = compose("model=cnn5x5_single").model
    read = read_into(ConvNet(config), tmp_path / "w.h5").state_dict()
    expected = read_into(ConvNet(config), saved / "single.keras").state_dict()
    assert all(torch.equal(read[key], expected[key]) for key in expected)


def test_a_functional_model_that_is_a_chain_is_read(compose: Compose, tmp_path: Path) -> None:
    model = keras_reference.trained_reference("cnn5x5_single", seed=1)
    tensor = first = keras.Input((28, 28, 1))
    for layer in model.layers:
        tensor = layer(tensor)
    chain = keras.Model(first, tensor)
    network = ConvNet(compose("model=cnn5x5_single").model)
    for suffix in (".keras", ".h5"):
        read_into(network, save(chain, tmp_path / f"chain{suffix}"))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", ["wide5x7_bn", "cnn5x5_single"])
def test_a_file_names_how_its_kernels_were_drawn(
    compose: Compose, tmp_path: Path, name: str, suffix: str
) -> None:
    """As the notebook's own layers do."""
    config = compose(f"model={name}").model
    drawn = config.initializer.name, config.output_initializer.name
    file = tmp_path / f"ours{suffix}"
    write_keras_file(file, to_keras(ConvNet(config)), name, initializers=drawn)
    found, expected = (
        [
            layer.get_config()["kernel_initializer"]["class_name"]
            for layer in layers
            if hasattr(layer, "kernel_initializer")
        ]
        for layers in (keras.saving.load_model(file).layers, keras_reference.NETWORKS[name]())
    )
    assert found == expected
    read_into(ConvNet(config), file)
