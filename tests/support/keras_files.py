"""Files that Keras saves, and what import-keras does with one."""

from pathlib import Path

import keras

from mnist_bench.exchange.keras.layers import fill_from_keras
from mnist_bench.exchange.keras.model_config import check_same_layers
from mnist_bench.exchange.keras.reading import read_keras_file
from mnist_bench.models import ConvNet

SUFFIXES = (".keras", ".h5", ".weights.h5")


def save(model: keras.Model, path: Path) -> Path:
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
    else:
        model.save(path)
    return path


def read_into(network: ConvNet, path: Path) -> ConvNet:
    """What import-keras does to a network."""
    content = read_keras_file(path)
    if content.described is not None:
        check_same_layers(content.described, network)
    channels_first = content.described is not None and content.described.flattens_channels_first
    fill_from_keras(network, content.weighted, path.name, channels_first)
    return network
