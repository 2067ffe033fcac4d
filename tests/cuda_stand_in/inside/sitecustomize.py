"""Loaded by Python when it starts under the stand-in; see ../README.md."""

import importlib.util

if importlib.util.find_spec("torch"):
    import stand_in

    stand_in.install()
