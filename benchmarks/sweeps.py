"""What a sweep costs beside its training, and that its runs are done once each.

    python -m benchmarks.sweeps                 all parts
    python -m benchmarks.sweeps memory cost     some of memory, bookkeeping, cost, sharing, starts
    python -m benchmarks.sweeps --write         and write benchmarks/results/sweeps-<device>.md

Sweeps are started as a user starts them, in a folder that is gone afterwards.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra import initialize_config_dir

from benchmarks.step import ROOT, device_name, file_name_part
from mnist_bench.config.compose import CONF, compose
from mnist_bench.config.read import to_config
from mnist_bench.launch.jobs import train_command
from mnist_bench.launch.sweeps.plan import Plan, plan
from mnist_bench.launch.sweeps.record import SweepRecord
from mnist_bench.launch.sweeps.results import write_csv
from mnist_bench.loggers.console import info
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.records import provenance
from mnist_bench.runs.standing import State, standing

TINY = ["model=cnn5x5_single", "data.limit=640", "trainer.epochs=1"]
# Values that make 10,000 runs.
LARGE = ["model=mnist_cnn,wide3x3", "model.kernel_size=3,5,7,9,11", "seed=range(1000)"]
STARTS = 50


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A training in a process of its own that works in `folder`."""
    root = Path(ROOT, to_config(compose([])[0]).data.root).resolve()
    return subprocess.Popen(
        [*train_command(*arguments), f"data.root={root}", "trainer.gpus=0"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    output, _ = process.communicate()
    assert process.returncode == code, output
    return output


def summaries(sweep: Path) -> list[Path]:
    """Of its runs, in the order of their ends."""
    return sorted(sweep.glob("*/summary.json"), key=lambda path: path.stat().st_mtime_ns)


# --- What it costs ----------------------------------------------------------------------------


@contextmanager
def a_large_sweep() -> Iterator[tuple[SweepRecord, Plan, float]]:
    """A folder of 10,000 completed runs, what they are, and the seconds that planning them took."""
    with tempfile.TemporaryDirectory() as folder:
        finish(start(Path(folder), *TINY, "hydra.run.dir=run"))
        summary = json.loads(Path(folder, "run", "summary.json").read_text())
        begun = time.perf_counter()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            planned = plan("train", LARGE, ["hydra.mode=MULTIRUN"])
        digests = [job.digest for job in planned.jobs]
        seconds = time.perf_counter() - begun
        record = SweepRecord(Path(folder, "sweep"))
        record.path.mkdir()
        names = record.extend(planned)
        for job, digest in zip(planned.jobs, digests, strict=True):
            run = record.path / names[digest]
            run.mkdir()
            content = {**summary, "digest": digest, "config": job.settings}
            (run / "summary.json").write_text(json.dumps(content, indent=2))
        yield record, planned, seconds


def measure_memory() -> Iterator[tuple[str, str]]:
    """How long it takes to know what is missing of 10,000 runs that are all there."""
    with a_large_sweep() as (record, planned, seconds):
        begun = time.perf_counter()
        record.refuse_another(planned)
        names = record.names()
        found = [standing(record.path / names[job.digest], job.digest) for job in planned.jobs]
        known = time.perf_counter() - begun
        assert all(one.state is State.completed for one in found)
        begun = time.perf_counter()
        write_csv(record.path / "sweep.csv", record.varied(), found)
        written = time.perf_counter() - begun
    count = f"{len(found):,}"
    yield f"{count} completed runs: planning what is asked for", f"{seconds:.1f} s"
    yield f"{count} completed runs: reading that nothing is missing", f"{known:.1f} s"
    yield f"{count} completed runs: writing sweep.csv", f"{written:.1f} s"


def measure_bookkeeping() -> Iterator[tuple[str, str]]:
    """What a claim, a skip and a record take of a job."""
    with tempfile.TemporaryDirectory() as folder:
        finish(start(Path(folder), "-m", *TINY, "sweep.name=tiny", "seed=range(3)"))
        record = SweepRecord(Path(folder, "outputs", "sweeps", "tiny"))
        names = record.names()

        def claim(digest: str) -> None:
            with RunFolder(record.path / names[digest]).owned():
                pass

        def skip(digest: str) -> None:
            standing(record.path / names[digest], digest)

        def tell(digest: str) -> None:
            write_csv(record.path / "sweep.csv", record.varied(), list(record.standings()))

        for what, of in (("claim and release", claim), ("skip", skip), ("record of 3", tell)):
            yield f"a job's {what}, median of 300", f"{_median_ms(of, list(names)):.2f} ms"


def _median_ms(of: Callable[[str], None], digests: list[str]) -> float:
    times = []
    for _ in range(100):
        for digest in digests:
            begun = time.perf_counter()
            of(digest)
            times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e3


def measure_cost() -> Iterator[tuple[str, str]]:
    """What a tiny run takes beside its training steps, from one summary to the next."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        finish(start(Path(folder), "-m", *TINY, "sweep.name=tiny", "seed=range(20)"))
        seconds = time.perf_counter() - begun
        paths = summaries(Path(folder, "outputs", "sweeps", "tiny"))
        ends = [path.stat().st_mtime for path in paths]
        steps = [json.loads(path.read_text())["train_seconds"] for path in paths]
    beside = [b - a - s for a, b, s in zip(ends[:-1], ends[1:], steps[1:], strict=True)]
    yield "20 tiny runs, the whole command", f"{seconds:.1f} s"
    yield "a tiny run's steps, median", f"{statistics.median(steps):.3f} s"
    yield (
        "a tiny run beside its steps, median (and range)",
        f"{statistics.median(beside):.3f} s ({min(beside):.3f} to {max(beside):.3f})",
    )


# --- That each run is done once ---------------------------------------------------------------


def begun_epochs(run: Path) -> Counter[str]:
    """How often each epoch ended in a run, as its log tells, to which every start adds."""
    lines = (run / "train.log").read_text().splitlines()
    found = (line.split("] ", 1)[-1].split() for line in lines)
    return Counter(words[1].partition("/")[0] for words in found if words[:1] == ["epoch"])


def measure_sharing() -> Iterator[tuple[str, str]]:
    """Two processes on one sweep, one killed in the middle, and that nothing is done twice."""
    rng, kills, taken_over, runs = random.Random(0), 5, 0, 0
    for _ in range(kills):
        with tempfile.TemporaryDirectory() as folder:
            arguments = ("-m", *TINY, "trainer.epochs=4", "sweep.name=shared", "seed=range(8)")
            first, second = (start(Path(folder), *arguments) for _ in range(2))
            sweep = Path(folder, "outputs", "sweeps", "shared")
            while len(summaries(sweep)) < 2:
                time.sleep(0.05)
            time.sleep(rng.uniform(0, 1))
            first.kill()
            first.communicate()
            output = finish(second)
            assert "To go on" not in output  # nothing is left
            for path in summaries(sweep):
                assert json.loads(path.read_text())["status"] == "completed"
                ended = begun_epochs(path.parent)
                assert ended.keys() == {"1", "2", "3", "4"}, ended
                assert max(ended.values()) <= 2 and sum(ended.values()) <= 5, ended
                taken_over += "from epoch" in (path.parent / "train.log").read_text()
                runs += 1
    yield (
        f"two processes on a sweep of 8 runs, one killed, {kills} times",
        f"{runs} runs completed, none done twice, {taken_over} gone on with by the other",
    )


def measure_starts() -> Iterator[tuple[str, str]]:
    """Two processes that go on with one run in the same moment: never both."""
    with tempfile.TemporaryDirectory() as folder:
        finish(start(Path(folder), *TINY, "hydra.run.dir=run"))
        outcomes: Counter[str] = Counter()
        for turn in range(STARTS):
            copy = Path(folder, f"run-{turn}")
            shutil.copytree(Path(folder, "run"), copy)
            both = [
                start(Path(folder), f"resume={copy.name}", "trainer.epochs=3") for _ in range(2)
            ]
            outputs = [process.communicate()[0] for process in both]
            codes = sorted(process.returncode for process in both)
            refused = sum("in use by process" in output for output in outputs)
            assert codes in ([0, 1], [0, 0]) and refused == codes.count(1), outputs
            outcomes["refused" if refused else "one after the other"] += 1
            assert max(begun_epochs(copy).values()) == 1, "trained twice"
    told = ", ".join(f"{count} {what}" for what, count in outcomes.items())
    yield f"{STARTS} double starts of one run", f"never both: {told}"


PARTS = {
    "memory": measure_memory,
    "bookkeeping": measure_bookkeeping,
    "cost": measure_cost,
    "sharing": measure_sharing,
    "starts": measure_starts,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=", ".join(PARTS))
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - PARTS.keys():
        sys.exit(f"{', '.join(unknown)}: choose among {', '.join(PARTS)}.")
    origin = provenance()
    versions = origin["versions"]
    lines = [
        f"# Sweeps, on {device_name()}",
        "",
        f"`python -m benchmarks.sweeps {' '.join(arguments.parts)}` on {origin['started'][:10]}, "
        f"commit {origin['git_commit']}, torch {versions['torch']}, Python {versions['python']}.",
        "",
        "| what | found |",
        "| --- | --- |",
    ]
    info("\n".join(lines))
    for part in arguments.parts:
        for what, found in PARTS[part]():
            lines.append(f"| {what} | {found} |")
            info(lines[-1])
    if arguments.write:
        path = ROOT / "benchmarks" / "results" / f"sweeps-{file_name_part(device_name())}.md"
        path.write_text("\n".join(lines) + "\n")
        info(f"Written to {path}")


if __name__ == "__main__":
    main()
