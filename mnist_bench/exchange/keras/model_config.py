"""The layers that a Keras configuration (JSON) describes, and whether they are a network's.

Nothing is built from the configuration: it is compared with the network's own layers, so that a
file with the same weights but another padding, activation or pooling is not taken for it.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mnist_bench.errors import DataError
from mnist_bench.exchange.keras.layers import KerasLayer

ACTIVATIONS = ("linear", "relu", "softmax")


def read_model_config(text: str | bytes, source: str) -> list[KerasLayer]:
    """The layers of a `Sequential`, or of a functional model that is a chain.

    A separate activation is counted to the layer before it; input layers and `Flatten` are left
    out.

    Raises:
        DataError: the configuration is damaged, or has a layer that no network here has.
    """
    try:
        model = json.loads(text)
        layers = _chain(model, source)
        return list(_with_activations([_read_layer(layer, source) for layer in layers], source))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise DataError(
            f"{source} has a configuration that cannot be read ({type(error).__name__}: {error}): "
            f"it is damaged, or of a Keras before version 2."
        ) from error


def check_same_layers(
    described: Sequence[KerasLayer], expected: Sequence[KerasLayer], source: str
) -> None:
    """Raise DataError at the first layer in which a file's configuration differs from a network.

    The last layer may give logits in place of probabilities.
    """
    ours = [layer for layer in expected if layer.kind != "Flatten"]
    theirs = list(described)
    if theirs and ours and theirs[-1].settings == {**ours[-1].settings, "activation": "linear"}:
        theirs[-1] = ours[-1]
    for position in range(max(len(ours), len(theirs))):
        here = ours[position] if position < len(ours) else None
        there = theirs[position] if position < len(theirs) else None
        if here is None or there is None or not _same(here, there):
            raise DataError(
                f"{source} differs from this network at layer {position + 1}: it has "
                f"{there or 'no more layers'}, the network {here or 'has no more'}; choose the "
                f"network and settings (such as model.dropout) that it was saved with."
            )


def _same(a: KerasLayer, b: KerasLayer) -> bool:
    return a.kind == b.kind and all(
        math.isclose(value, b.settings[key], rel_tol=1e-6)
        if isinstance(value, float) and isinstance(b.settings[key], int | float)
        else value == b.settings[key]
        for key, value in a.settings.items()
    )


# --- The order of the layers ------------------------------------------------------------------


def _chain(model: dict[str, Any], source: str) -> list[dict[str, Any]]:
    """The descriptions of the layers, each of which feeds the next."""
    config = model["config"]
    layers: list[dict[str, Any]] = config if isinstance(config, list) else config["layers"]
    if model["class_name"] == "Sequential":
        return layers
    if model["class_name"] not in ("Functional", "Model"):
        raise DataError(
            f"{source} holds a {model['class_name']}, which is code of its own: only Sequential "
            f"and functional models are read, and nothing in a file is executed."
        )
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


# --- One layer --------------------------------------------------------------------------------


def _read_layer(layer: dict[str, Any], source: str) -> KerasLayer | None:
    kind, config = layer["class_name"], layer["config"]
    own_module = str(layer.get("module", "keras")).partition(".")[0] == "keras"
    if kind not in _READERS or not own_module or layer.get("registered_name") not in (None, kind):
        raise DataError(
            f"{source} has a {kind} layer ({config.get('name')}), which no network here has: "
            f"nothing in a file is executed, so custom layers and Lambda cannot be read."
        )
    name, fixed, settings = _READERS[kind]
    for key, values in fixed.items():
        if key in config and config[key] not in values:
            raise DataError(
                f"{source} differs from every network here at {config.get('name')}: "
                f"{key}={config[key]} of its {kind}, expected {values[0]}."
            )
    return KerasLayer(name, settings(config)) if name else None


def _activation(config: dict[str, Any]) -> str:
    activation = config["activation"]
    if activation not in ACTIVATIONS:
        raise DataError(
            f"The activation {activation} of the layer {config.get('name')} is not read: "
            f"the networks here have {', '.join(ACTIVATIONS)}, and nothing in a file is executed."
        )
    return str(activation)


def _pair(value: Any) -> list[Any]:
    return [value, value] if isinstance(value, int) else list(value)


def _axis(value: int | list[int]) -> int:
    return value if isinstance(value, int) else value[0]


_ONES = ([1, 1], 1)
_LAST = ("channels_last",)
Settings = Callable[[dict[str, Any]], dict[str, Any]]

# Keras's class -> our name for it (none if it computes nothing), what must hold, what it sets.
_READERS: dict[str, tuple[str, dict[str, Sequence[Any]], Settings]] = {
    "InputLayer": ("", {}, lambda c: {}),
    "Flatten": ("", {"data_format": _LAST}, lambda c: {}),
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
            "data_format": _LAST,
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
        {"data_format": _LAST},
        lambda c: {"cropping": [_pair(cut) for cut in _pair(c["cropping"])]},
    ),
    "MaxPooling2D": (
        "MaxPooling2D",
        {"strides": ([2, 2], 2, None), "padding": ("valid",), "data_format": _LAST},
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


def _with_activations(layers: Sequence[KerasLayer | None], source: str) -> Iterator[KerasLayer]:
    """Count every separate activation to the layer before it, and leave out dropout of rate 0.

    Behind a batch normalisation, which has no activation of its own, it stays a layer.
    """
    pending: KerasLayer | None = None
    on_map = True
    for layer in layers:
        if layer is None or layer.settings.get("rate") == 0:
            continue
        on_map = on_map and layer.kind != "Dense"
        if on_map and layer.kind == "BatchNormalization" and layer.settings["axis"] == 1:
            raise DataError(
                f"{source} normalises a map over its rows (axis=1), unlike every network here: "
                f"expected its channels (axis=-1)."
            )
        normalised = pending is not None and pending.kind == "BatchNormalization"
        if layer.kind == "Activation" and not normalised:
            if pending is None or pending.settings.get("activation") != "linear":
                raise DataError(
                    f"{source} has an activation behind "
                    f"{pending or 'no layer'}, unlike every network here."
                )
            pending = KerasLayer(pending.kind, {**pending.settings, **layer.settings})
            continue
        if pending is not None:
            yield pending
        pending = layer
    if pending is not None:
        yield pending
