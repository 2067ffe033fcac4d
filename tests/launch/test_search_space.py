"""What a space may be."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from mnist_bench.errors import ConfigError
from mnist_bench.launch.search.space import as_overrides, find_space, read_space


def read(tmp_path, text):
    (tmp_path / "space.yaml").write_text(text)
    return read_space(tmp_path / "space.yaml")


def test_a_space_has_ranges_whole_numbers_and_choices(tmp_path):
    space = read(
        tmp_path,
        "optimizer.lr: {low: 1e-4, high: 1e-2, log: true}\n"
        "model.dropout: {low: 0, high: 0.6, step: 0.1}\n"
        "trainer.batch_size: {low: 32, high: 256, step: 32}\n"
        "model.kernel_size: [3, [3, 5]]\n"
        "trainer.ema_decay: [null, 0.99]\n"
        "optimizer: [adam, sgd]\n",
    )
    assert space.distributions == {
        "optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True),
        "model.dropout": FloatDistribution(0, 0.6, step=0.1),
        "trainer.batch_size": IntDistribution(32, 256, step=32),
        "model.kernel_size": CategoricalDistribution([3, "[3,5]"]),
        "trainer.ema_decay": CategoricalDistribution([None, 0.99]),
        "optimizer": CategoricalDistribution(["adam", "sgd"]),
    }
    lines = [as_overrides(values) for values in space.ends()]
    assert lines[0] == [
        *("optimizer.lr=0.0001", "model.dropout=0.0", "trainer.batch_size=32"),
        *("model.kernel_size=3", "trainer.ema_decay=null", "optimizer=adam"),
    ]
    reached = {line for values in lines for line in values}
    assert {"optimizer.lr=0.01", "model.kernel_size=[3,5]", "optimizer=sgd"} <= reached


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- 1", "is not a space: it has to be a mapping"),
        ("", "is not a space"),
        ("a: [1", "cannot be read"),
        ("a: 1", "a: 1 is neither a range, such as {low: 0.0, high: 0.6}, nor a list"),
        ("a: []", "a has an empty list"),
        ("a: [1, 1]", "a has 1 twice"),
        ("a: {low: 1, high: 1}", "a has low 1 and high 1: low has to be below high"),
        ("a: {low: 0, high: 1, log: true}", "a has log: true and low 0"),
        ("a: {low: 0, high: 1, log: 3}", "a has log: 3, which has to be true or false"),
        ("a: {low: 0}", "a is no range: give two numbers, low and high"),
        ("a: {low: 0, high: x}", "a is no range"),
        ("a: {min: 0, high: 1}", "a has min, and a range takes low, high, log, step"),
        ("a: {low: 0, high: 1, step: 2}", "a has step 2"),
        ("a: {low: 1, high: 9, step: 2, log: true}", "a has both log: true and a step"),
        ("seed: [1, 2]", "seed is not searched: give --seeds"),
        ("logger: [none, wandb]", "logger is not searched: it does not decide"),
        ("trainer.gpus: [0, 1]", "trainer.gpus is not searched"),
    ],
)
def test_a_space_that_cannot_be_is_refused_in_a_sentence(tmp_path, text, told):
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, text)
    assert told in str(refused.value) and "space.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_ready_space_is_found_by_its_name():
    assert set(read_space(find_space("small")).distributions) == {
        *("optimizer.lr", "model.dropout", "model.kernel_size"),
    }
    with pytest.raises(ConfigError, match=r"--space tiny is not there: .* one of small"):
        find_space("tiny")
