"""Sweeps: what their runs are, which are there already, and how they went."""
