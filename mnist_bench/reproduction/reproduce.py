"""`mnist-bench reproduce`: train what is missing, collect the evidence, write the report."""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from filelock import FileLock
from rich import box
from rich.table import Table

from mnist_bench.config.compose import compose
from mnist_bench.config.read import to_config
from mnist_bench.errors import ConfigError
from mnist_bench.loggers.console import Screen, info, print_error
from mnist_bench.reproduction.campaign import Outcome, train_missing
from mnist_bench.reproduction.collect import collect
from mnist_bench.reproduction.evidence import (
    Evidence,
    choose,
    merge,
    read_evidence,
    write_evidence,
)
from mnist_bench.reproduction.plan import PlannedRun, State, plan, recipe, state_of
from mnist_bench.training.device import find_placement

RUNS = Path("outputs", "reproduction")
RESULTS = Path("results")
CAPTION = """\
± is the standard deviation over the runs. Inside: the published figure lies
where one more run would end, 19 of 20 times; the report has the intervals."""


def reproduce(
    names: Sequence[str] = (),
    seeds: int = 1,
    runs: Path = RUNS,
    results: Path = RESULTS,
    precision: str = "fp32",
    gpus: str = "auto",
    train: bool = True,
    times: bool = True,
    overrides: Sequence[str] = (),
) -> int:
    """Train experiments `names` (all that were published) with seeds 0 to `seeds` - 1, and report.

    With `train` false nothing is trained, with `times` false the seconds of the runs found are left
    out. The report is of all evidence there is, whatever the names. `overrides` make trainings
    small for the tests: then they reproduce nothing.

    Returns the exit code: 0, 1 if a run failed or was refused, 128 + n if signal n ended it.

    Raises:
        ConfigError: what was asked for cannot be, or a package that the report takes is missing.
        DataError: a file of a run or of the evidence is not what was written.
    """
    planned = plan(names, seeds, runs, precision)
    folder = results / "reproduction"
    committed = read_evidence(folder)  # damage is told now, and not after days of training
    if not train and runs != RUNS and not runs.is_dir():
        raise ConfigError(f"{runs} is not there: name the folder of the runs.")
    find_recipe = cache(lambda name: recipe(name, overrides))
    outcome = Outcome()
    if train:
        settings = [*overrides] if gpus == "auto" else [*overrides, f"trainer.gpus={gpus}"]
        check_placement(planned[0], settings)
        make_folder(folder)  # now, and not after days of training
        info(plan_line(planned))
        outcome = train_missing(planned, find_recipe, settings, info)
        if outcome.signal_number is not None:
            info("Stopped. To go on, give the same command again.")
            return 128 + outcome.signal_number
    found, refusals = collect(runs, find_recipe, times)
    problems = outcome.failures + refusals
    try:
        if found.runs or committed.runs:
            make_folder(folder)
            with FileLock(folder / ".lock"):  # a command beside this one waits, and both add rows
                evidence = merge(read_evidence(folder), found)
                written = write_evidence(folder, evidence)
                written += report(results, evidence)
            info(written_line(results, written))
        else:
            problems.append(f"There is nothing to report: {runs} has no completed run.")
    finally:
        for run in outcome.elsewhere:
            info(f"{run.name} was left to another process, which has it locked.")
        for problem in problems:
            print_error(problem)
    return 1 if problems else 0


def check_placement(run: PlannedRun, overrides: Sequence[str]) -> None:
    """Refuse at once what train.py would refuse for every run."""
    config, _ = compose([f"experiment={run.experiment}", *overrides])
    find_placement(to_config(config).trainer)


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror}.") from error


def plan_line(planned: Sequence[PlannedRun]) -> str:
    experiments = len({run.experiment for run in planned})
    completed = sum(state_of(run.folder) is State.completed for run in planned)
    begun = sum(state_of(run.folder) is State.resumable for run in planned)
    return (
        f"{experiments} experiment{'s' * (experiments != 1)} x "
        f"{len(planned) // experiments} seed{'s' * (len(planned) != experiments)}: "
        f"{completed} of {len(planned)} runs are there, {len(planned) - completed} to train"
        f"{f' ({begun} begun)' if begun else ''}."
    )


def written_line(results: Path, paths: Sequence[Path]) -> str:
    beside = [os.path.relpath(path) for path in paths if path.parent == results]
    folder = os.path.relpath(results / "reproduction")
    return f"Written: {', '.join(beside)} and {len(paths) - len(beside)} files in {folder}"


def report(results: Path, evidence: Evidence) -> list[Path]:
    """Write the report and show its first table; returns what was written.

    Raises:
        ConfigError: a package that it takes is not installed.
    """
    try:
        # Imported late: training takes neither matplotlib nor scipy.
        from mnist_bench.reproduction.report import write_report
        from mnist_bench.reproduction.tables import OVERVIEW, overview_rows
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package not in ("matplotlib", "scipy"):
            raise
        raise ConfigError(
            f"The report takes {package}, which is not installed: "
            f'pip install "mnist-bench[reports]", and --no-train writes it from what is there.'
        ) from error
    written = write_report(results, evidence)
    table = Table(box=box.SIMPLE_HEAD, caption=CAPTION, caption_justify="left")
    shown = [place for place, column in enumerate(OVERVIEW) if column != "machine"]  # too wide
    for place in shown:
        table.add_column(OVERVIEW[place], justify="right" if place else "left")
    for row in overview_rows(evidence, choose(evidence)):
        table.add_row(*(row[place] for place in shown))
    Screen().table(table)
    return written
