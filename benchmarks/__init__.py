"""Measurements behind the project's claims on speed; results are in `benchmarks/results/`."""
