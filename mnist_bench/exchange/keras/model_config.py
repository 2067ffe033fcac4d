"""The layers that a Keras configuration (JSON) describes, and whether they are a network's.

Nothing is built from the configuration: it is compared with the network's own layers, so that a
file with the same weights but another padding, activation or pooling is not taken for it.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mnist_bench.errors import DataError
from mnist_bench.exchange.keras.builtin import INERT, UNREAD, refuse_layers
from mnist_bench.exchange.keras.layers import KerasLayer, to_keras
from mnist_bench.models import ConvNet

# How activations are named; TensorFlow's own functions by their own names.
ACTIVATIONS = {"linear": "linear", "relu": "relu", "softmax": "softmax", "softmax_v2": "softmax"}


@dataclass
class Description:
    """What a configuration tells of a network, from pixels to probabilities.

    `source` is the file that has it. `layers` are those that a network here may have; input layers
    and `Flatten` are left out, a separate activation is counted to the layer before it.
    """

    source: str
    layers: list[KerasLayer] = field(default_factory=list)
    # What the pixels are first brought to, as (C, H, W); -1 stands for whatever fits.
    image_shape: tuple[int, ...] | None = None
    # The scale and the offset that pixels are multiplied by, and added to, first.
    rescaling: tuple[float, float] | None = None
    # Whether maps have their channels first, and are flattened so.
    channels_first: bool = False
    flattens_channels_first: bool = False
    # Layers that do nothing unless a network is trained, by their kinds.
    left_out: list[str] = field(default_factory=list)

    @property
    def chain(self) -> str:
        return _chain_of(self.layers)


def read_model_config(text: str | bytes, source: str) -> Description:
    """Return what a `Sequential`, or a functional model that is a chain, consists of.

    Raises:
        DataError: the configuration is damaged, or has a layer that no network here has.
    """
    try:
        layers = _chain(json.loads(text), source)
        _refuse_unread(layers, source)
        return _describe(layers, source)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(
            f"{source} has a configuration that cannot be read ({type(error).__name__}: {error}): "
            f"it is damaged, or of a Keras before version 2."
        ) from error


def check_same_layers(described: Description, network: ConvNet) -> None:
    """Raise DataError at the first layer in which a file's configuration differs from a network.

    The last layer may give logits in place of probabilities.
    """
    ours = [layer for layer in to_keras(network) if layer.kind != "Flatten"]
    theirs = list(described.layers)
    if theirs and ours and theirs[-1].settings == {**ours[-1].settings, "activation": "linear"}:
        theirs[-1] = ours[-1]
    for position in range(max(len(ours), len(theirs))):
        here = ours[position] if position < len(ours) else None
        there = theirs[position] if position < len(theirs) else None
        if here is None or there is None or not _same(here, there):
            raise DataError(
                f"{described.source} differs from this network at layer {position + 1}: it has "
                f"{there or 'no more layers'}, the network {here or 'has no more'}; choose the "
                f"network and settings (such as model.dropout) that it was saved with: its layers "
                f"are {described.chain}."
            )
    shape = described.image_shape
    if shape and any(a not in (b, -1) for a, b in zip(shape, network.image_shape, strict=True)):
        raise DataError(
            f"{described.source} brings its input to {shape} (channels, rows, columns), and this "
            f"network takes {network.image_shape}: choose the data that it was trained on."
        )


def _same(a: KerasLayer, b: KerasLayer) -> bool:
    return a.kind == b.kind and all(
        math.isclose(value, b.settings[key], rel_tol=1e-6)
        if isinstance(value, float) and isinstance(b.settings[key], int | float)
        else value == b.settings[key]
        for key, value in a.settings.items()
    )


def _chain_of(layers: Sequence[KerasLayer]) -> str:
    return ", ".join(layer.brief for layer in layers) or "none"


# --- The order of the layers ------------------------------------------------------------------


def _chain(model: dict[str, Any], source: str) -> list[dict[str, Any]]:
    """The descriptions of the layers, each of which feeds the next."""
    if model["class_name"] not in ("Sequential", "Functional", "Model"):
        raise DataError(
            f"{source} holds a {model['class_name']}, which is code of its own: only Sequential "
            f"and functional models are read, and nothing in a file is executed."
        )
    config = model["config"]
    layers: list[dict[str, Any]] = config if isinstance(config, list) else config["layers"]
    if model["class_name"] == "Sequential":
        return layers
    for before, layer in zip([None, *layers[:-1]], layers, strict=True):
        inputs = set(_input_names(layer["inbound_nodes"]))
        if inputs != ({before["config"]["name"]} if before else set()):
            raise DataError(
                f"{source} branches at its layer {layer['config']['name']}: "
                f"the networks here are chains."
            )
    return layers


def _input_names(node: Any) -> Iterator[str]:
    """The names of the layers in `inbound_nodes`, of Keras 2 ([name, 0, 0, …]) or Keras 3."""
    if isinstance(node, dict):
        if "keras_history" in node:
            yield node["keras_history"][0]
        else:
            for value in node.values():
                yield from _input_names(value)
    elif isinstance(node, list):
        if node and isinstance(node[0], str):
            yield node[0]
        else:
            for value in node:
                yield from _input_names(value)


# --- All layers -------------------------------------------------------------------------------


def _refuse_unread(layers: Sequence[dict[str, Any]], source: str) -> None:
    """Refuse layers that no network here has, all at once."""
    unread, own = [], []
    for layer in layers:
        kind = layer["class_name"]
        module = str(layer.get("module") or "keras").partition(".")[0]
        theirs = layer.get("registered_name") not in (None, kind) or module not in KERAS
        if theirs or kind not in {*READ, *INERT, *UNREAD}:
            own.append(kind)
        elif kind in UNREAD:
            unread.append(kind)
    kinds = [layer["class_name"] for layer in layers if layer["class_name"] != "InputLayer"]
    refuse_layers(source, unread, own, ", ".join(kinds))


KERAS = ("keras", "tf_keras")


def _describe(layers: Sequence[dict[str, Any]], source: str) -> Description:
    described = Description(source)
    described.channels_first = _has_channels_first(layers, source)
    found: list[KerasLayer] = []
    for layer in layers:
        kind, config = layer["class_name"], layer["config"]
        if kind in INERT:
            described.left_out.append(kind)
        elif kind == "Reshape" and len(config["target_shape"]) == 1:
            if found:
                described.flattens_channels_first = described.channels_first
        elif kind == "Flatten":
            given = config.get("data_format") or "channels_last"
            if given == "channels_first" and not described.channels_first:
                raise DataError(f"{source} flattens maps as if their channels came first.")
            described.flattens_channels_first = described.channels_first and given != CHANNELS_FIRST
        elif kind in ("Reshape", "Rescaling"):
            _read_about_input(kind, config, described, is_first=not found)
        elif read := _read_layer(kind, config, described):
            found.append(read)
    described.layers = list(_with_activations(found, described))
    return described


CHANNELS_FIRST = "channels_first"


def _has_channels_first(layers: Sequence[dict[str, Any]], source: str) -> bool:
    """Return in which of the two ways maps are laid out, which all layers have to agree on."""
    formats = {
        layer["config"]["data_format"]
        for layer in layers
        if layer["class_name"] in ("Conv2D", "MaxPooling2D", "Cropping2D")
        and layer["config"].get("data_format")
    }
    if len(formats) > 1:
        raise DataError(f"{source} has layers of both data formats, {' and '.join(formats)}.")
    return formats == {CHANNELS_FIRST}


def _read_about_input(
    kind: str, config: dict[str, Any], described: Description, is_first: bool
) -> None:
    """Read what is done to pixels before the first layer that has weights."""
    if not is_first:
        raise DataError(
            f"{described.source} has a {kind} ({config.get('name')}) behind its first layer that "
            f"computes: it is read where it is done to pixels only."
        )
    if kind == "Reshape":
        shape = tuple(config["target_shape"])
        if len(shape) == 3 and not described.channels_first:
            shape = (shape[2], *shape[:2])
        if len(shape) == 3:  # else it is brought to the image by another, or by the first layer
            described.image_shape = shape
    elif described.rescaling is not None:
        raise DataError(f"{described.source} rescales pixels twice: no network here does.")
    else:
        described.rescaling = (float(config["scale"]), float(config.get("offset", 0)))


# --- One layer --------------------------------------------------------------------------------


def _read_layer(kind: str, config: dict[str, Any], described: Description) -> KerasLayer | None:
    """Return a layer as a network here may have it; none if it computes nothing."""
    name, fixed, settings = _READERS[kind]
    for key, values in fixed.items():
        if key in config and config[key] not in values:
            raise DataError(
                f"{described.source} differs from every network here at {config.get('name')}: "
                f"{key}={config[key]} of its {kind}, expected {values[0]}."
            )
    return KerasLayer(name, settings(config)) if name else None


def _activation(config: dict[str, Any]) -> str:
    activation = config["activation"]
    if isinstance(activation, dict) and activation.get("class_name") == "function":
        activation = activation["config"]  # as Keras 3 saves TensorFlow's
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise DataError(
            f"The activation {activation} of the layer {config.get('name')} is not read: "
            f"the networks here have linear, relu and softmax, and nothing in a file is executed."
        )
    return ACTIVATIONS[activation]


def _pair(value: Any) -> list[Any]:
    return [value, value] if isinstance(value, int) else list(value)


def _axis(value: int | list[int]) -> int:
    return value if isinstance(value, int) else value[0]


_ONES = ([1, 1], 1)
Settings = Callable[[dict[str, Any]], dict[str, Any]]

# Keras's class -> our name for it (none if it computes nothing), what must hold, what it sets.
_READERS: dict[str, tuple[str, dict[str, Sequence[Any]], Settings]] = {
    "InputLayer": ("", {}, lambda c: {}),
    "Activation": ("Activation", {}, lambda c: {"activation": _activation(c)}),
    "ReLU": (
        "Activation",
        {"max_value": (None,), "negative_slope": (0,), "threshold": (0,)},
        lambda c: {"activation": "relu"},
    ),
    "Softmax": ("Activation", {"axis": (-1,)}, lambda c: {"activation": "softmax"}),
    "Conv2D": (
        "Conv2D",
        {
            "dilation_rate": _ONES,
            "groups": (1,),
            "use_bias": (True,),
        },
        lambda c: {
            "filters": c["filters"],
            "kernel_size": _pair(c["kernel_size"]),
            "strides": _pair(c["strides"]),
            "padding": c["padding"],
            "activation": _activation(c),
        },
    ),
    "Cropping2D": (
        "Cropping2D",
        {},
        lambda c: {"cropping": [_pair(cut) for cut in _pair(c["cropping"])]},
    ),
    "MaxPooling2D": (
        "MaxPooling2D",
        {"strides": ([2, 2], 2, None), "padding": ("valid",)},
        lambda c: {"pool_size": _pair(c["pool_size"])},
    ),
    "Dropout": ("Dropout", {"noise_shape": (None,)}, lambda c: {"rate": c["rate"]}),
    "Dense": (
        "Dense",
        {"use_bias": (True,)},
        lambda c: {"units": c["units"], "activation": _activation(c)},
    ),
    "BatchNormalization": (
        "BatchNormalization",
        {"axis": (-1, [-1], 1, [1], 3, [3]), "center": (True,), "scale": (True,)},
        lambda c: {
            "momentum": c["momentum"],
            "epsilon": c["epsilon"],
            "axis": _axis(c.get("axis", -1)),
        },
    ),
}


# Layers that are read.
READ = (*_READERS, "Flatten", "Reshape", "Rescaling")


def _with_activations(layers: Sequence[KerasLayer], described: Description) -> Iterator[KerasLayer]:
    """Count every separate activation to the layer before it, and leave out dropout of rate 0.

    Behind a batch normalisation, which has no activation of its own, it stays a layer.
    """
    pending: KerasLayer | None = None
    on_map = True
    for layer in layers:
        if layer.settings.get("rate") == 0 or layer == KerasLayer("Activation", LINEAR):
            continue
        on_map = on_map and layer.kind != "Dense"
        if on_map and layer.kind == "BatchNormalization":
            _check_axis(layer.settings["axis"], described)
        normalised = pending is not None and pending.kind == "BatchNormalization"
        if layer.kind == "Activation" and not normalised:
            if pending is None or pending.settings.get("activation") != "linear":
                raise DataError(
                    f"{described.source} has an activation behind "
                    f"{pending or 'no layer'}, unlike every network here; its layers are "
                    f"{_chain_of(layers)}."
                )
            pending = KerasLayer(pending.kind, {**pending.settings, **layer.settings})
            continue
        if pending is not None:
            yield pending
        pending = layer
    if pending is not None:
        yield pending


LINEAR = {"activation": "linear"}


def _check_axis(axis: int, described: Description) -> None:
    """Raise DataError unless a map is normalised over its channels."""
    if (axis == 1) is not described.channels_first:
        raise DataError(
            f"{described.source} normalises a map over its rows or columns (axis={axis}), unlike "
            f"every network here: expected its channels (axis="
            f"{1 if described.channels_first else -1})."
        )
