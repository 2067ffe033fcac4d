"""What loggers are told, several at once, none, one that fails, and Weights & Biases offline."""

import logging
import struct
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from mnist_bench.config.parts import Part
from mnist_bench.errors import ConfigError
from mnist_bench.loggers.base import Logger, Loggers
from mnist_bench.loggers.console import LogFile
from mnist_bench.loggers.wandb import WandB
from tests.support.train_command import read_summary, run_train

TINY = (
    *("data.limit=200", "trainer.epochs=2", "trainer.gpus=0", "trainer.precision=fp32"),
    *("model.channels=[4,4]", "model.dense=[8]", "hydra.run.dir=run"),
)
told: list[tuple[str, object]] = []


class Told(Logger):
    """Remembers what it is told, and fails where it is asked to."""

    def __init__(self, fails: str = ""):
        self.fails = fails

    def _take(self, what: str, value: object = None) -> None:
        told.append((what, value))
        if what == self.fails:
            raise OSError("no room")

    def start(self, run):
        self._take("start", run)

    def epoch(self, record):
        self._take("epoch", record)

    def end(self, summary):
        self._take("end", summary)

    def close(self):
        self._take("close")


def part(name: str, **arguments: object) -> Part:
    return Part(f"logger.{name}", f"{__name__}.Told", name, arguments)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest imports this file under a name of its own."""
    monkeypatch.setattr(Part, "_import", lambda self: Told)
    told.clear()


def tell(loggers: Loggers) -> None:
    loggers.start("a run")
    loggers.epoch({"epoch": 1})
    loggers.end({"status": "completed"})
    loggers.close()


def test_several_are_told_everything_in_order() -> None:
    tell(Loggers({"one": part("one"), "other": part("other")}))
    twice = [what for what in ("start", "epoch", "end", "close") for _ in range(2)]
    assert [what for what, _ in told] == twice


def test_one_that_fails_is_left_out_with_a_warning_and_the_others_go_on(caplog) -> None:
    loggers = Loggers({"bad": part("bad", fails="epoch"), "good": part("good")})
    tell(loggers)
    (told_once,) = [record.getMessage() for record in caplog.records]
    assert told_once.startswith("logger.bad failed in epoch() and is left out from here on: ")
    assert "no room" in told_once
    bad, good = ["start", "epoch", "close"], ["start", "epoch", "end", "close"]
    assert [what for what, _ in told] == [bad[0], good[0], *bad[1:], *good[1:]]


def test_a_log_that_takes_no_line_says_so_once_and_takes_the_next(tmp_path, capsys) -> None:
    """As when its folder is gone for a while, or its disk full."""
    file = tmp_path / "folder" / "train.log"
    handler = LogFile(str(file))
    for number in range(4):
        if number == 2:
            file.parent.mkdir()
        handler.handle(logging.makeLogRecord({"msg": f"строка {number}"}))
    handler.close()
    (sentence,) = capsys.readouterr().err.splitlines()
    assert str(file) in sentence and "is gone: put that back; the run goes on" in sentence
    assert file.read_text("utf-8").splitlines() == ["строка 2", "строка 3"]


def test_a_full_disk_fails_the_log_no_sooner_than_the_run(capsys) -> None:
    handler = LogFile("/dev/full")
    for _ in range(3):
        handler.handle(logging.makeLogRecord({"msg": "a line"}))
    handler.close()
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "/dev/full cannot be written, as the disk is full: free some space; the run" in sentence


def test_what_it_is_told_it_cannot_change() -> None:
    record = {"epoch": 1}

    class Changes(Told):
        def epoch(self, record):
            record.clear()

    loggers = Loggers({})
    loggers.members = {"changes": Changes()}
    loggers.epoch(record)
    assert record == {"epoch": 1}


def test_without_loggers_the_plain_files_are_all(tmp_path, mnist_root) -> None:
    process = run_train("logger=none", *TINY, cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 0, process.stderr
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert read_summary(tmp_path / "run")["status"] == "completed"


def test_wandb_has_offline_what_the_plain_files_have(tmp_path, mnist_root) -> None:
    """With the real package, beside TensorBoard."""
    arguments = ("logger=[tensorboard,wandb]", "logger.wandb.mode=offline", *TINY)
    process = run_train(*arguments, cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 0, process.stderr
    run = tmp_path / "run"
    (file,) = (run / "wandb").glob("offline-run-*/run-*.wandb")
    config, history, summary = read_wandb(file)
    saved = read_summary(run)
    assert config["model.kernel_size"] == "3" and config["seed"] == "0"
    assert [row["epoch"] for row in history] == ["1", "2"]
    assert float(history[1]["loss/val"]) == pytest.approx(saved["val_loss"])
    assert float(summary["test_accuracy"]) == pytest.approx(saved["test_accuracy"])
    scalars = EventAccumulator(str(run / "tensorboard")).Reload().Scalars("loss/val")
    assert [event.step for event in scalars] == [1, 2]


def records_of(data: bytes):
    """The records of a log in LevelDB's format, behind wandb's header of seven bytes."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a full one, or the last piece
            yield whole
            whole = b""


def read_wandb(file):
    """Config, rows and summary of wandb's own file, each a dict of texts in JSON."""
    config, history, summary = {}, [], {}
    for data in records_of(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("run"):
            config |= {item.key: item.value_json for item in record.run.config.update}
        if record.HasField("history"):
            history.append(named(record.history.item))
        if record.HasField("summary"):
            summary |= named(record.summary.update)
    return config, history, summary


def named(items):
    return {item.key or "/".join(item.nested_key): item.value_json for item in items}


def test_without_the_package_wandb_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"pip install 'mnist-bench\[wandb\]'"):
        WandB()
