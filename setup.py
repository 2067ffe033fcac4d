"""What pyproject.toml cannot say: `conf/` lies beside the package here, and inside it in a wheel.

`find_conf` in mnist_bench/config/compose.py finds either.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["mnist_bench*"]), "mnist_bench.conf", "hydra_plugins"],
    package_dir={"mnist_bench.conf": "conf"},
)
