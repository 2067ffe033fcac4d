import math
import os
import shutil
import signal
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torchvision.datasets import MNIST

from mnist_bench.data.splits import epoch_order
from mnist_bench.errors import TrainingError
from mnist_bench.runs.checkpoint import (
    read_checkpoint,
    restore_training,
    training_state,
    write_checkpoint,
)
from mnist_bench.runs.prepare import prepare
from mnist_bench.training.interrupt import Interrupted, OutOfTime, StopRequest
from mnist_bench.training.learner import build_learner
from mnist_bench.training.loop import Position, Training, stops_early, train

QUICK = ("data.limit=300", "trainer.batch_size=128", "trainer.gpus=0")


@pytest.fixture
def make(compose, mnist_root):
    """Everything a training needs, from overrides of the default configuration."""

    def build(*overrides):
        config = compose(
            f"data.root={mnist_root}", "trainer.precision=fp32", "trainer.epochs=2", *overrides
        )
        prepared = prepare(config, lambda line: None)
        learner = build_learner(config, prepared.placement, prepared.splits)
        position = Position(learner.new_totals())
        return learner, prepared.splits, position, config.trainer

    return build


def run_to_end(learner, splits, position, config, show=lambda progress: None, stop=None):
    training = Training(learner, position, seed=0)
    config = replace(config, refresh_seconds=0.01)
    return list(train(training, splits, config, stop or StopRequest(), show))


def weights_of(learner):
    return torch.cat([p.detach().flatten() for p in learner.network.parameters()])


def test_training_equals_a_loop_written_by_hand(make, mnist_root):
    """Same weights bit for bit, and the same means, as plain PyTorch on torchvision's images."""
    learner, splits, position, config = make(*QUICK, "optimizer.lr=1e-3", "scheduler=constant")
    torch.manual_seed(1)
    records = run_to_end(learner, splits, position, config)

    other, *_ = make(*QUICK, "optimizer.lr=1e-3", "scheduler=constant")
    network = other.network.train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    mnist = MNIST(mnist_root, train=True)
    torch.manual_seed(1)
    for record in records:
        losses, right = [], 0
        for batch in epoch_order(300, seed=0, epoch=record["epoch"]).split(128):
            images, labels = mnist.data[batch].unsqueeze(1) / 255, mnist.targets[batch]
            logits = network(images)
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses += [loss.item()] * len(batch)
            right += sum(int(logits[i].argmax()) == int(labels[i]) for i in range(len(batch)))
        assert record["train_loss"] == pytest.approx(sum(losses) / 300, rel=1e-6)
        assert record["train_accuracy"] == pytest.approx(right / 300)
        assert record["learning_rate"] == 1e-3
        assert record["images_per_second"] == pytest.approx(300 / record["seconds"])
    assert torch.equal(weights_of(learner), weights_of(other))


def test_validation_is_measured_without_dropout_on_the_held_out_images(make, mnist_root):
    learner, splits, position, config = make(*QUICK, "model.dropout=0.9")
    record = run_to_end(learner, splits, position, config)[-1]
    mnist = MNIST(mnist_root, train=True)
    images, labels = mnist.data[55_000:55_300].unsqueeze(1) / 255, mnist.targets[55_000:55_300]
    with torch.no_grad():
        logits = learner.network.eval()(images)
    assert record["val_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert record["val_accuracy"] == pytest.approx(
        (logits.argmax(1) == labels).float().mean().item()
    )


def test_binary_loss_reports_both_accuracies(make):
    learner, splits, position, config = make(*QUICK, "loss=binary_cross_entropy")
    record = run_to_end(learner, splits, position, config)[-1]
    _, logits = learner.evaluate(splits.validation, "val")
    targets = F.one_hot(splits.validation.labels, 10).bool()
    by_hand = ((logits.softmax(1) > 0.5) == targets).float().mean().item()
    assert record["val_binary_accuracy"] == pytest.approx(by_hand)
    assert record["val_binary_accuracy"] > record["val_accuracy"]
    assert record["train_binary_accuracy"] > record["train_accuracy"]


@pytest.mark.parametrize("steps_taken", [2, 3])
@pytest.mark.parametrize("extra", ["", "augmentation=affine_elastic trainer.ema_decay=0.9"])
def test_interrupted_between_two_steps_and_resumed_is_the_same_training(
    make, tmp_path, steps_taken, extra
):
    """Stopped within the first epoch, or after its last step but before its validation."""
    chosen = (*QUICK, "optimizer=keras_adam", *extra.split())
    learner, splits, position, config = make(*chosen)
    whole = run_to_end(learner, splits, position, config)

    stopped, splits, stopped_position, config = make(*chosen)
    with StopRequest() as stop:
        original = stopped.compute

        def step_and_press_ctrl_c(*arguments):
            original(*arguments)
            if stopped_position.step == steps_taken - 1:
                os.kill(os.getpid(), signal.SIGINT)

        stopped.compute = step_and_press_ctrl_c
        with pytest.raises(Interrupted):
            run_to_end(stopped, splits, stopped_position, config, stop=stop)
    assert (stopped_position.epoch, stopped_position.step) == (1, steps_taken)
    write_checkpoint(
        tmp_path / "checkpoints" / "last.pt", training_state(stopped, stopped_position)
    )

    resumed, splits, resumed_position, config = make(*chosen)
    torch.manual_seed(123)
    state = read_checkpoint(tmp_path / "checkpoints" / "last.pt")
    restore_training(state, resumed, resumed_position)
    rest = run_to_end(resumed, splits, resumed_position, config)
    assert torch.equal(weights_of(resumed), weights_of(learner))
    for one, other in zip(whole, rest, strict=True):
        assert one["train_loss"] == other["train_loss"]
        assert one["val_loss"] == other["val_loss"]
        assert one["learning_rate"] == other["learning_rate"]


def test_the_mean_of_the_weights_is_what_is_validated(make, mnist_root):
    """And the weights of the moment train on, as they do without a mean."""
    plain, splits, position, config = make(*QUICK)
    run_to_end(plain, splits, position, config)
    averaged, splits, position, config = make(*QUICK, "trainer.ema_decay=0.5")
    record = run_to_end(averaged, splits, position, config)[-1]
    assert torch.equal(weights_of(averaged), weights_of(plain))
    assert averaged.tested is not averaged.network
    mnist = MNIST(mnist_root, train=True)
    images, labels = mnist.data[55_000:55_300].unsqueeze(1) / 255, mnist.targets[55_000:55_300]
    with torch.no_grad():
        loss = F.cross_entropy(averaged.tested.eval()(images), labels).item()
        of_the_moment = F.cross_entropy(averaged.network.eval()(images), labels).item()
    assert record["val_loss"] == pytest.approx(loss, rel=1e-5)
    assert record["val_loss"] != pytest.approx(of_the_moment, rel=1e-3)


def test_training_images_are_distorted_and_validation_images_are_not(make):
    learner, splits, position, config = make(
        *QUICK, "augmentation.translation=3", "trainer.epochs=1"
    )
    seen = []
    learner.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    run_to_end(learner, splits, position, config)
    *batches, validated = seen
    assert torch.equal(validated, splits.scaling(splits.validation.images))
    trained = torch.cat(batches).flatten(1)
    plain = splits.scaling(splits.train.images[epoch_order(300, seed=0, epoch=1)]).flatten(1)
    torch.testing.assert_close(trained.sum(1), plain.sum(1), rtol=0.1, atol=0)
    assert ((trained - plain).abs().amax(1) > 0.1).all()


def test_ctrl_c_during_the_last_validation_is_not_lost(make):
    learner, splits, position, config = make(*QUICK)
    evaluate = learner.evaluate

    def evaluate_and_press_ctrl_c(images, part):
        if position.epoch == config.epochs:
            os.kill(os.getpid(), signal.SIGINT)
        return evaluate(images, part)

    learner.evaluate = evaluate_and_press_ctrl_c
    with StopRequest() as stop, pytest.raises(Interrupted):
        run_to_end(learner, splits, position, config, stop=stop)
    assert len(position.history) == config.epochs
    assert (position.epoch, position.step) == (config.epochs + 1, 0)


def test_without_time_each_process_takes_one_step_and_the_training_is_the_same(make):
    """Or what comes between two of them; else the same command would never come to an end."""
    whole = run_to_end(*make(*QUICK))
    learner, splits, position, config = make(*QUICK)
    seen = []
    while not seen or seen[-1] != (3, 0):
        with pytest.raises(OutOfTime):
            run_to_end(learner, splits, position, config, stop=StopRequest(1e-9))
        seen.append((position.epoch, position.step))
    assert seen == [(1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3), (3, 0)]
    assert [r["val_loss"] for r in position.history] == [r["val_loss"] for r in whole]
    assert run_to_end(learner, splits, position, config, stop=StopRequest(1e-9)) == []


def test_a_validation_and_a_test_are_begun_only_if_there_is_time_for_them(make):
    """Which is reckoned by the training's: here all three have as many images."""
    asked = []

    class Asked(StopRequest):
        def check(self, seconds=0.0):
            asked.append(seconds)

    first, last = run_to_end(*make(*QUICK), stop=Asked())
    assert (asked.count(first["seconds"]), asked.count(last["seconds"])) == (1, 2)


def test_more_epochs_draw_the_schedule_anew_from_the_first_step(make):
    """Two epochs of a cosine end at a rate of zero; of four, they are half way."""
    learner, splits, position, config = make(*QUICK)
    run_to_end(learner, splits, position, config)
    assert learner.steps == 6
    assert learner.schedule(6) == 0
    longer, _, longer_position, config = make(*QUICK, "trainer.epochs=4")
    restore_training(training_state(learner, position), longer, longer_position)
    third = run_to_end(longer, splits, longer_position, config)[0]
    assert third["epoch"] == 3
    last_of_it = 3e-3 * (1 + math.cos(math.pi * 8 / 12)) / 2
    assert third["learning_rate"] == pytest.approx(last_of_it)


def test_a_setting_that_came_after_a_checkpoint_has_its_default(make):
    """Muon's iterations, in a run that was saved before they could be set."""
    learner, splits, position, config = make(*QUICK, "optimizer=muon", "optimizer.iterations=3")
    state = training_state(learner, position)
    del state["optimizer"]["param_groups"][0]["iterations"]
    again, *_ = make(*QUICK, "optimizer=muon", "optimizer.iterations=4")
    restore_training(state, again, position)
    assert again.optimizer.param_groups[0]["iterations"] == 4
    run_to_end(again, splits, position, config)


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ("trainer.precision=fp32", r"steps? \d"),
        ("trainer.precision=bf16", r"steps? \d"),
        ("trainer.refresh_seconds=1e-9", r"step \d+: "),  # looked at after each
    ],
)
def test_a_loss_that_is_not_finite_stops_and_says_where(make, override, where):
    learner, splits, position, config = make(*QUICK, "optimizer=sgd", "optimizer.lr=1e20", override)
    with pytest.raises(TrainingError, match=rf"The loss became .* in epoch 1, {where}"):
        run_to_end(learner, splits, position, config)


def test_clip_norm_bounds_the_step(make):
    """With plain SGD at rate 1 the weights move by the gradient, so by its clipped norm."""
    plain_sgd = ("optimizer=sgd", "optimizer.lr=1", "optimizer.momentum=0", "scheduler=constant")
    learner, splits, _, _ = make(*QUICK, *plain_sgd, "trainer.clip_norm=0.01")
    before = weights_of(learner).clone()
    learner.network.train()
    learner.begin_step()
    learner.compute(splits.train, learner.new_totals(), torch.arange(128))
    assert (weights_of(learner) - before).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_mixed_precision_keeps_fp32_weights_and_learns_the_same(make):
    losses = {}
    for precision in ("fp32", "bf16"):
        learner, splits, position, config = make(*QUICK, f"trainer.precision={precision}")
        losses[precision] = run_to_end(learner, splits, position, config)[-1]["train_loss"]
        assert all(p.dtype is torch.float32 for p in learner.network.parameters())
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)


def test_progress_counts_steps_and_ends_with_the_epoch(make):
    glances = []
    learner, splits, position, config = make(*QUICK)
    run_to_end(learner, splits, position, config, glances.append)
    seen = [(glance.epoch, glance.step) for glance in glances]
    assert seen == sorted(set(seen))
    assert all(1 <= step <= 3 for _, step in seen)
    assert all(math.isfinite(glance.loss) for glance in glances)


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler here")
def test_a_compiled_network_trains_the_same(make):
    plain, splits, position, config = make(*QUICK, "model.dropout=0")
    expected = run_to_end(plain, splits, position, config)
    compiled, splits, position, config = make(*QUICK, "model.dropout=0", "trainer.compile=true")
    records = run_to_end(compiled, splits, position, config)
    assert records[-1]["train_loss"] == pytest.approx(expected[-1]["train_loss"], rel=1e-3)


# --- Early stopping ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "patience", "expected"),
    [
        ([], 1, False),
        ([3, 2, 1], 1, False),
        ([3, 2, 2], 1, True),  # as low is not lower
        ([1, 2, 3], 3, False),
        ([1, 2, 3, 4], 3, True),
        ([2, 3, 1, 4], 2, False),
        ([1, 2, 3, 4], None, False),
    ],
)
def test_it_stops_after_so_many_epochs_without_a_lower_loss(losses, patience, expected):
    history = [{"epoch": i, "val_loss": loss} for i, loss in enumerate(losses, start=1)]
    assert stops_early(history, patience) is expected


def test_a_training_that_stops_early_was_the_same_until_then(make):
    """At a rate that makes it worse, and resumed as if it had not stopped."""
    chosen = (
        *(*QUICK, "model.channels=[4,4]", "model.dense=[16]", "trainer.epochs=12"),
        *("scheduler=constant", "optimizer=sgd", "optimizer.lr=0.5"),
    )
    whole = run_to_end(*make(*chosen))
    stopped = run_to_end(*make(*chosen, "trainer.early_stopping=2"))
    losses = [record["val_loss"] for record in whole]
    expected = next(n for n in range(1, 13) if n - losses.index(min(losses[:n])) > 2)
    assert len(stopped) == expected < 12
    assert [record["val_loss"] for record in stopped] == losses[:expected]

    learner, splits, position, config = make(*chosen, "trainer.early_stopping=2")
    run_to_end(learner, splits, position, config)
    assert run_to_end(learner, splits, position, config) == []
    longer = replace(config, early_stopping=None)
    rest = run_to_end(learner, splits, position, longer)
    assert [record["val_loss"] for record in rest] == losses[expected:]
