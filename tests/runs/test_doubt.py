"""A run that has learnt nothing is completed, but not without a word."""

import math

import torch

from mnist_bench.runs.records import doubt
from tests.support.train_command import FEWER, read_summary, run_train

LABELS = torch.arange(1000) % 10  # a guess is right for a tenth, give or take 0.9 %


def judge(accuracy: float, loss: float, bounded: bool = True) -> str | None:
    figures = {"test_accuracy": accuracy, "test_loss": loss}
    return doubt(figures, LABELS, 10, bounded, "do this")


def test_an_accuracy_that_a_guess_has_is_told() -> None:
    for accuracy in (0.0, 0.1, 0.118):
        told = judge(accuracy, 2.3)
        assert told is not None and "is that of a guess, 10.00%; do this." in told
    assert judge(0.121, 2.3) is None


def test_a_loss_far_above_that_of_a_guess_is_told() -> None:
    for loss in (23.1, 4e31, math.inf, math.nan):
        told = judge(0.9, loss)
        assert told is not None and "above that of a guess, 2.30; do this." in told
    assert judge(0.9, 23.0) is None
    assert judge(0.9, 4e31, bounded=False) is None  # a loss of one's own


def test_a_training_that_went_astray_says_so(tmp_path, mnist_root) -> None:
    """Its loss is a number, and what that is is not."""
    astray = ("optimizer=sgd", "optimizer.lr=30", "scheduler=constant", "hydra.run.dir=run")
    quick = (*FEWER, "data.limit=500", "trainer.epochs=1", "trainer.batch_size=250")
    process = run_train(*quick, *astray, cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 0, process.stderr
    summary = read_summary(tmp_path / "run")
    assert summary["test_loss"] > 1e3
    assert "far above that of a guess, 2.30; lower optimizer.lr" in summary["warning"]
    assert process.stdout.splitlines()[-1] == summary["warning"]


def test_one_that_learns_has_no_warning(uninterrupted) -> None:
    assert read_summary(uninterrupted)["warning"] is None
