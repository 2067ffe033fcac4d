"""Train and compare image classifiers on MNIST-like data.

The path of a digit: `config` → `data` → `models` → `step` → `loop` → `records` → `tensorboard`.
A module imports only what stands before it.
"""

__version__ = "0.1.0"
