"""Kill a sweep or a search again and again, and compare it with one that nobody disturbed.

    python -m benchmarks.kills sweep             twelve seeds
    python -m benchmarks.kills search            twelve trials
    python -m benchmarks.kills sweep --write     and write it into benchmarks/results/kills.md

The same command is started, killed (`kill -9`, its whole process group) at a random moment, and
started again; after the last kill it may end. The moments are drawn from a seed: after a run is
announced and none to four epochs have ended, within the time of another epoch, whatever the machine
does besides. Then every run has to be complete
and equal to the undisturbed one's to the last bit: figures (but for times), predictions, weights,
and of a search what was tried and how it was judged. An epoch that was not saved yet when its
process was killed is trained again, so at most one for each kill may appear twice in a train.log;
a run that is over is never touched again, so that each has been tested once.
"""

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.moved import TIMES, differences
from benchmarks.step import ROOT, device_name
from mnist_bench.config.compose import compose
from mnist_bench.launch.jobs import PROGRAM
from mnist_bench.launch.search.study import SharedStudy
from mnist_bench.loggers.console import info
from mnist_bench.runs.records import provenance, read_summary

RUNS, EPOCHS = 12, 5
TINY = (
    *("model=cnn5x5_single", "data.limit=2000", f"trainer.epochs={EPOCHS}", "logger=none"),
    *("trainer.gpus=0", "trainer.precision=fp32", "trainer.figures=false"),
)
COMMANDS = {
    "sweep": ["train", "-m", "sweep.name=kills", f"seed=range({RUNS})", *TINY],
    "search": ["search", "kills", *TINY, "--space", "small", "--trials", str(RUNS)],
}
# Lines that tell that a run is about to begin, or to go on, and that an epoch has ended.
ANNOUNCED = re.compile(r"(run \d+ of|trial-\d+ \()")
ENDED = re.compile(r"epoch \d+/")
MOST_EPOCHS = 4
# Of summary.json, what differs from process to process.
OF_A_PROCESS = TIMES | {
    *("train_seconds", "warm_up_seconds", "started", "git_changes"),
    "config.resume",  # names the folder of a run that went on
}


@dataclass
class Outcome:
    """What has been found after the last kill."""

    kills: int
    starts: int
    complete: int
    tested_twice: int
    epochs: int  # that were trained to their end, those that were lost with a kill included
    needed: int  # the same, of the undisturbed one
    different: list[str]


def start(kind: str, folder: Path) -> "subprocess.Popen[str]":
    data = Path(ROOT, compose([])[0].data.root).resolve()
    variables = {"MNIST_BENCH_DATA": str(data), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *COMMANDS[kind]],
        cwd=folder,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def work(process: "subprocess.Popen[str]") -> float:
    """Wait for the end; return the seconds for each epoch, since the first run was announced."""
    assert process.stdout is not None
    begun, epochs = 0.0, 0
    for line in process.stdout:
        epochs += bool(ENDED.match(line))
        if not begun and ANNOUNCED.match(line):
            begun = time.monotonic()
    if process.wait() != 0:
        raise SystemExit(f"It ended with status {process.returncode}.")
    return (time.monotonic() - begun) / max(1, epochs)


def kill(process: "subprocess.Popen[str]", epochs: int, after: float) -> bool:
    """Kill a process so many epochs and seconds after it has begun; return whether it worked."""
    assert process.stdout is not None
    announced = False
    for line in process.stdout:
        announced = announced or bool(ANNOUNCED.match(line))
        epochs -= bool(ENDED.match(line))
        if announced and epochs <= 0:
            break
    time.sleep(after)
    worked = process.poll() is None
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return worked


def runs_of(kind: str, folder: Path) -> list[Path]:
    path = folder / "outputs" / {"sweep": "sweeps", "search": "searches"}[kind] / "kills"
    return sorted(file.parent for file in path.glob("*/summary.json"))


def trials_of(folder: Path) -> list[tuple[Any, ...]]:
    """What a search has tried, and how it was judged."""
    study = SharedStudy(folder / "outputs" / "searches" / "kills")
    return [(t.params, t.state, t.values, t.intermediate_values) for t in study.trials]


def compare(kind: str, killed: Path, undisturbed: Path, kills: int) -> Outcome:
    expected = runs_of(kind, undisturbed)
    found = {path.name: path for path in runs_of(kind, killed)}
    different = [path.name for path in expected if path.name not in found]
    tested_twice = epochs = complete = 0
    needed = sum(map(epochs_of, expected))
    for path in expected:
        if path.name not in found:
            continue
        own = found[path.name]
        log = (own / "train.log").read_text()
        epochs += epochs_of(own)
        tested_twice += log.count("  test accuracy  ") > 1
        one, other = (flat_summary(folder) for folder in (own, path))
        complete += one["status"] in ("completed", "pruned")
        wrong = [k for k in other.keys() - OF_A_PROCESS if one.get(k) != other[k]]
        different += [f"{own.name}: {what}" for what in [*wrong, *differences(own, path)]]
    if kind == "search" and trials_of(killed) != trials_of(undisturbed):
        different.append("what was tried, or how it was judged")
    return Outcome(kills, kills + 1, complete, tested_twice, epochs, needed, different)


def flat_summary(run: Path) -> dict[str, Any]:
    """Return the summary of a run with its settings one by one."""
    summary = read_summary(run)
    settings = summary.pop("config")
    return {**summary, **{f"config.{key}": value for key, value in settings.items()}}


def epochs_of(run: Path) -> int:
    """Return how often a run's log tells of an epoch's end."""
    return len(re.findall(rf"\] epoch \d+/{EPOCHS} ", (run / "train.log").read_text()))


def measure(kind: str, kills: int, seed: int) -> Outcome:
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        killed, undisturbed = Path(folder, "killed"), Path(folder, "undisturbed")
        killed.mkdir()
        undisturbed.mkdir()
        seconds = work(start(kind, undisturbed))
        info(f"undisturbed: {seconds:.1f} s an epoch")
        hit = 0
        while hit < kills:
            epochs, after = moments.randint(0, MOST_EPOCHS), moments.uniform(0, seconds)
            if not kill(start(kind, killed), epochs, after):
                info("It was over before the last kill.")
                break
            hit += 1
            over = len(runs_of(kind, killed))
            info(f"kill {hit} after {epochs} epochs and {after:.1f} s: {over} runs complete")
        work(start(kind, killed))
        return compare(kind, killed, undisturbed, hit)


def as_markdown(kind: str, outcome: Outcome, arguments: argparse.Namespace) -> str:
    origin = provenance()
    command = f"python -m benchmarks.kills {kind} --kills {arguments.kills} --seed {arguments.seed}"
    return (
        f"## {kind}\n\n"
        f"`{command}` on {origin['started'][:10]}, commit {origin['git_commit']}, torch "
        f"{origin['versions']['torch']}, Python {origin['versions']['python']}, {device_name()}, "
        f"of `mnist-bench {' '.join(COMMANDS[kind])}`.\n\n"
        f"| | |\n| --- | ---: |\n"
        f"| kills, of {outcome.starts} starts | {outcome.kills} |\n"
        f"| runs that are over, of {RUNS} | {outcome.complete} |\n"
        f"| runs that were tested twice | {outcome.tested_twice} |\n"
        f"| epochs trained, where the undisturbed {kind} trained {outcome.needed} "
        f"| {outcome.epochs} |\n"
        f"| differences to the undisturbed {kind} | {', '.join(outcome.different) or 'none'} |\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("kind", choices=COMMANDS)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    outcome = measure(arguments.kind, arguments.kills, arguments.seed)
    section = as_markdown(arguments.kind, outcome, arguments)
    info(section)
    if arguments.write:
        path = ROOT / "benchmarks" / "results" / "kills.md"
        before = path.read_text().split("\n## ")[1:] if path.exists() else []
        others = [f"## {text}" for text in before if not text.startswith(arguments.kind)]
        parts = ["# What is left after kill -9", *others, section]
        path.write_text("\n\n".join(part.strip() for part in parts) + "\n")
        info(f"Written to {path}")
    if outcome.different or outcome.complete < RUNS or outcome.tested_twice:
        sys.exit(1)


if __name__ == "__main__":
    main()
