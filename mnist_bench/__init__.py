"""Train and compare image classifiers on MNIST-like data.

Data and models are trained; a run records it; launch starts runs; analysis reads them; kernels make
a CPU fast and may be ignored. Each room imports only from those before it:

`errors` → `config`, `kernels` → `data`, `models` → `training` → `loggers` → `runs` → `analysis` →
`launch`, `exchange` → `reproduction` → `cli`
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_bench.runs.load import load

__all__ = ["__version__", "load"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Find `load` when it is asked for: PyTorch takes seconds, which `--version` need not wait."""
    if name != "load":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from mnist_bench.runs.load import load

    return load
