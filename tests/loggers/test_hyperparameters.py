"""The columns of TensorBoard's HPARAMS page: which there are, of one type, and how they sort."""

import itertools
import random

import pytest
from tensorboard.plugins.hparams.metadata import (
    parse_session_end_info_plugin_data,
    parse_session_start_info_plugin_data,
)

from mnist_bench.config.walk import flatten
from mnist_bench.loggers.hyperparameters import as_text, columns, session_end, session_start
from tests.support.config_files import options

MIXED = (
    ("model.dropout=0.25",),
    ("model.dropout=[0.25,0.5]",),
    ("model.kernel_size=3",),
    ("model.kernel_size=[3,5]", "data.limit=100"),
    ("trainer.clip_norm=1", "trainer.early_stopping=3", "augmentation=affine"),
    ("data.holdout_size=0.1", "data.image_size=[32,28]", "augmentation.rotation=5"),
    ("label_smoothing=0.1", "trainer.compile=true", "seed=4294967295"),
    *((f"{group}={name}",) for group in ("optimizer", "scheduler") for name in options(group)),
    *((f"experiment={name}",) for name in options("experiment")),
)


def test_each_column_is_of_one_type_in_all_runs(compose) -> None:
    kinds: dict[str, set[type]] = {}
    for overrides in MIXED:
        for key, value in columns(flatten(compose(*overrides)), {}, overrides).items():
            kinds.setdefault(key, set()).add(type(value))
    assert {key: kind for key, kind in kinds.items() if len(kind) > 1} == {}
    assert kinds["optimizer.lr"] == {float} and kinds["model.dropout"] == {str}


def test_what_decides_a_run_has_a_column_and_what_does_not_has_none(compose) -> None:
    choices = {
        "model": "cnn3x3",
        "experiment": None,
        "augmentation": "affine",
        "trainer": "default",
    }
    found = columns(flatten(compose("model=cnn3x3", "optimizer.lr=0.02")), choices)
    groups = {"model": "cnn3x3", "experiment": "null", "augmentation": "affine", "data": "null"}
    assert groups.items() <= found.items() and "trainer" not in found
    assert found["optimizer.lr"] == 0.02
    assert found["model.kernel_size"].strip() == "3" and found["seed"].strip() == "0"
    assert not {"data.root", "trainer.figures", "model.name", "logger"} & found.keys()
    assert not any(key.startswith("augmentation.") for key in found)  # none was set
    given = columns(flatten(compose("augmentation.rotation=5")), {}, ["augmentation.rotation=5"])
    assert given["augmentation.rotation"] == 5.0


def test_numbers_as_texts_sort_as_numbers_and_read_as_they_were_given() -> None:
    numbers = [0, 0.00001, 0.05, 0.1, 0.25, 1, 3, 5, 9, 10, 11, 28, 128, 1.5, 2**32 - 1]
    shuffled = random.Random(0).sample(numbers, len(numbers))
    assert [float(text) for text in sorted(map(as_text, shuffled))] == sorted(numbers)
    assert as_text(0.00001).strip() == "0.00001" and as_text(5.0) == as_text(5)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([0.25, 0.5], "[0.25,0.5]"),
        (True, "true"),
        (None, "null"),
        ("адам", "????"),
        ('a"b\\c', "a'b/c"),
    ],
)
def test_other_values_are_texts_that_filters_find(value: object, text: str) -> None:
    assert as_text(value) == text


def test_texts_of_numbers_and_lists_can_be_compared() -> None:
    for one, other in itertools.combinations([3, [3, 5], None, 0.5, "auto"], 2):
        assert (as_text(one) < as_text(other)) in (True, False)


def test_tensorboard_reads_what_is_written() -> None:
    start = session_start({"optimizer.lr": 0.1, "seed": "3"}).value[0]
    read = parse_session_start_info_plugin_data(start.metadata.plugin_data.content)
    assert read.hparams["optimizer.lr"].number_value == 0.1
    assert read.hparams["seed"].string_value == "3"
    end = session_end().value[0]
    assert parse_session_end_info_plugin_data(end.metadata.plugin_data.content).status == 1
