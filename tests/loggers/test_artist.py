"""The process that draws figures beside the training: what it leaves, and what goes wrong."""

import os
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_bench.loggers import artist
from mnist_bench.loggers.artist import Artist, awaited
from mnist_bench.loggers.pictures import RunPictures, Tiles
from tests.support.made_up_runs import RECORD, write_events

NOTHING = Tiles(np.zeros((0, 1, 8, 8), np.uint8), [])
PICTURES = RunPictures(
    name="a run",
    result="90.00%",
    class_names=("0", "1"),
    history=[RECORD],
    tested_epoch=1,
    **dict.fromkeys(("samples", "right", "wrong", "mistakes"), NOTHING),
    confusion=np.array([[3, 1], [0, 4]]),
    kernels=None,
)


def test_it_draws_into_the_folder_and_behind_the_curves_of_tensorboard(tmp_path, capsys) -> None:
    write_events(tmp_path, {}, {})
    own = Artist()
    own.draw(PICTURES, tmp_path / "figures", tmp_path / "tensorboard")
    own.draw(PICTURES, tmp_path / "again", None)
    own.wait()
    assert "drawing the figures of" in capsys.readouterr().out
    for folder in ("figures", "again"):
        files = sorted((tmp_path / folder).iterdir())
        assert [file.name for file in files] == ["confusion.png", "curves.png"]
    first, second = sorted((tmp_path / "tensorboard").iterdir())
    assert second.name.endswith(".figures")
    read = EventAccumulator(str(tmp_path / "tensorboard"), {"images": 0}).Reload()
    assert set(read.Tags()["images"]) == {"figures/confusion", "figures/curves"}
    (shown,) = read.Images("figures/curves")
    assert shown.encoded_image_string == (tmp_path / "figures" / "curves.png").read_bytes()
    assert (shown.width, shown.height) == Image.open(tmp_path / "figures" / "curves.png").size
    assert read.Tags()["scalars"] and first.stat().st_mtime <= second.stat().st_mtime


def test_what_cannot_be_drawn_is_told_and_costs_no_other(tmp_path, capsys) -> None:
    own = Artist()
    own.draw(PICTURES, tmp_path / "gone" / "figures", None)
    own.draw(replace(PICTURES, confusion="?"), tmp_path / "odd", None)  # type: ignore[arg-type]
    own.draw(PICTURES, tmp_path / "figures", None)
    own.wait()
    said = capsys.readouterr().out
    assert "The figures of gone (and those of one run) are not drawn: " in said
    assert "is gone: put that back" in said and "Traceback" not in said
    assert (tmp_path / "figures" / "curves.png").exists()


def test_without_matplotlib_one_sentence_says_so(tmp_path, capsys, monkeypatch) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ImportError('No module named matplotlib')")
    monkeypatch.setattr(artist.mnist_bench, "__file__", str(tmp_path / "x" / "y.py"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    own = Artist()
    own.draw(PICTURES, tmp_path / "figures", None)
    own.wait()
    lines = [line for line in capsys.readouterr().out.splitlines() if "drawing" not in line]
    assert lines == [
        "The figures of one run are not drawn: ImportError: No module named matplotlib"
    ]


def test_ctrl_c_while_it_waits_costs_the_figures_alone(tmp_path, capsys) -> None:
    own = Artist()
    for number in range(50):
        (tmp_path / f"run-{number}").mkdir()
        own.draw(PICTURES, tmp_path / f"run-{number}" / "figures", None)
    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    begun = time.monotonic()
    try:
        own.wait()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - begun < 10
    said = capsys.readouterr().out
    assert "drawing the figures of 50 runs (Ctrl-C leaves them out)" in said
    assert "runs are left out. To draw them: mnist-bench figures " in said
    assert said.rstrip().endswith(os.path.relpath(tmp_path))
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


def test_runs_that_are_trained_faster_than_drawn_do_not_pile_up(
    tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(artist, "MOST_WAITING", 1)
    own = Artist()
    for number in range(3):
        (tmp_path / f"run-{number}").mkdir()
        own.draw(PICTURES, tmp_path / f"run-{number}" / "figures", None)
    own.wait()
    assert (tmp_path / "run-0" / "figures" / "curves.png").exists()
    assert "The figures of 2 runs are left out" in capsys.readouterr().out


def test_a_process_that_others_leave_no_time_is_replaced(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(artist, "STARVED", 0.05)
    own = Artist()
    own.start()
    assert own._process is not None
    own._process.send_signal(signal.SIGSTOP)
    for number in range(3):
        (tmp_path / f"run-{number}").mkdir()
        own.draw(PICTURES, tmp_path / f"run-{number}" / "figures", None)
    own.wait()
    assert len(list(tmp_path.glob("run-*/figures/curves.png"))) == 3


class Remembers(Artist):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def wait(self) -> None:
        self.told.append("wait")

    def leave_out(self) -> None:
        self.told.append("leave out")


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (None, "wait"),
        (SystemExit(1), "wait"),  # a run of a sweep has failed
        (SystemExit(75), "leave out"),  # the time was used up
        (SystemExit(130), "leave out"),
        (KeyboardInterrupt(), "leave out"),
        (ValueError(), "wait"),
    ],
)
def test_a_command_that_was_stopped_does_not_wait(end: BaseException | None, told: str) -> None:
    own = Remembers()
    with suppress(BaseException), awaited(own):
        if end is not None:
            raise end
    assert own.told == [told]


def test_the_process_is_not_started_where_there_is_nothing_to_draw(capsys) -> None:
    Artist().wait()
    Artist().leave_out()
    assert capsys.readouterr().out == ""
