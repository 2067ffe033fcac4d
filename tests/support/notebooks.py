"""The networks of the five sources as their own published code builds them in Keras.

Written after that code, layer by layer, with what it feeds them; not after `conf/`. README 002
prints no layers: those of Keras's example mnist_cnn.py are taken, whose recipe its log is of. Those
of notebook 003 are its summary's and its cells'.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np
from keras.layers import (
    Activation,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    MaxPooling2D,
    Reshape,
)
from torch import Tensor

from tests.support.keras_reference import move_away


def _softmax_v2(logits):
    return jax.nn.softmax(logits)


def _relu(features):
    return jax.nn.relu(features)


# What `tf.nn` has under these names; Keras saves a function by its own name.
_softmax_v2.__name__, _relu.__name__ = "softmax_v2", "relu"
tf = SimpleNamespace(nn=SimpleNamespace(softmax=_softmax_v2, relu=_relu))


def vgg16() -> keras.Sequential:
    """README 000: mnist.py of ashish-ucsb/mnist-vgg16-keras."""
    model = keras.Sequential()
    model.add(Reshape((28, 28, 1)))
    for filters, count, pooled in (
        *((64, 2, True), (128, 2, True), (256, 3, True)),
        *((512, 3, True), (512, 3, False)),
    ):
        for _ in range(count):
            model.add(Conv2D(filters, (3, 3), padding="same", activation="relu"))
        if pooled:
            model.add(MaxPooling2D(data_format="channels_last", pool_size=(2, 2)))
    model.add(Flatten())
    model.add(Dense(256, activation="relu"))
    model.add(Dropout(0.5))
    model.add(Dense(256, activation="relu"))
    model.add(Dropout(0.5))
    model.add(Dense(10))
    model.add(Activation("softmax"))
    return model


def conv3_dense7744() -> keras.Sequential:
    """README 001: CNN_for_MNIST.ipynb of Shivani29sheth/CNN-for-MNIST-using-Keras."""
    return keras.Sequential(
        [
            Conv2D(32, (3, 3), activation="relu", input_shape=(28, 28, 1)),
            Conv2D(64, (3, 3), activation="relu"),
            Conv2D(64, (3, 3), activation="relu"),
            MaxPooling2D(2, 2),
            Flatten(),
            Dense(7744, activation=tf.nn.relu),
            Dense(128, activation=tf.nn.relu),
            Dense(10, activation=tf.nn.softmax),
        ]
    )


def mnist_cnn() -> keras.Sequential:
    """README 002: the example mnist_cnn.py of Keras 2."""
    model = keras.Sequential()
    model.add(Conv2D(32, kernel_size=(3, 3), activation="relu", input_shape=(28, 28, 1)))
    model.add(Conv2D(64, (3, 3), activation="relu"))
    model.add(MaxPooling2D(pool_size=(2, 2)))
    model.add(Dropout(0.25))
    model.add(Flatten())
    model.add(Dense(128, activation="relu"))
    model.add(Dropout(0.5))
    model.add(Dense(10, activation="softmax"))
    return model


def _notebook_003(*convolutions: keras.Layer) -> keras.Sequential:
    model = keras.Sequential()
    model.add(Reshape((28, 28, 1), input_shape=(784,)))
    for layer in convolutions:
        model.add(layer)
    model.add(MaxPooling2D(pool_size=(2, 2)))
    model.add(Dropout(0.25))
    model.add(Flatten())
    model.add(Dense(128, activation="relu"))
    model.add(Dropout(0.5))
    model.add(Dense(10, activation="softmax"))
    return model


def cnn3x3() -> keras.Sequential:
    """Notebook 003, its log headed "3 x 3"."""
    return _notebook_003(
        Conv2D(32, (3, 3), activation="relu"), Conv2D(64, (3, 3), activation="relu")
    )


def cnn5x5() -> keras.Sequential:
    """Notebook 003, its cells."""
    return _notebook_003(
        Conv2D(32, (5, 5), activation="relu"), Conv2D(64, (5, 5), activation="relu")
    )


def cnn5x5_single() -> keras.Sequential:
    """Notebook 003, its printed summary."""
    return _notebook_003(Conv2D(32, (5, 5), activation="relu"))


def _readme_004(sides: tuple[int, int], dense: tuple[int, ...], batch_norm: bool):
    drawn = {"kernel_initializer": "he_normal"}
    model = keras.Sequential()
    model.add(Conv2D(*(64, (sides[0],) * 2), activation="relu", input_shape=(28, 28, 1), **drawn))
    model.add(Conv2D(128, (sides[1],) * 2, activation="relu", **drawn))
    model.add(MaxPooling2D(pool_size=(2, 2)))
    model.add(Dropout(0.5))
    model.add(Flatten())
    for units in dense:
        model.add(Dense(units, activation="relu", **drawn))
        if batch_norm:
            model.add(BatchNormalization())
        model.add(Dropout(0.5))
    model.add(Dense(10, activation=tf.nn.softmax, kernel_initializer="glorot_normal"))
    return model


def wide3x3() -> keras.Sequential:
    """README 004, Model 1."""
    return _readme_004((3, 3), (128,), batch_norm=False)


def wide3x5_bn() -> keras.Sequential:
    """README 004, Model 2."""
    return _readme_004((3, 5), (256,), batch_norm=True)


def wide5x7_bn() -> keras.Sequential:
    """README 004, Model 3."""
    return _readme_004((5, 7), (256, 128), batch_norm=True)


@dataclass(frozen=True)
class Source:
    """A network, the shape of an image as its code feeds it, and by what pixels are divided."""

    build: Callable[[], keras.Sequential]
    shape: tuple[int, ...]
    divisor: int = 255

    def inputs(self, images_NHW: Tensor) -> np.ndarray:
        pixels = images_NHW.numpy().reshape(-1, *self.shape)
        return pixels.astype("float32") / self.divisor


IMAGE, FLAT = (28, 28, 1), (784,)
SOURCES = {
    "vgg16": Source(vgg16, (28, 28), divisor=1),
    "conv3_dense7744": Source(conv3_dense7744, IMAGE),
    "mnist_cnn": Source(mnist_cnn, IMAGE),
    "cnn3x3": Source(cnn3x3, FLAT),
    "cnn5x5": Source(cnn5x5, FLAT),
    "cnn5x5_single": Source(cnn5x5_single, FLAT),
    "wide3x3": Source(wide3x3, IMAGE),
    "wide3x5_bn": Source(wide3x5_bn, IMAGE),
    "wide5x7_bn": Source(wide5x7_bn, IMAGE),
}


def teach(model: keras.Sequential, inputs: np.ndarray, labels: np.ndarray, seed: int = 0) -> None:
    """Give a network weights that know digits: those of its output layer by least squares on what
    the layers before it, drawn at random, make of the inputs. It takes no step of training.
    """
    model(inputs[:2])  # built, where its code leaves that to `fit`
    move_away(model, seed)
    output = [layer for layer in model.layers if isinstance(layer, Dense)][-1]
    before = model.layers[model.layers.index(output) - 1]
    features = keras.Model(model.inputs, before.output).predict(inputs, verbose=0).astype("float64")
    centred = features - features.mean(0)
    gram = centred.T @ centred
    ridge = 1e-3 * np.trace(gram) / len(gram) * np.eye(len(gram))
    targets = 10 * np.eye(10)[labels]
    kernel = np.linalg.solve(gram + ridge, centred.T @ (targets - targets.mean(0)))
    bias = targets.mean(0) - features.mean(0) @ kernel
    output.set_weights([kernel.astype("float32"), bias.astype("float32")])
