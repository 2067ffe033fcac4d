"""What a report says of what to do next: what more seeds would show, and the commands for it."""

import os
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_bench.analysis.effects import Chance
from mnist_bench.analysis.measures import Measure
from mnist_bench.analysis.pairs import NamedPair
from mnist_bench.analysis.power import of_a_pair, of_the_best, seeds_needed, visible_difference
from mnist_bench.analysis.settings import SEED, as_typed
from mnist_bench.analysis.sweeps import SweepFolder
from mnist_bench.config.help import begin_command
from mnist_bench.runs.folder import RunFolder

if TYPE_CHECKING:
    from mnist_bench.analysis.report.build import Row, SectionReport

# As many seeds tell something of chance.
FEW_SEEDS = 5


def outlook_of(report: "SectionReport") -> list[str]:
    """Return what the seeds at hand can show, what twice as many could, and what it takes."""
    chance, measure, rows = report.chance, report.measure, report.rows
    if len(rows) < 2:
        return []
    if chance.pooled.std is None:
        return [
            "Every setting has a single seed, or seeds make no difference: nothing tells how much "
            "of a difference between settings is chance. Train each with several seeds, such as "
            "'seed=range(5)'."
        ]
    if not chance.is_pooled:
        noisy = max(rows, key=lambda row: row.std or 0.0)
        return [
            f"More seeds tell most where the deviation between them is largest: {noisy.label}, "
            f"with {_amount(measure, noisy.std or 0.0)}."
        ]
    std, test = chance.pooled.std, of_the_best(len(rows))
    seeds = _usual_seeds(chance)
    told = [
        f"With {seeds} seeds of each setting, one that is truly {_amount(measure, now)} behind the "
        f"best is ruled out four times in five; with {2 * seeds} seeds, one that is "
        f"{_amount(measure, then)} behind."
        for now, then in [
            (visible_difference(test, seeds, std), visible_difference(test, 2 * seeds, std))
        ]
    ]
    gap = abs(rows[0].estimate.mean - rows[1].estimate.mean)
    if len(report.candidates) > 1 and gap:
        told.append(
            f"If the {_amount(measure, gap)} between the leading two are their true difference, "
            f"{_seeds(seeds_needed(test, gap, std))} of each setting show it with a power of 80 %."
        )
    return told


def pair_outlook(pair: NamedPair, measure: Measure, comparisons: int) -> str:
    """Return how many seeds would make the difference of a named pair visible."""
    chance = Chance([s.figures(measure.key) for s in (pair.first, pair.second)])
    std, gap = chance.pooled.std, abs(pair.difference.mean)
    if std is None or not gap or pair.p_holm is None or pair.p_holm < 0.05:
        return ""
    test = of_a_pair(comparisons)
    seeds = _usual_seeds(chance)
    what, place = pair.names
    return (
        f"{what}{f' at {place}' if place else ''}: "
        f"{seeds} seeds of each show a difference of {_amount(measure, _visible(test, seeds, std))}"
        f" four times in five; to see {_amount(measure, gap)} takes "
        f"{_seeds(seeds_needed(test, gap, std))} of each."
    )


_visible = visible_difference


def _usual_seeds(chance: Chance) -> int:
    """Return how many seeds most settings have, two at least."""
    ((usual, _),) = Counter(chance.sizes.tolist()).most_common(1)
    return max(2, int(usual))


def _amount(measure: Measure, value: float) -> str:
    return f"{measure.number(value)}{measure.unit}"


def _seeds(count: int | None) -> str:
    return "more than a thousand seeds" if count is None else f"{count} seeds"


# --- Commands ---------------------------------------------------------------------------------


def use_commands(report: "SectionReport") -> list[tuple[str, str]]:
    """Return what the best run can be used for, and the command; as far as it has the weights."""
    run = RunFolder(report.best_run.path)
    path = shlex.quote(os.path.relpath(run.path))
    commands = []
    if run.best.is_file() or run.can_go_on:
        commands += [
            ("predict your own images", f"mnist-bench predict {path} IMAGE.png"),
            ("see where it errs", f"mnist-bench evaluate {path}"),
        ]
    if run.can_go_on and report.best_run.sweep is None:  # else it would be missing there
        epochs = 2 * int(report.best_run.summary["epochs"])
        begin = " ".join(begin_command([]))
        commands.append(("train it on", f"{begin} resume={path} trainer.epochs={epochs}"))
    return commands


def rest_commands(report: "SectionReport") -> list[tuple[str, str]]:
    """Return the commands that do what sweeps lack, and that give the candidates more seeds."""
    commands = []
    for sweep in report.sweeps:
        if not (command := SweepFolder(sweep).command()):
            continue
        if any(run.sweep == sweep for run in report.section.unfinished):
            commands.append((f"do the rest of {sweep.name}", command))
        elif any(run.sweep == sweep for row in _undecided(report) for run in row.setting.runs):
            commands.append(
                (f"more seeds, in {sweep.name}", _with_more_seeds(command, sweep, report))
            )
    return commands


def _undecided(report: "SectionReport") -> list["Row"]:
    """Return the settings of which more seeds would tell which is the best; none if it is known."""
    rows = report.candidates if report.best is not None else report.rows
    return rows if len(rows) > 1 else []


def _with_more_seeds(command: str, sweep: Path, report: "SectionReport") -> str:
    """Return a sweep's command for the settings that may be the best, with twice the seeds.

    Of a single seed, five are made.
    """
    rows = [
        row for row in _undecided(report) if any(run.sweep == sweep for run in row.setting.runs)
    ]
    axes = {
        key: [value for value in values if any(row.setting.values[key] == value for row in rows)]
        for key, values in report.section.axes.items()
        if key in SweepFolder(sweep).varied() or len(report.sweeps) == 1
    }
    seeds = sorted({seed for row in rows for seed in row.setting.seeds})
    new = len(seeds) if len(seeds) > 1 else FEW_SEEDS - 1
    more = [*seeds, *range(seeds[-1] + 1, seeds[-1] + 1 + new)]
    own = [f"{key}={','.join(map(as_typed, values))}" for key, values in axes.items()]
    in_order = more == list(range(more[0], more[-1] + 1))
    listed = f"range({more[0]},{more[-1] + 1})" if in_order else ",".join(map(str, more))
    own.append(f"{SEED}={listed}")
    replaced = {line.partition("=")[0] for line in own}
    kept = [part for part in shlex.split(command) if part.partition("=")[0] not in replaced]
    return " ".join(map(shlex.quote, [*kept, *own]))
