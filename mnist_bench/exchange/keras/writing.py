"""Files that Keras loads: `.keras`, `.weights.h5`, and the `.h5` of Keras 2 and 3."""

import io
import json
import re
import time
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mnist_bench.errors import ConfigError
from mnist_bench.exchange.keras.layers import VARIABLES, KerasLayer
from mnist_bench.runs.folder import atomic_write

# The oldest Keras that knows what is written here, and the one whose `.h5` it is.
KERAS_VERSION, LEGACY_VERSION = "3.0.0", "2.2.4"
DEFAULT_INITIALIZER = "glorot_uniform"


def write_keras_file(
    path: Path,
    layers: Sequence[KerasLayer],
    name: str,
    image_shape: tuple[int, int, int] = (1, 28, 28),
    initializers: tuple[str, str] = (DEFAULT_INITIALIZER, DEFAULT_INITIALIZER),
) -> None:
    """Write a network's layers (`to_keras`) in the format that the file's name asks for.

    `image_shape` is what the network was built for: channels, rows, columns. `initializers` are
    Keras's names of how its kernels were drawn, and those of its output layer.

    Raises:
        ConfigError: the name ends in none of `.keras`, `.weights.h5` and `.h5`, or the file is
            there.
    """
    if not path.name.endswith((".keras", ".h5")):
        raise ConfigError(
            f"{path} must end in .keras, .weights.h5 or .h5, the formats that are written."
        )
    if path.exists():
        raise ConfigError(f"{path} is there already: choose another name.")
    described = _drawn_by(initializers, layers)
    if path.suffix == ".keras":
        content = _archive(described, name, image_shape, _weights(layers))
    elif path.name.endswith(".weights.h5"):
        content = _weights(layers)
    else:
        content = _legacy(described, name, image_shape)
    try:
        with atomic_write(path, "wb") as file:
            file.write(content)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error


def _drawn_by(initializers: tuple[str, str], layers: Sequence[KerasLayer]) -> list[KerasLayer]:
    """Return the layers with how their kernels were drawn, where that is not as Keras does it."""
    hidden, output = initializers
    found = []
    for layer in layers:
        drawn = output if layer is layers[-1] else hidden
        if layer.kind in ("Conv2D", "Dense") and drawn != DEFAULT_INITIALIZER:
            layer = replace(layer, settings={**layer.settings, "kernel_initializer": drawn})
        found.append(layer)
    return found


def _legacy(layers: Sequence[KerasLayer], name: str, image_shape: tuple[int, int, int]) -> bytes:
    """An HDF5 file as `model.save` of Keras 2 wrote it, which Keras 3 reads as well."""
    channels, rows, columns = image_shape
    input_shape = [None, rows, columns, channels]
    described = [_plain("InputLayer", {"name": "input", "batch_input_shape": input_shape})]
    for layer_name, layer in zip(_unique_names(layers), layers, strict=True):
        described.append(_plain(layer.kind, {"name": layer_name, **layer.settings}))
    model = {"class_name": "Sequential", "config": {"name": name, "layers": described}}
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        group = file.create_group("model_weights")
        for place in (file, group):
            place.attrs["keras_version"] = LEGACY_VERSION
            place.attrs["backend"] = "tensorflow"
        file.attrs["model_config"] = json.dumps(model)
        group.attrs["layer_names"] = _as_bytes(_unique_names(layers))
        for layer_name, layer in zip(_unique_names(layers), layers, strict=True):
            stored = group.create_group(layer_name)
            kinds = VARIABLES.get(layer.kind, ())
            names = [f"{layer_name}/{variable}:0" for variable in kinds]
            stored.attrs["weight_names"] = _as_bytes(names)
            for variable_name, variable in zip(names, layer.variables, strict=True):
                stored[variable_name] = variable
    return buffer.getvalue()


def _plain(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": kind, "config": config}


def _as_bytes(names: Sequence[str]) -> np.ndarray:
    return np.array([name.encode() for name in names], dtype="S" if names else "S1")


def _weights(layers: Sequence[KerasLayer]) -> bytes:
    """An HDF5 file with a group of variables for each layer, as Keras 3 names them."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for group_name, layer in zip(_unique_names(layers), layers, strict=True):
            variables = file.create_group(f"layers/{group_name}/vars")
            for index, variable in enumerate(layer.variables):
                variables[str(index)] = variable
        file.create_group("vars")
    return buffer.getvalue()


def _archive(
    layers: Sequence[KerasLayer], name: str, image_shape: tuple[int, int, int], weights: bytes
) -> bytes:
    buffer = io.BytesIO()
    date = time.strftime("%Y-%m-%d@%H:%M:%S")
    with zipfile.ZipFile(buffer, "w") as archive:
        metadata = {"keras_version": KERAS_VERSION, "date_saved": date}
        archive.writestr("metadata.json", json.dumps(metadata))
        archive.writestr("config.json", json.dumps(_model_config(layers, name, image_shape)))
        archive.writestr("model.weights.h5", weights)
    return buffer.getvalue()


def _model_config(
    layers: Sequence[KerasLayer], name: str, image_shape: tuple[int, int, int]
) -> dict[str, Any]:
    channels, rows, columns = image_shape
    input_shape = [None, rows, columns, channels]
    input_layer = _object("InputLayer", {"batch_shape": input_shape, "name": "input_layer"})
    described = [
        _object(layer.kind, {"name": layer_name, **layer.settings})
        for layer_name, layer in zip(_unique_names(layers), layers, strict=True)
    ]
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": name, "layers": [input_layer, *described]},
        "registered_name": None,
        "build_config": {"input_shape": input_shape},
    }


def _object(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": config,
        "registered_name": None,
    }


def _unique_names(layers: Sequence[KerasLayer]) -> list[str]:
    """`conv2d`, `conv2d_1`, `dense`, … as Keras numbers layers of one class."""
    seen: dict[str, int] = {}
    names = []
    for layer in layers:
        stem = snake_case(layer.kind)
        count = seen.get(stem, 0)
        seen[stem] = count + 1
        names.append(f"{stem}_{count}" if count else stem)
    return names


def snake_case(kind: str) -> str:
    """`MaxPooling2D` as `max_pooling2d`, Keras's way."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()
