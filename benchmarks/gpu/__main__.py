"""The command `python -m benchmarks.gpu`."""

import argparse
import sys
import tarfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

import benchmarks.gpu
from benchmarks.gpu.parts import Settings, parts
from benchmarks.gpu.rows import FILE, Origin, Row, read_rows
from benchmarks.gpu.schedule import Part, Turn, calls, plan, run
from benchmarks.gpu.tables import write_tables
from benchmarks.step import ROOT, file_name_part
from mnist_bench.loggers.console import info

RESULTS = ROOT / "benchmarks" / "results"
# Options whose figures mean nothing.
TRIAL = ("rounds", "round_seconds", "seeds", "override")
# What a plan shows call by call; the rest is summed up.
PLANNED_CALLS = 2
# A call's own: to start, to write tables, to pack.
OWN_SECONDS = 12.0


def main() -> None:
    arguments = parse()
    if arguments.tables:
        for folder in [arguments.folder] if arguments.folder else device_folders():
            info(f"Written to {write_tables(folder)}")
        return
    device, folder = find_device(arguments.folder, planning=arguments.plan)
    rows = read_rows(folder)
    origin = Origin.here(device)
    settings = Settings(
        arguments.rounds, arguments.round_seconds, arguments.seeds, tuple(arguments.override)
    )
    chosen = choose(parts(folder, origin, settings), arguments.parts)
    seconds = seconds_of(arguments.minutes)
    if arguments.plan:
        for line in plan_lines(chosen, rows, origin, seconds):
            info(line)
        return
    folder.mkdir(parents=True, exist_ok=True)
    failed = run(chosen, folder, origin, seconds, info, partial(keep, folder, arguments.pack))
    now = read_rows(folder)
    due = sum(len(turn.keys) for turn in plan(chosen, now, origin))
    info(f"Rows: {len(now) - len(rows) - failed} measured, {failed} failed, {due} due.")
    sys.exit(1 if failed else 0)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=benchmarks.gpu.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=lambda path: Path(path).resolve(), nargs="?")
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--parts", nargs="+", metavar="PART")
    parser.add_argument("--pack", type=lambda path: Path(path).resolve(), metavar="FILE")
    parser.add_argument("--tables", action="store_true")
    trial = parser.add_argument_group("to try it out; the figures mean nothing then")
    trial.add_argument("--rounds", type=int, default=Settings.rounds)
    trial.add_argument("--round-seconds", type=float, default=Settings.round_seconds)
    trial.add_argument("--seeds", type=int, default=Settings.seeds)
    trial.add_argument("--override", action="append", default=[], help="of every training")
    arguments = parser.parse_args()
    tried_out = [parser.get_default(name) != getattr(arguments, name) for name in TRIAL]
    if any(tried_out) and arguments.folder is None:
        parser.error("what is only tried out needs a FOLDER of its own")
    return arguments


def seconds_of(minutes: float) -> float:
    """What the parts of a call may take."""
    return 60 * minutes - OWN_SECONDS


def choose(every: Sequence[Part], names: Sequence[str] | None) -> list[Part]:
    known = [part.name for part in every]
    if unknown := set(names or ()) - set(known):
        sys.exit(f"{', '.join(sorted(unknown))}: no such part; there are {', '.join(known)}.")
    return [part for part in every if names is None or part.name in names]


def device_folders() -> list[Path]:
    return sorted(path.parent for path in RESULTS.glob(f"*/{FILE}"))


def find_device(folder: Path | None, planning: bool) -> tuple[str, Path]:
    """The GPU and its folder; without one a plan is for the device that there are rows of."""
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name(0)
        return device, folder or RESULTS / file_name_part(device)
    if planning:
        for one in [folder] if folder else device_folders():
            if rows := read_rows(one):
                return rows[-1].origin.device, one
    sys.exit("PyTorch finds no CUDA device here, and all of this is measured on one.")


def plan_lines(
    chosen: Sequence[Part], rows: Sequence[Row], origin: Origin, seconds: float
) -> list[str]:
    turns = plan(chosen, rows, origin)
    due, every = sum(len(turn.keys) for turn in turns), sum(len(part.keys) for part in chosen)
    lines = [f"{origin.device}, commit {origin.commit}: {every - due} of {every} rows measured"]
    further: list[list[Turn]] = []
    for number, call in enumerate(calls(turns, seconds), start=1):
        if number > PLANNED_CALLS:
            further.append(call)
            continue
        lines.append(f"call {number}, {sum(turn.seconds for turn in call):.0f} of {seconds:.0f} s")
        lines += [_turn_line(turn) for turn in call]
    if further:
        lines.append(f"further calls, {len(further)}")
        later = [turn for call in further for turn in call]
        for part, reason in dict.fromkeys((turn.part.name, turn.reason) for turn in later):
            same = [turn for turn in later if (turn.part.name, turn.reason) == (part, reason)]
            count, total = sum(len(t.keys) for t in same), sum(t.seconds for t in same)
            lines.append(_line(part, count, total, reason))
    return lines


def _turn_line(turn: Turn) -> str:
    return _line(turn.part.name, len(turn.keys), turn.seconds, turn.reason)


def _line(part: str, count: int, seconds: float, reason: str) -> str:
    rows = f"{count} row{'s' * (count != 1)}"
    return f"  {part:14} {rows:>8} {seconds:6.0f} s  {reason}"


def keep(folder: Path, pack: Path | None) -> None:
    """Write what is there: the tables, and the archive if there is to be one."""
    write_tables(folder)
    if pack is None:
        return
    pack.parent.mkdir(parents=True, exist_ok=True)
    beside = pack.with_name(f"{pack.name}.partial")
    with tarfile.open(beside, "w:gz") as archive:
        for path in sorted(folder.rglob("*")):
            # Weights are large, and curves are in metrics.csv as well.
            left_out = {"checkpoints", "tensorboard"} & set(path.relative_to(folder).parts)
            if path.is_file() and not left_out and path not in (pack, beside):
                archive.add(path, Path(folder.name) / path.relative_to(folder))
    beside.replace(pack)


if __name__ == "__main__":
    main()
