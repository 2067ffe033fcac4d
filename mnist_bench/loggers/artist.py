"""Has the figures of runs drawn in a process of its own, so that no training waits for them.

The process is started once, works at the lowest priority, and gets what is to be drawn through a
pipe. It needs matplotlib and not PyTorch. When the command is over, it waits for what is left.
"""

import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import mnist_bench
from mnist_bench.errors import explain_file_error
from mnist_bench.loggers.pictures import RunPictures

if TYPE_CHECKING:  # which only a command that waits for figures needs
    from rich.status import Status

# Of more runs that wait, the pictures are left out: trained faster than drawn, they would fill the
# memory, and be waited for at the end.
MOST_WAITING = 100
# How long a command waits for pictures before it says so, in seconds, and how long for one more run
# before a process of usual priority takes over: others may keep the machine busy.
PATIENCE, STARVED = 0.3, 5.0
GIVE_WAY = "--give-way"
# The signals that cost figures alone, once all runs have their results.
ENDING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class Artist:
    """The process that draws, as the one that trains sees it."""

    def __init__(self) -> None:
        self._forget()

    def _forget(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: threading.Thread | None = None
        self._errors: IO[bytes] | None = None
        # What the process is to read, None last, and of that what is not drawn yet.
        self._queue: queue.Queue[bytes | None] = queue.Queue()
        self._contents: list[bytes] = []
        # Of each run its folder of figures: as given, as drawn, and as not to be drawn.
        self._given: list[Path] = []
        self._done = 0
        self._failed: dict[Path, str] = {}
        self._left_out: list[Path] = []
        self._status: Status | None = None

    def start(self) -> None:
        """Start the process, unless it runs; what it lacks is told by `wait`."""
        if self._process is None:
            self._process = self._begin(GIVE_WAY)

    def draw(self, pictures: RunPictures, folder: Path, events: Path | None) -> None:
        """Have pictures drawn into `folder`, and into the event files of `events` for TensorBoard.

        It returns at once. Where many are waiting already, these are left out.
        """
        self.start()
        if len(self._contents) >= MOST_WAITING:
            self._left_out.append(folder)
            return
        content = pickle.dumps((pictures, folder.resolve(), events and events.resolve()))
        self._given.append(folder)
        self._contents.append(content)
        self._queue.put(content)

    def wait(self) -> None:
        """Wait until all is drawn, with a line that says so; Ctrl-C leaves out what is not."""
        if self._process is None:
            return
        self._queue.put(None)
        before = {}
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.getsignal(number) for number in ENDING}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, signal.default_int_handler)
        try:
            if not _has_ended(self._process, PATIENCE) and self.waiting():
                runs = _runs(self.waiting())
                self._say(f"drawing the figures of {runs} (Ctrl-C leaves them out)")
            with self._counting():
                self._see_to_the_end()
        except KeyboardInterrupt:
            self._process.kill()
            self._left_out += self.waiting()
        finally:
            self._tell_what_is_missing()
            for number, handler in before.items():
                signal.signal(number, handler)
            self._forget()

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """Show on a terminal how many runs are drawn, while they are waited for."""
        from mnist_bench.loggers.console import Screen

        console = Screen().console
        if not console.is_terminal:
            yield
            return
        with console.status("") as self._status:
            self._tell_how_many()
            yield
        self._status = None

    def _tell_how_many(self) -> None:
        if self._status is not None:
            self._status.update(f"figures of {self._done} of {_runs(self._given)}")

    def leave_out(self) -> None:
        """End at once; what is not drawn yet is left out, and told."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._left_out += self.waiting()
            self._tell_what_is_missing()
            self._forget()

    def _see_to_the_end(self) -> None:
        """Wait for the process to end; one that gets nothing done is replaced."""
        assert self._process is not None and self._listener is not None
        done = -1
        while not _has_ended(self._process, STARVED):
            if self._done == done:
                self._process.kill()
                self._listener.join()
                self._queue = queue.Queue()
                for content in (*self._contents, None):
                    self._queue.put(content)
                self._process = self._begin()
                self._process.wait()
                return
            done = self._done

    def waiting(self) -> list[Path]:
        """Return the folders of what is given and not drawn yet."""
        return self._given[self._done :]

    def _begin(self, *flags: str) -> "subprocess.Popen[bytes]":
        place = str(Path(mnist_bench.__file__).parents[1])
        paths = [place, *filter(None, [os.environ.get("PYTHONPATH")])]
        quiet = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - read at the end
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **quiet},
            process_group=0,  # Ctrl-C is for the one that trains
        )
        feed, listen = (process.stdin, self._queue), (process.stdout,)
        threading.Thread(target=self._feed, args=feed, daemon=True).start()
        self._listener = threading.Thread(target=self._listen, args=listen, daemon=True)
        self._listener.start()
        return process

    def _feed(self, pipe: IO[bytes], contents: "queue.Queue[bytes | None]") -> None:
        """Write what is in the queue, in a thread: the pipe takes more only as it is read."""
        with suppress(OSError), pipe:  # its reader may have ended, which `wait` tells
            while (content := contents.get()) is not None:
                pipe.write(len(content).to_bytes(8, "little") + content)
                pipe.flush()

    def _listen(self, pipe: IO[bytes]) -> None:
        for line in pipe:
            if error := json.loads(line):
                self._failed[self._given[self._done]] = error
            del self._contents[0]
            self._done += 1
            self._tell_how_many()

    def _tell_what_is_missing(self) -> None:
        if self._listener is not None:
            self._listener.join()
        for folder, error in list(self._failed.items())[:1]:
            others = list(self._failed)[1:]
            more = f" (and those of {_runs(others)})" if others else ""
            self._say(f"The figures of {folder.parent.name}{more} are not drawn: {error}")
        if self._left_out:
            self._say(
                f"The figures of {_runs(self._left_out)} are left out. To draw them: "
                f"mnist-bench figures {_common(self._left_out)}"
            )
        lost = [folder for folder in self.waiting() if folder not in self._left_out]
        if lost and self._errors is not None:
            self._errors.seek(0)
            ended = f"their process ended. To draw them: mnist-bench figures {_common(lost)}"
            said = self._errors.read().decode(errors="replace").strip().splitlines() or [ended]
            self._say(f"The figures of {_runs(lost)} are not drawn: {said[-1]}")

    def _say(self, text: str) -> None:
        from mnist_bench.loggers.console import info  # PyTorch

        info(text)


ARTIST = Artist()


@contextmanager
def awaited(artist: Artist) -> Iterator[None]:
    """Wait at the end for what is drawn, unless the command was stopped: then nobody has time."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and end.code in (None, 0, 1):
            artist.wait()
        else:
            artist.leave_out()
        raise
    except BaseException:
        artist.wait()
        raise
    artist.wait()


def why_not_drawn(error: Exception) -> str:
    """Return in a sentence why pictures could not be drawn."""
    if isinstance(error, OSError):
        return f"{explain_file_error(error)}."
    return f"{type(error).__name__}: {error}"


def _has_ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _runs(folders: list[Path]) -> str:
    return "one run" if len(folders) == 1 else f"{len(folders)} runs"


def _common(figures: list[Path]) -> str:
    """Return the run whose figures these are, or the folder that has all of the runs."""
    return os.path.relpath(os.path.commonpath([folder.parent.resolve() for folder in figures]))


# --- The process that draws -------------------------------------------------------------------


def main() -> None:
    """Draw what comes through stdin; answer each with a line, the error in JSON or null."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if GIVE_WAY in sys.argv:
        _give_way()
    from mnist_bench.loggers.drawing import draw

    while len(head := sys.stdin.buffer.read(8)) == 8:
        pictures, folder, events = pickle.loads(
            sys.stdin.buffer.read(int.from_bytes(head, "little"))
        )
        error = None
        try:
            files = draw(pictures, folder)
            if events is not None:
                show_in_tensorboard(files, events, pictures.tested_epoch or 0)
        except Exception as failure:
            error = why_not_drawn(failure)
        print(json.dumps(error), flush=True)


def _give_way() -> None:
    """Run only where nothing else would."""
    with suppress(AttributeError, OSError):
        os.nice(19)
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def show_in_tensorboard(files: dict[str, Path], events: Path, step: int) -> None:
    """Add pictures to a run's event files, behind its curves: TensorBoard reads them in order."""
    from PIL import Image
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    # A file is taken for later than another by the second in its name.
    written = max((int(file.name.split(".")[3]) for file in events.glob("events.out.*")), default=0)
    time.sleep(max(0.0, min(2.0, written + 1 - time.time())))
    writer = EventFileWriter(str(events), filename_suffix=".figures")
    for name, path in files.items():
        with Image.open(path) as opened:
            width, height = opened.size
        picture: Any = Summary.Image(
            height=height, width=width, colorspace=4, encoded_image_string=path.read_bytes()
        )
        value = Summary.Value(tag=f"figures/{name}", image=picture)
        writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=[value])))
    writer.flush()  # which raises what closing would not
    writer.close()


if __name__ == "__main__":
    main()
