"""Which rows `python -m benchmarks.gpu` measures when, with programs that any machine can run."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.gpu import schedule
from benchmarks.gpu.rows import FILE, add_row, read_rows
from benchmarks.gpu.schedule import BEFORE, FAILED, NEW, calls, find_reason, plan
from tests.support.gpu_parts import HERE, PROGRAM, fake, measure, numbers, row

EARLIER = replace(HERE, commit="another commit")
ROOT = Path(__file__).parents[2]


def names(turns):
    return [(turn.part.name, [key["n"] for key in turn.keys], turn.reason) for turn in turns]


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_what_has_no_row_comes_first_and_the_cheapest_of_it_before_the_rest(tmp_path):
    parts = [
        fake(tmp_path, "long", numbers(1), seconds=1, long=True),
        fake(tmp_path, "measured", numbers(2), seconds=2),
        fake(tmp_path, "dear", numbers(2), seconds=50),
        fake(tmp_path, "broken", numbers(1), seconds=1),
        fake(tmp_path, "cheap", numbers(3), seconds=10),
        fake(tmp_path, "half", numbers(2), seconds=20),
    ]
    rows = [
        row("measured", {"n": 0}, EARLIER),
        row("measured", {"n": 1}, EARLIER),
        row("broken", {"n": 0}, failed="it broke"),
        row("half", {"n": 0}),
        # Of another device: not known here.
        row("cheap", {"n": 0}, replace(HERE, device="another device")),
    ]
    assert names(plan(parts, rows, HERE)) == [
        ("half", [1], NEW),
        ("cheap", [0, 1, 2], NEW),
        ("dear", [0, 1], NEW),
        ("measured", [0, 1], BEFORE),
        ("long", [0], NEW),
        ("broken", [0], FAILED),
    ]


def test_a_plan_takes_the_seconds_that_a_row_was_measured_in(tmp_path):
    parts = [fake(tmp_path, "step", numbers(2), seconds=5)]
    (measured, unknown) = (row("step", {"n": 0}, EARLIER, seconds=2.5), [])
    (new, before) = plan(parts, [measured], HERE)
    assert (new.seconds, before.seconds) == (5, 2.5)
    assert plan(parts, unknown, HERE)[0].seconds == 10


def test_a_call_takes_as_many_rows_as_fit_and_leaves_the_rest_for_the_next(tmp_path):
    parts = [
        fake(tmp_path, "cheap", numbers(3), seconds=10),
        fake(tmp_path, "dear", numbers(4), seconds=20),
        fake(tmp_path, "endless", numbers(1), seconds=100),
    ]
    found = [names(call) for call in calls(plan(parts, [], HERE), 75)]
    assert found == [
        [("cheap", [0, 1, 2], NEW), ("dear", [0, 1], NEW)],
        [("dear", [2, 3], NEW)],
        [("endless", [0], NEW)],  # too long for any
    ]


def test_every_row_is_measured_once_at_a_commit(tmp_path):
    parts = [fake(tmp_path, "one", numbers(3)), fake(tmp_path, "two", numbers(2))]
    assert measure(parts, tmp_path)[0] == 0
    rows = read_rows(tmp_path)
    assert [(r.part, r.figures["n"]) for r in rows] == [
        *(("two", 0), ("two", 1)),
        *(("one", 0), ("one", 1), ("one", 2)),
    ]
    assert all(r.origin == HERE and r.seconds is not None for r in rows)
    measure(parts, tmp_path)
    assert read_rows(tmp_path) == rows


def test_a_failure_is_noted_and_the_rest_goes_on_before_it_is_tried_again(tmp_path):
    keys = numbers(4)
    keys[1]["fails"] = True
    failed, said = measure([fake(tmp_path, "step", keys)], tmp_path)
    assert failed == 1
    assert any("the kernel is not there" in line for line in said), said
    rows = read_rows(tmp_path)
    assert [(r.key["n"], r.failed) for r in rows] == [
        *((0, None), (1, "the kernel is not there (code 1)")),
        *((2, None), (3, None)),
    ]
    assert "the kernel is not there" in (tmp_path / "logs" / "step.log").read_text()
    # It is mended; something new comes before it all the same.
    mended = PROGRAM.replace('key.get("fails")', "False")
    parts = [
        fake(tmp_path, "step", keys, program=mended),
        fake(tmp_path, "later", numbers(1), seconds=5),
    ]
    measure(parts, tmp_path)
    assert [(r.part, r.key["n"]) for r in read_rows(tmp_path)[4:]] == [("later", 0), ("step", 1)]
    assert plan(parts, read_rows(tmp_path), HERE) == []


def test_a_part_that_measures_nothing_twice_is_left_for_another_call(tmp_path):
    failed, _ = measure([fake(tmp_path, "step", numbers(5, fails=True))], tmp_path)
    assert failed == 2


def test_a_part_that_is_stuck_is_ended_and_its_row_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(schedule, "PATIENCE_SECONDS", 3.0)
    keys = [{"n": 0, "sleep": 600}, {"n": 1}]
    failed, _ = measure([fake(tmp_path, "step", keys)], tmp_path)
    assert failed == 1
    assert [(r.key["n"], r.failed and r.failed[:11]) for r in read_rows(tmp_path)] == [
        (0, "longer than"),
        (1, None),
    ]


def test_the_reason_of_a_failure_is_its_last_exception():
    """Not the advice behind it."""
    printed = (
        "Traceback (most recent call last):\n"
        "KeyError: 'a'\n\nDuring handling of the above exception, another exception occurred:\n"
        "torch.AcceleratorError: CUDA error: out of memory\n\nSet CUDA_LAUNCH_BLOCKING=1\n"
    )
    assert find_reason(printed) == "torch.AcceleratorError: CUDA error: out of memory"
    assert find_reason("begun\nno such kernel\n") == "no such kernel"
    assert find_reason("") == "it ended without a word"


def test_the_end_of_a_call_is_no_failure(tmp_path):
    """Of a row that takes longer than was thought."""
    start = time.monotonic()
    failed, said = measure([fake(tmp_path, "step", numbers(1, sleep=600))], tmp_path, seconds=2)
    assert failed == 0 and time.monotonic() - start < 20
    assert read_rows(tmp_path) == [] and "the call is over" in said[-1]


CALL = """
from pathlib import Path
from tests.support.gpu_parts import fake, measure, numbers
folder = Path(r"{folder}")
measure([fake(folder, "step", numbers(6, sleep=0.5))], folder)
"""


def test_a_call_that_is_killed_keeps_its_rows_and_the_next_one_goes_on(tmp_path):
    call = CALL.format(folder=tmp_path)
    with subprocess.Popen([sys.executable, "-c", call], cwd=ROOT) as process:
        while len(read_rows(tmp_path)) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    time.sleep(1.5)  # in which the process that it left would measure two rows more
    rows = read_rows(tmp_path)
    assert 2 <= len(rows) <= 3
    time.sleep(1.0)
    assert read_rows(tmp_path) == rows
    subprocess.run([sys.executable, "-c", call], cwd=ROOT, check=True)
    again = read_rows(tmp_path)
    assert again[: len(rows)] == rows
    assert sorted(r.key["n"] for r in again) == [0, 1, 2, 3, 4, 5]


def test_a_line_that_was_cut_off_is_left_out_and_spoils_no_other(tmp_path):
    add_row(tmp_path, row("step", {"n": 0}, seconds=1.0))
    whole = (tmp_path / FILE).read_bytes()
    with (tmp_path / FILE).open("ab") as file:
        file.write(whole[: len(whole) // 2])
    assert [r.key["n"] for r in read_rows(tmp_path)] == [0]
    add_row(tmp_path, row("step", {"n": 1}, seconds=1.0))
    assert [r.key["n"] for r in read_rows(tmp_path)] == [0, 1]
    assert os.path.getsize(tmp_path / FILE) > 2 * len(whole)
