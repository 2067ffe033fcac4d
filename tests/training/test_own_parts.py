"""A loss, a schedule, an optimizer and a network of one's own train as what they are equal to."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from mnist_bench.config.parts import Part
from mnist_bench.errors import ConfigError
from mnist_bench.runs.prepare import prepare
from mnist_bench.training.interrupt import StopRequest
from mnist_bench.training.learner import build_learner
from mnist_bench.training.loop import Position, Training, train
from mnist_bench.training.schedulers import Scheduler

QUICK = ("data.limit=300", "trainer.gpus=0", "trainer.precision=fp32", "trainer.epochs=2")


class Halves(Scheduler):
    """Half of the rate in every epoch, as `scheduler=step` with a size of one."""

    def factor(self, step):
        return 0.5 ** (step // self.steps_per_epoch)


class NoFactor(Scheduler):
    """Has not said what it multiplies by."""


class Same(nn.Module):
    """The layers of cnn5x5_single without dropout, by hand."""

    def __init__(self, num_classes, image_shape):
        super().__init__()
        channels, rows, columns = image_shape
        self.conv = nn.Conv2d(channels, 32, 5)
        self.dense = nn.Linear(32 * ((rows - 4) // 2) * ((columns - 4) // 2), 128)
        self.output = nn.Linear(128, num_classes)

    def forward(self, images):
        maps = nn.functional.max_pool2d(self.conv(images).relu(), 2)
        return self.output(self.dense(maps.permute(0, 2, 3, 1).flatten(1)).relu())


class Leaves(Same):
    """Ends the process where an error belongs."""

    def forward(self, images):
        sys.exit(0)


class KeepsArrays(Same):
    """Its state cannot be read back without running code."""

    def get_extra_state(self):
        return np.arange(3)

    def set_extra_state(self, state):
        pass


class KeepsText(Same):
    """A state beside tensors that can be."""

    said = "nothing"

    def get_extra_state(self):
        return {"said": self.said}

    def set_extra_state(self, state):
        self.said = state["said"]


class ForgetsAPart(Same):
    """What it saves is not what it loads."""

    def state_dict(self, *arguments, **named):
        return {k: v for k, v in super().state_dict(*arguments, **named).items() if "conv" in k}


class CountsWithObjects(torch.optim.SGD):
    """Keeps a set in its state, which a checkpoint cannot hold."""

    def step(self, closure=None):
        super().step(closure)
        for weight in self.param_groups[0]["params"]:
            self.state[weight]["seen"] = np.arange(2)


class Never(Scheduler):
    """Multiplies by what is no number."""

    def factor(self, step):
        return float("nan")


class Odd(nn.Module):
    """Returns what is no loss."""

    def forward(self, logits, labels):
        return logits


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch):
    """Part of a class of this file, or of PyTorch's."""
    find = Part._import

    def take(self):
        return globals()[self.target[5:]] if self.target.startswith("here.") else find(self)

    monkeypatch.setattr(Part, "_import", take)
    return lambda group, target, **arguments: Part(group, target, target, arguments)


def losses(config, weights=None):
    prepared = prepare(config, lambda line: None)
    learner = build_learner(config, prepared.placement, prepared.splits)
    if weights is not None:
        learner.network.load_state_dict(weights)
    training = Training(learner, Position(learner.new_totals()), 0)
    records = list(
        train(training, prepared.splits, config.trainer, StopRequest(), lambda progress: None)
    )
    return [record[key] for record in records for key in ("train_loss", "val_loss")]


def test_a_loss_and_a_schedule_of_ones_own_are_those_that_they_equal(compose, mnist_root, own):
    base = (f"data.root={mnist_root}", *QUICK, "scheduler=step", "scheduler.step_size=1")
    config = compose(*base)
    theirs = replace(
        config,
        loss=own("loss", "torch.nn.CrossEntropyLoss"),
        scheduler=own("scheduler", "here.Halves"),
    )
    assert losses(theirs) == losses(config)


def test_an_optimizer_of_pytorchs_is_that_which_it_equals(compose, mnist_root, own):
    config = compose(f"data.root={mnist_root}", *QUICK, "optimizer=sgd", "optimizer.momentum=0.8")
    theirs = replace(config, optimizer=own("optimizer", "torch.optim.SGD", lr=0.05, momentum=0.8))
    assert losses(theirs) == pytest.approx(losses(config), rel=1e-4)


def test_a_state_beside_tensors_is_kept_with_mean_weights_too(compose, mnist_root, own):
    config = compose(f"data.root={mnist_root}", *QUICK, "trainer.ema_decay=0.9")
    theirs = replace(config, model=own("model", "here.KeepsText"))
    assert len(losses(theirs)) == 4


def test_a_network_of_ones_own_is_that_which_it_equals(compose, mnist_root, own):
    """From the same weights, through the same kernels."""
    settings = ("model=cnn5x5_single", "model.dropout=0", *QUICK)
    config = compose(f"data.root={mnist_root}", *settings)
    theirs = replace(config, model=own("model", "here.Same"))
    prepared = prepare(config, lambda line: None)
    built = build_learner(config, prepared.placement, prepared.splits).network.state_dict()
    names = {"features.conv1": "conv", "classifier.dense1": "dense", "classifier.output": "output"}
    weights = {f"{names[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v for k, v in built.items()}
    assert losses(theirs, weights) == pytest.approx(losses(config), rel=1e-4)


@pytest.mark.parametrize(
    ("group", "target", "said"),
    [
        ("loss", "here.Odd", "does not return one number"),
        ("loss", "here.Halves", "not a class that derives from torch.nn"),
        ("scheduler", "torch.optim.lr_scheduler.StepLR", "not a class that derives from mnist"),
        ("scheduler", "here.NoFactor", "cannot be made: TypeError.*factor"),
        ("scheduler", "here.Never", "returns nan from factor"),
        ("optimizer", "torch.optim.LBFGS", "closure"),
        ("optimizer", "torch.optim.Muon", "cannot be made: ValueError: Muon only supports 2D"),
        ("optimizer", "here.CountsWithObjects", "has in its state_dict what a checkpoint cannot"),
        ("model", "here.Leaves", r"fails on images of \(2, 1, 28, 28\): SystemExit: 0"),
        ("model", "here.KeepsArrays", "has in its state_dict what a checkpoint cannot hold"),
        ("model", "here.ForgetsAPart", "cannot be saved and read back"),
        ("model", "torch.nn.Identity", "returns"),
        ("model", "torch.nn.Bilinear", "cannot be called with"),
    ],
)
def test_what_cannot_work_is_refused_before_it_trains(
    compose, mnist_root, own, group, target, said
):
    config = compose(f"data.root={mnist_root}", *QUICK)
    with pytest.raises(ConfigError, match=said):
        prepare(replace(config, **{group: own(group, target)}), lambda line: None)
    assert torch.is_grad_enabled()
