"""Where the records of a run are shown: the console, TensorBoard and others.

`Logger` is the base of all, and of one's own (docs/extending.md).
"""

from mnist_bench.loggers.base import Logger, RunInfo

__all__ = ["Logger", "RunInfo"]
