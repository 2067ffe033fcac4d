"""The datasets: what each one is, where its files come from, and reading them.

`Dataset` and `Images` are what a dataset of one's own needs (docs/configuration.md).
"""

from mnist_bench.data.images import Dataset, Images

__all__ = ["Dataset", "Images"]
