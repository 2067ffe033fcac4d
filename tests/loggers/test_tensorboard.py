"""What TensorBoard is given to show while a run trains."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from mnist_bench.loggers.tensorboard import TensorBoard
from tests.support.made_up_runs import RECORD, write_events


@dataclass
class Written:
    """The event files of a made-up run of two epochs, as TensorBoard's own reader has them."""

    folder: Path
    events: Any = field(init=False)

    def __post_init__(self) -> None:
        write_events(self.folder, {"seed": 0}, {"model": "mnist_cnn"}, epochs=2)
        self.events = EventAccumulator(str(self.folder / "tensorboard"), {"tensors": 0}).Reload()


def test_training_and_validation_are_in_one_chart(tmp_path) -> None:
    events = Written(tmp_path).events
    (config,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(config.tensor_proto.string_val[0])
    charts = {chart.title: chart.multiline.tag[:] for chart in layout.category[0].chart}
    assert charts.keys() == {"loss", "accuracy"}
    for name, (pattern,) in charts.items():
        shown = {tag for tag in events.Tags()["scalars"] if re.search(pattern, tag)}
        assert shown == {f"{name}/train", f"{name}/val"}


def test_no_run_lists_the_columns_of_all(tmp_path) -> None:
    """TensorBoard would take the first run's list for all runs; see hyperparameters.py."""
    metadata = Written(tmp_path).events.summary_metadata
    assert "_hparams_/session_start_info" in metadata and "_hparams_/session_end_info" in metadata
    assert "_hparams_/experiment" not in metadata


def test_one_writer_has_all_curves(tmp_path) -> None:
    events = Written(tmp_path).events
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    for tag, column in (("loss/train", "train_loss"), ("accuracy/val", "val_accuracy")):
        values = [(event.step, event.value) for event in events.Scalars(tag)]
        assert [step for step, _ in values] == [1, 2]
        assert abs(values[0][1] - RECORD[column]) < 1e-6
    assert [event.step for event in events.Scalars("accuracy/test")] == [2]


def test_a_run_that_ends_before_it_begins_closes() -> None:
    TensorBoard().close()
