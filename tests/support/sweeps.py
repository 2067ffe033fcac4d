"""Tiny sweeps, and what they have trained."""

from tests.support.train_command import TINY, run_train

NAMED = ("-m", *TINY, "sweep.name=named")


def sweep_of(folder, mnist_root, *arguments, status=0):
    process = run_train(*arguments, cwd=folder, data_root=mnist_root)
    assert process.returncode == status, process.stderr
    return process


def when_trained(folder):
    return {p.parent.name: p.stat().st_mtime_ns for p in folder.rglob("predictions.npz")}
