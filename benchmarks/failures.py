"""Every file operation of a run, a resume and a sweep failed once.

    python -m benchmarks.failures --every 20       a quick look: one operation in twenty
    python -m benchmarks.failures --write          all, and write results/failures.md

A run of two epochs, a resume after its first, and a sweep that gets a second run are carried out
while `failures.c`, a library that is loaded before all others, notes what is asked of the files
below their folder: opening, reading, writing, fsync, renaming, making and removing, times, listing.
It needs a C compiler, and does not reach `stat` and locks. Then all is done again for each of these
operations, which fails with ENOSPC (and with it all that needs room from there on, as on a disk
that is full), EIO or EACCES, in turn. What may not be then:

- a traceback on the screen, an exit status of 0 without all results, or of 1 without a sentence;
- a checkpoint, summary.json or metrics.csv that is not whole, or a `.partial` beside it;
- another result once the disk is well and the run is gone on with, as the sentence says: weights,
  predictions and all figures but times have to be those of an undisturbed one, to the bit.
"""

import argparse
import atexit
import csv
import ctypes
import errno
import json
import multiprocessing
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

import mnist_bench.data.npz
import mnist_bench.launch.main
import mnist_bench.loggers.tensorboard
import mnist_bench.runs.session  # noqa: F401  # all that a forked process need not import
from mnist_bench.config.compose import compose
from mnist_bench.config.read import to_config
from mnist_bench.errors import BenchError
from mnist_bench.launch.jobs import PROGRAM
from mnist_bench.loggers.console import info
from mnist_bench.runs.checkpoint import read_checkpoint
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.prepare import read_images
from mnist_bench.runs.records import provenance, read_summary

HERE = Path(__file__).parent
TINY = (
    *("data=npz", "trainer.gpus=0", "trainer.precision=fp32", "scheduler=constant"),
    *("data.holdout_size=50", "model.channels=[4,4]", "model.dense=[8]", "trainer.kernels='off'"),
    "trainer.figures=false",
)
ONE, TWO = (*TINY, "trainer.epochs=1"), (*TINY, "trainer.epochs=2")
SWEEP = ("-m", *ONE, "logger=none", "sweep.name=two")
LIMIT_SECONDS = 300
# Where the loader looks for what is to come before all libraries.
LOADED = "LD_PRELOAD"
# What a screen may not show.
TRACES = re.compile(r"Traceback|Exception ignored|Error executing job|--- Logging error|  File \"")
# Of summary.json and metrics.csv, what differs from time to time.
TIMES = {"started", "train_seconds", "images_per_second", "warm_up_seconds", "seconds"}
TIMES |= {"git_commit", "git_changes"}
READS = {"open-to-read", "read", "scandir"}


@dataclass(frozen=True)
class Scenario:
    """What is done in an empty folder, first without and then with a failure."""

    name: str
    command: tuple[str, ...]
    before: tuple[str, ...] = ()  # what is done without a failure each time


SCENARIOS = (
    Scenario("a run", (*TWO, "hydra.run.dir=run")),
    Scenario(
        "a resume",
        ("resume=run", "trainer.epochs=2"),
        before=(*ONE, "logger=none", "hydra.run.dir=run"),
    ),
    Scenario("a sweep", (*SWEEP, "seed=0,1"), before=(*SWEEP, "seed=1")),
)


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str
    operations: list[str]
    struck: bool


@dataclass
class Outcome:
    """What came of one failure."""

    operation: str
    error: str
    status: int = 0
    struck: bool = False
    findings: list[str] = field(default_factory=list)


class Bench:
    """A library that fails, and tiny images, in a folder; for a process that has loaded the first.

    Trainings are forked from processes that have imported and composed everything already.
    """

    processes = multiprocessing.get_context("fork")

    def __init__(self, folder: Path, images: int = 300):
        self.folder = folder
        self.images = folder / "images.npz"
        composed, _ = compose([])
        mnist = read_images(to_config(composed).data, info)
        arrays: dict[str, Any] = {
            "x_train": mnist.train_images[:images],
            "y_train": mnist.train_labels[:images],
            "x_test": mnist.test_images[:100],
            "y_test": mnist.test_labels[:100],
        }
        np.savez(self.images, **arrays)
        compose([*TWO, f"data.path={self.images}"])  # what is slow is slow the first time

    def train(
        self, cwd: Path, arguments: Sequence[str], operation: str = "", error: int = 0
    ) -> Ended:
        """Carry out `mnist-bench train ARGUMENTS` in `cwd`, with an operation that fails."""
        own = [] if "resume=" in arguments[0] else [f"data.path={self.images}"]
        # Not one that goes away at an exit: a forked process exits, too.
        named = Path(tempfile.mkdtemp(dir=self.folder))
        files = [named / name for name in ("out", "err", "told")]
        process = self.processes.Process(
            target=_train, args=((*arguments, *own), cwd, files, operation, error)
        )
        process.start()
        process.join(LIMIT_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        out, err = (file.read_text(errors="replace") for file in files[:2])
        told = files[2].read_text().splitlines() if files[2].exists() else ["0"]
        shutil.rmtree(named)
        status = process.exitcode if process.exitcode is not None else -1
        return Ended(status, out, err, told[1:], told[0] == "1")

    def begin(self, scenario: Scenario, name: str) -> Path:
        """Return a new folder in which all before the failure has been done."""
        cwd = self.folder / name
        cwd.mkdir()
        if scenario.before:
            ready = self.folder / f"{scenario.name}, ready"
            if not ready.exists():
                ready.mkdir()
                ended = self.train(ready, scenario.before)
                assert ended.status == 0, ended.err
            shutil.copytree(ready, cwd, dirs_exist_ok=True)
        return cwd

    def undisturbed(self, scenario: Scenario) -> tuple[list[str], dict[str, Any]]:
        """Return the operations of a scenario, and its results."""
        cwd = self.begin(scenario, f"{scenario.name}, undisturbed")
        ended = self.train(cwd, scenario.command)
        assert ended.status == 0, ended.err
        own = [line for line in ended.operations if " __editable__" not in line]  # imports
        return own, results(cwd)

    def disturb(
        self, scenario: Scenario, expected: dict[str, Any], operation: str, error: str
    ) -> Outcome:
        """Have one operation fail, look at what is left, and go on."""
        name = re.sub(r"\W+", "_", f"{scenario.name} {operation} {error}")
        cwd = self.begin(scenario, name)
        ended = self.train(cwd, scenario.command, operation, getattr(errno, error))
        outcome = Outcome(operation, error, ended.status, ended.struck)
        note = outcome.findings.append
        if TRACES.search(ended.err + ended.out):
            note("a traceback")
        if ended.status == 0 and results(cwd) != expected:
            note("status 0 without the results")
        if ended.status not in (0, 1):
            note(f"status {ended.status}")
        if ended.status == 1 and not names_the_file(ended.err, operation):
            note(f"says nothing of the file: {ended.err.strip()!r}")
        outcome.findings += damage(cwd)
        if ended.status != 0:
            again = self.train(cwd, how_to_go_on(scenario, cwd))
            if again.status != 0 or TRACES.search(again.err):
                note(f"cannot be gone on with: {again.err.strip()!r}")
            elif results(cwd) != expected:
                note("other results when gone on with")
        if not outcome.findings:
            shutil.rmtree(cwd)
        return outcome


def _train(
    arguments: Sequence[str],
    cwd: Path,
    files: Sequence[Path],
    operation: str,
    error: int,
) -> None:
    """What a forked process does: train as the program would, and tell what it asked for."""
    out, err, told = files
    os.chdir(cwd)
    for file, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.argv = [str(PROGRAM), "train", *arguments]
    library = ctypes.CDLL(None)
    full = error == errno.ENOSPC
    library.failures_arm(str(cwd).encode(), operation.encode(), error, int(full))
    try:
        runpy.run_path(str(PROGRAM), run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which `multiprocessing` leaves out
        library.failures_tell(str(told).encode())


def how_to_go_on(scenario: Scenario, cwd: Path) -> tuple[str, ...]:
    """Return the command line that the sentence asks for: resume what is saved, else again."""
    run = RunFolder(cwd / "run")
    saved = run.last.exists() or run.previous.exists()
    return ("resume=run", "trainer.epochs=2") if saved else scenario.command


def names_the_file(said: str, operation: str) -> bool:
    """Return whether it is said which file failed: of one to be renamed, by the name it gets, or
    had; of TensorBoard's, by the logger. A disk that is full may fail another one later."""
    name = operation.split(" ")[1].removesuffix(".partial")
    known = {name, name.replace(".previous.", "."), "hydra.run.dir", "hydra.sweep.dir"}
    known |= {Path(part).name for part in known}
    known |= {"logger.tensorboard"} if ".tfevents" in name else set()
    return any(part in said for part in known) or "as the disk is full" in said


def damage(cwd: Path) -> list[str]:
    """Return what lies below a folder that should not: files that are not whole, or left over."""
    found = [f"left: {path.name}" for path in cwd.rglob("*.partial")]
    for path in cwd.rglob("*"):
        try:
            if path.suffix == ".pt":
                read_checkpoint(path)
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".npz":
                with np.load(path) as saved:
                    assert saved["logits"].shape == (100, 10)
            elif path.suffix == ".csv":
                rows = list(csv.reader(path.open()))
                assert {len(row) for row in rows} == {len(rows[0])}
            elif path.suffix == ".yaml":
                assert path.read_text().endswith("\n")
        except (BenchError, ValueError, AssertionError, OSError) as error:
            found.append(f"{path.relative_to(cwd)} is not whole: {error}")
    return found


def results(cwd: Path) -> dict[str, Any]:
    """Return all that is to be the same, by run: weights, predictions and figures but times.

    A command that was given again may have left its first folder, and taken another.
    """
    found = {}
    for summary in sorted(cwd.rglob("summary.json")):
        folder = RunFolder(summary.parent)
        content = read_summary(folder.path)
        if content["status"] != "completed":
            continue
        config = {key: v for key, v in content["config"].items() if key != "resume"}
        plain = {k: v for k, v in content.items() if k not in TIMES | {"overrides", "config"}}
        with folder.metrics.open() as file:
            rows = [{k: v for k, v in r.items() if k not in TIMES} for r in csv.DictReader(file)]
        weights = {
            path.name: {
                name: value.numpy().tobytes()
                for name, value in read_checkpoint(path)["network"].items()
            }
            for path in (folder.last, folder.best)
        }
        logits = np.load(folder.predictions)["logits"].tobytes()
        own = summary.parent.name.removesuffix("-2")
        found[own] = (plain, config, rows, weights, logits)
    return found


def turns(operations: Sequence[str]) -> list[tuple[str, str]]:
    """Return each operation with the error that it is to fail with, in turn; none is to be full
    where it only reads."""
    writes, reads = cycle(("ENOSPC", "EIO", "EACCES")), cycle(("EIO", "EACCES"))
    return [(o, next(reads if o.split(" ")[0] in READS else writes)) for o in operations]


def measure(bench: Bench, scenario: Scenario, every: int, jobs: int) -> list[Outcome]:
    operations, expected = bench.undisturbed(scenario)
    chosen = turns(operations[::every])
    info(f"{scenario.name}: {len(operations)} operations, {len(chosen)} of them to fail")
    with ProcessPoolExecutor(jobs, mp_context=bench.processes) as pool:
        running = [pool.submit(bench.disturb, scenario, expected, *turn) for turn in chosen]
        outcomes = []
        for number, future in enumerate(running, 1):
            outcomes.append(outcome := future.result())
            for finding in outcome.findings:
                info(f"  {outcome.operation}, {outcome.error}: {finding}")
            if number % 50 == 0:
                info(f"  {number} of {len(running)}")
    return outcomes


def as_markdown(found: dict[str, list[Outcome]], command: str) -> str:
    """Return the counts of all scenarios, and every finding."""
    origin = provenance()
    versions = ", ".join(f"{name} {number}" for name, number in origin["versions"].items())
    lines = [
        "# File operations failed one by one",
        "",
        f"`{command}`, commit {origin['git_commit']}; {versions}. What is done, and what counts as",
        "a finding, is in `benchmarks/failures.py`.",
        "",
        "| | operations failed | of them struck | ended with status 1 and a sentence "
        "| complete all the same | findings |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, outcomes in found.items():
        ended = Counter(outcome.status for outcome in outcomes)
        findings = sum(len(outcome.findings) for outcome in outcomes)
        struck = sum(outcome.struck for outcome in outcomes)
        cells = [len(outcomes), struck, ended[1], ended[0], findings]
        lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    lines += ["", "| operation | ENOSPC | EIO | EACCES |", "| --- | ---: | ---: | ---: |"]
    everything = [outcome for outcomes in found.values() for outcome in outcomes]
    kinds = Counter((o.operation.split(" ")[0], o.error) for o in everything)
    for kind in sorted({kind for kind, _ in kinds}):
        cells = [kinds[kind, error] for error in ("ENOSPC", "EIO", "EACCES")]
        lines.append(f"| {kind} | {' | '.join(map(str, cells))} |")
    told = [
        f"- {name}, {outcome.operation}, {outcome.error}: {finding}"
        for name, outcomes in found.items()
        for outcome in outcomes
        for finding in outcome.findings
    ]
    return "\n".join([*lines, "", *told]).rstrip() + "\n"


def begin_with_the_library(folder: Path) -> int:
    """Start this program again with the library before all others; return its exit status."""
    library, source = folder / "failures.so", HERE / "failures.c"
    compiler = os.environ.get("CC", "cc")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    environ = {**os.environ, LOADED: str(library), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.failures", *sys.argv[1:]]
    return subprocess.run(command, env=environ).returncode


def main() -> None:
    parser = argparse.ArgumentParser(description="Fail every file operation once.")
    parser.add_argument("--every", type=int, default=1, help="one operation in so many")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--write", action="store_true", help="write results/failures.md")
    parser.add_argument(
        "--keep", type=Path, help="an empty folder, in which what has findings stays"
    )
    options = parser.parse_args()
    if LOADED not in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            sys.exit(begin_with_the_library(Path(folder)))
    bench = Bench(options.keep or Path(os.environ[LOADED]).parent)
    found = {s.name: measure(bench, s, options.every, options.jobs) for s in SCENARIOS}
    shown = "python -m benchmarks.failures"
    report = as_markdown(found, shown + f" --every {options.every}" * (options.every > 1))
    info(report)
    if options.write:
        (HERE / "results" / "failures.md").write_text(report)
    sys.exit(any(outcome.findings for outcomes in found.values() for outcome in outcomes))


if __name__ == "__main__":
    main()
