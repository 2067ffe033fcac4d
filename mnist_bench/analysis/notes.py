"""What a reader has to know of runs before their figures: what they mix, lack or share."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_bench.analysis.collect import FoundRun
from mnist_bench.analysis.settings import Section, Setting

# Of a run, what may move its figures without being a setting; by the plural that names it.
CIRCUMSTANCES: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "precisions": lambda summary: summary.get("precision"),
    "devices": lambda summary: summary.get("device"),
    "kernels": lambda summary: summary.get("kernels"),
    "commits of the code": lambda summary: (summary.get("git_commit") or "unknown")[:10],
    "versions of PyTorch": lambda summary: (summary.get("versions") or {}).get("torch"),
}


def notes_on(section: Section) -> list[str]:
    """Return a sentence for each thing that a reader should not overlook."""
    notes = [*_on_validation(section), *_on_circumstances(section)]
    changed = sum(bool(run.summary.get("git_changes")) for run in section.runs)
    if changed:
        notes.append(
            f"{_runs(changed, len(section.runs))} of code with changes that are not committed."
        )
    doubtful = [run for run in section.runs if run.summary.get("warning")]
    if doubtful:
        names = _some([_name(run) for run in doubtful])
        notes.append(
            f"{_runs(len(doubtful), len(section.runs))} of networks that learnt next to nothing, "
            f"and are counted: {names}."
        )
    if section.repeated:
        names = _some([_name(run) for run in section.repeated])
        notes.append(f"Left out, as another run, no older, has the same setting and seed: {names}.")
    return notes


def on_spread(settings: Sequence[Setting], samples: Sequence[NDArray[np.float64]]) -> list[str]:
    """Return which settings have one value with all seeds, if others vary."""
    fixed = [
        s for s, sample in zip(settings, samples, strict=True) if s.n > 1 and not np.ptp(sample)
    ]
    if not fixed or not any(np.ptp(sample) > 0 for sample in samples):
        return []
    return [
        f"{len(fixed)} of {len(settings)} settings gave the same figure with every seed: they tell "
        f"nothing of chance, and ± is made of the others."
    ]


def _on_validation(section: Section) -> list[str]:
    on_test = sum(run.summary.get("validation") == "test" for run in section.runs)
    if not on_test:
        return []
    return [
        f"{_runs(on_test, len(section.runs))} validated on the test set: their validation figures "
        f"are test figures, and what was chosen by them flatters their test figures."
    ]


def _on_circumstances(section: Section) -> list[str]:
    notes = []
    for name, read in CIRCUMSTANCES.items():
        counts = Counter(str(read(run.summary)) for run in section.runs)
        if len(counts) < 2:
            continue
        told = ", ".join(f"{value} ({count})" for value, count in counts.most_common(4))
        more = f" and {len(counts) - 4} more" if len(counts) > 4 else ""
        apart = any(
            len({str(read(run.summary)) for run in setting.runs}) == 1
            for setting in section.settings
        )
        warning = ""
        if apart and len(section.settings) > 1:
            warning = "; a difference between settings may be one between these"
        notes.append(f"These runs mix {name}: {told}{more}{warning}.")
    return notes


def _runs(count: int, of: int) -> str:
    return f"All {of} runs are" if count == of else f"{count} of {of} runs are"


def _name(run: FoundRun) -> str:
    """Return the name of its folder; with that above it, where it is called by its seed alone."""
    name = run.path.name
    return f"{run.path.parent.name}/{name}" if name.startswith("seed=") else name


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def on_grid(section: Section, effects: int) -> list[str]:
    """Return what a grid lacks: settings, or seeds of some."""
    notes = []
    combinations = 1
    for values in section.axes.values():
        combinations *= len(values)
    there = len(section.settings)
    if effects and there < combinations:
        notes.append(
            f"The grid has gaps: {there} of the {combinations} combinations of values that any "
            f"completed run has are there. "
            f"Means over a key take in only settings that are there at all of its values."
        )
    elif len(section.axes) > 1 and not effects:
        notes.append(
            "These settings are no grid: nothing but one key changes between no two of them at all "
            "values of it, so that effects of single keys cannot be told apart."
        )
    sizes = sorted({setting.n for setting in section.settings})
    if len(sizes) > 1:
        notes.append(f"Settings have {sizes[0]} to {sizes[-1]} seeds.")
    return notes


def what_is_missing(runs: Sequence[FoundRun]) -> str:
    """Return `2 waiting, 1 failed` of runs that are not completed."""
    counts = Counter(run.standing.state.value for run in runs)
    return ", ".join(f"{count} {state}" for state, count in counts.most_common())
