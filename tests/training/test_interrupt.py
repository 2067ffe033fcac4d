"""Asking a run to stop: which signals do, what a second one does, and who is told of it after."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mnist_bench.training import interrupt
from mnist_bench.training.interrupt import Interrupted, OutOfTime, StopRequest

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]
Handed = list[tuple[int, object]]


@pytest.fixture
def handed() -> Iterator[Handed]:
    """What a handler of somebody else's, for each signal, was called with."""
    calls: Handed = []
    before = {n: signal.signal(n, lambda *given: calls.append(given)) for n in SIGNALS}
    yield calls
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    signal.sigtimedwait([], 0.01)  # a handler in Python runs before the next line


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_kept_until_it_is_asked_for_and_then_handed_on(
    handed: Handed, number: signal.Signals
) -> None:
    before = [signal.getsignal(n) for n in SIGNALS]
    with pytest.raises(Interrupted) as stopped, StopRequest() as stop:  # noqa: PT012
        assert not stop.is_due()
        stop.check()
        send(number)
        assert stop.is_due() and handed == []
        stop.check()
    assert stopped.value.code == 128 + number
    ((given, frame),) = handed
    assert given == number and frame.f_code.co_name == "send"  # type: ignore[attr-defined]
    assert [signal.getsignal(n) for n in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_one_of_its_kind_goes_to_the_earlier_handler_at_once(
    handed: Handed, number: signal.Signals
) -> None:
    """But for SIGHUP: a terminal that closes may send two, and nobody sends a second by hand."""
    other = signal.SIGTERM if number != signal.SIGTERM else signal.SIGINT
    with StopRequest() as stop:
        send(number)
        send(other)
        assert handed == [] and stop.signal_number == number
        send(number)
        assert len(handed) == (number != signal.SIGHUP)


def test_a_second_ctrl_c_stops_at_once() -> None:
    with StopRequest() as stop:
        send(signal.SIGINT)
        assert stop.signal_number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)


@pytest.mark.parametrize("number", SIGNALS)
def test_what_was_ignored_stays_so(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            assert signal.getsignal(number) is signal.SIG_IGN
            send(number)
            stop.check()
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_at_once_it_stops_in_the_middle_and_hands_on_to_a_request_around_it(
    handed: Handed,
) -> None:
    """As a run within a sweep, whose handler in turn hands on to what was there before."""
    done = []
    with pytest.raises(SystemExit) as stopped, StopRequest() as outer, outer.at_once():  # noqa: PT012
        with StopRequest() as inner:
            send(signal.SIGTERM)
            done.append("within")
            assert inner.is_due() and not outer.is_due()
        done.append("not reached")
    assert stopped.value.code == 128 + signal.SIGTERM
    assert not isinstance(stopped.value, Interrupted), "it was not between two steps"
    assert done == ["within"] and len(handed) == 1


def test_a_signal_that_is_lost_in_a_destructor_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Dying:
        def __del__(self) -> None:
            send(signal.SIGTERM)

    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    with pytest.raises(Interrupted), StopRequest() as stop, stop.at_once():
        Dying()
    assert len(lost) == 1


SLOW_MODULE = """
import sys, time
print("importing", flush=True)
try:
    time.sleep(60)
except BaseException:
    raise ImportError("cannot be imported")  # as NumPy's and PyTorch's modules do
"""
IMPORT_IT = """
import signal
from mnist_bench.training.interrupt import StopRequest
signal.signal(signal.SIGUSR2, lambda *given: print("handed on", flush=True))
with StopRequest() as stop, stop.at_once():
    import slow_module
"""


def test_a_signal_in_the_middle_of_an_import_leaves_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "slow_module.py").write_text(SLOW_MODULE)
    process = subprocess.Popen(
        [sys.executable, "-c", IMPORT_IT],
        env={**os.environ, "PYTHONPATH": f"{Path(__file__).parents[2]}{os.pathsep}{tmp_path}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGUSR2)
    assert process.communicate(timeout=30) == ("handed on\n", "")
    assert process.returncode == 128 + signal.SIGUSR2


def test_another_thread_has_no_signals_and_needs_none() -> None:
    """As where a launcher runs its jobs in threads."""
    found: list[bool] = []

    def ask() -> None:
        with StopRequest() as stop:
            found.append(stop.is_due())

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert found == [False]


def test_it_is_time_to_stop_when_the_next_thing_and_saving_would_take_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(interrupt, "time", type("", (), {"perf_counter": lambda: now}))
    with StopRequest(60.0) as stop:
        stop.reserve = 5.0
        now = 1050.0
        assert not stop.is_due(4.9)
        stop.check(4.9)
        assert stop.is_due(5.1)
        with pytest.raises(OutOfTime) as stopped:
            stop.check(5.1)
    assert stopped.value.code == os.EX_TEMPFAIL
    assert str(stopped.value) == "Stopped in time for trainer.max_seconds=60"
    now = 1e9
    assert not StopRequest().is_due(1e9)
