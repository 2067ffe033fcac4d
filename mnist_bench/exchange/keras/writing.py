"""Files that Keras 3 loads: `.weights.h5` and `.keras`."""

import io
import json
import re
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py

from mnist_bench.errors import ConfigError
from mnist_bench.exchange.keras.layers import KerasLayer
from mnist_bench.runs.folder import atomic_write

# The oldest Keras that knows what is written here.
KERAS_VERSION = "3.0.0"


def write_keras_file(
    path: Path,
    layers: Sequence[KerasLayer],
    name: str,
    image_shape: tuple[int, int, int] = (1, 28, 28),
) -> None:
    """Write a network's layers (`to_keras`) in the format that the file's name asks for.

    `image_shape` is what the network was built for: channels, rows, columns.

    Raises:
        ConfigError: the name ends in neither `.weights.h5` nor `.keras`, or the file is there.
    """
    if not path.name.endswith((".weights.h5", ".keras")):
        raise ConfigError(
            f"{path} must end in .weights.h5 or .keras, the formats that are written."
        )
    if path.exists():
        raise ConfigError(f"{path} is there already: choose another name.")
    content = _weights(layers)
    if path.suffix == ".keras":
        content = _archive(layers, name, image_shape, content)
    try:
        with atomic_write(path, "wb") as file:
            file.write(content)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error


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
        stem = _snake_case(layer.kind)
        count = seen.get(stem, 0)
        seen[stem] = count + 1
        names.append(f"{stem}_{count}" if count else stem)
    return names


def _snake_case(kind: str) -> str:
    """`MaxPooling2D` as `max_pooling2d`, Keras's way."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()
