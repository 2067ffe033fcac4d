"""Train and compare image classifiers on MNIST-like data.

Data and models are trained; a run records it; launch starts runs; analysis reads them; kernels make
a CPU fast and may be ignored. Each room imports only from those before it:

`errors` → `config`, `kernels` → `data`, `models` → `training` → `loggers` → `runs` → `analysis` →
`launch`, `exchange` → `reproduction` → `cli`
"""

__version__ = "0.1.0"
