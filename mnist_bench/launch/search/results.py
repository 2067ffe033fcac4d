"""What a search has come to: its best trials, what mattered, and the best as an experiment."""

import csv
import os
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.table import Table

from mnist_bench.config.help import begin_command
from mnist_bench.config.identity import computed
from mnist_bench.config.parts import config_dirs
from mnist_bench.config.walk import flatten
from mnist_bench.errors import BenchError, DataError
from mnist_bench.launch.search.study import SharedStudy
from mnist_bench.launch.sweeps.plan import Job, compose_job
from mnist_bench.loggers.console import Screen, info
from mnist_bench.runs.folder import RunFolder, atomic_write
from mnist_bench.runs.records import read_summary

STATES = {
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}
# Of more trials, the table shows the best; trials.csv has all.
MOST_ROWS = 10
# Fewer completed trials say nothing of what mattered.
FEWEST_FOR_IMPORTANCES = 10
# Choices that belong to no run, or are the experiment itself.
NOT_OF_AN_EXPERIMENT = ("experiment", "sweep", "logger")


def values_of(values: Mapping[str, Any]) -> str:
    """Return the values of a trial as people read them: `lr=0.00123 kernel_size=3`."""
    return " ".join(f"{key.rpartition('.')[2]}={_brief(v)}" for key, v in values.items())


def _brief(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def best_of(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Return the completed trial of lowest validation loss."""
    completed = [t for t in trials if t.state is TrialState.COMPLETE]
    return min(completed, key=lambda t: t.values[0], default=None)


def tell_results(study: SharedStudy, config: DictConfig) -> None:
    """Show how a search stands, and write trials.csv, importances.png and the best trial."""
    show(study)
    trials, path = study.trials, study.folder
    write_csv(path / "trials.csv", study)
    if importances := importances_of(study):
        draw_importances(path / "importances.png", importances)
    if (best := best_of(trials)) is not None:
        if not write_best(study, best, config):
            info("Its folder is gone, or damaged: it cannot be written as an experiment.")
            return
        where = os.path.relpath(path)
        begin, first = begin_command([where]), config.seed + len(study.runs_of(best.number))
        again = " ".join([*begin, "-m experiment=best", f"'seed=range({first},{first + 5})'"])
        if own := config_dirs(config.hydra.runtime):  # of which there can be one
            again = f"copy {where}/experiment/best.yaml to {own[0]}/experiment/"
        info(f"To train it with seeds that it has not had: {again}")


def show(study: SharedStudy) -> None:
    """Show the table of the best trials, how many there are, what mattered, and the best."""
    screen = Screen()
    screen.console.print(trials_table(study))
    states = [_state(study, trial) for trial in study.trials]
    counts = [f"{states.count(word)} {word}" for word in dict.fromkeys(states)]
    info(f"{len(states)} {'trial' if len(states) == 1 else 'trials'}: {', '.join(counts)}")
    if importances := importances_of(study):
        screen.console.print(importances_table(importances))
    if (best := best_of(study.trials)) is not None:
        info(f"best: {os.path.relpath(study.folder_of(best.number))}")


def trials_table(study: SharedStudy) -> Table:
    """Return a row for each of the best trials, with those that were pruned or failed behind."""
    order = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.FAIL]
    trials = sorted(
        study.trials,
        key=lambda t: (order.index(t.state), t.values[0] if t.values else 0, t.number),
    )
    table = Table(
        title=os.path.relpath(study.folder),
        box=box.SIMPLE_HEAD,
        title_style="bold",
        title_justify="left",
        pad_edge=False,
    )
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    table.add_column("trial", no_wrap=True)
    for key in keys:
        table.add_column(key.rpartition(".")[2], justify="right")
    seeds = len(study.runs_of(0)) > 1
    for column in ("val loss", "val", *["seeds"] * seeds):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for trial in trials[:MOST_ROWS]:
        accuracies = accuracies_of(study, trial.number)
        table.add_row(
            str(trial.number),
            *(_brief(trial.params[key]) for key in keys),
            f"{trial.values[0]:.4f}" if trial.values else "",
            f"{statistics.fmean(accuracies):.2%}" if accuracies else "",
            *[str(len(accuracies) or "")] * seeds,
            _state(study, trial),
            style="bold" if trial is best_of(trials) else None,
        )
    return table


def _state(study: SharedStudy, trial: FrozenTrial) -> str:
    running = trial.state is TrialState.RUNNING
    if running and not RunFolder(study.folder_of(trial.number)).is_in_use():
        return "stopped"
    return STATES[trial.state]


def accuracies_of(study: SharedStudy, number: int) -> list[float]:
    """Return the validation accuracy of each completed run of a trial that can be read."""
    found = []
    for run in study.runs_of(number):
        with suppress(DataError, OSError):
            if (summary := read_summary(run)).get("status") == "completed":
                found.append(summary["val_accuracy"])
    return found


def write_csv(path: Path, study: SharedStudy) -> None:
    """Write a row for each trial, with the settings that vary."""
    trials = study.trials
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["trial", "state", *keys, "val_loss", "val_accuracy", "epochs", "error"])
        for trial in trials:
            accuracies = accuracies_of(study, trial.number)
            writer.writerow(
                [
                    study.folder_of(trial.number).name,
                    _state(study, trial),
                    *(trial.params[key] for key in keys),
                    trial.values[0] if trial.values else None,
                    statistics.fmean(accuracies) if accuracies else None,
                    len(trial.intermediate_values),
                    trial.user_attrs.get("error"),
                ]
            )


# --- What mattered ----------------------------------------------------------------------------


def importances_of(study: SharedStudy) -> dict[str, float]:
    """Return the share of each key in reaching the best quarter; nothing of too few trials.

    PED-ANOVA (Watanabe et al., IJCAI 2023), which takes milliseconds.
    """
    completed = [t for t in study.trials if t.state is TrialState.COMPLETE]
    if len(completed) < FEWEST_FOR_IMPORTANCES:
        return {}
    evaluator = PedAnovaImportanceEvaluator(target_quantile=0.25)
    return get_param_importances(study.study, evaluator=evaluator)


def importances_table(importances: Mapping[str, float]) -> Table:
    """Return a bar for each key."""
    table = Table(box=None, show_header=False, title="what mattered", title_justify="left")
    for key, share in importances.items():
        table.add_row(key, f"{share:.0%}", "█" * round(40 * share) or "▏")
    return table


def draw_importances(path: Path, importances: Mapping[str, float]) -> None:
    """Draw the same."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 1 + 0.4 * len(importances)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(list(importances), list(importances.values()), color="tab:blue")
    axes.invert_yaxis()
    axes.set_xlabel("importance for reaching the best quarter of the trials")
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=150)


# --- The best ---------------------------------------------------------------------------------


def write_best(study: SharedStudy, best: FrozenTrial, config: DictConfig) -> bool:
    """Write what the best trial computes as `experiment/best.yaml`, whatever the seed.

    Returns False, and leaves none, if its folder does not tell.
    """
    run, path = RunFolder(study.runs_of(best.number)[0]), study.folder / "experiment" / "best.yaml"
    try:
        settings = computed(read_summary(run.path)["config"])
        chosen = OmegaConf.load(run.hydra).hydra.runtime.choices
    except (DataError, OSError, KeyError, AttributeError):
        path.unlink(missing_ok=True)
        return False
    choices = {
        group: choice
        for group, choice in chosen.items()
        if choice and not {"/", "@"} & {*group} and group not in NOT_OF_AN_EXPERIMENT
    }
    name, hydra_lines = config.hydra.job.config_name, list(config.hydra.overrides.hydra)
    try:
        lines = tuple(f"{group}={choice}" for group, choice in choices.items())
        plain = computed(flatten(compose_job(name, Job((), lines, {}), hydra_lines)))
    except BenchError:  # a part of the user's own has settings without a default
        plain = {}
    values = OmegaConf.create({})
    for key, value in settings.items():
        if key not in ("seed", "imported_from") and (key not in plain or plain[key] != value):
            OmegaConf.update(values, key, value)
    nested: Any = OmegaConf.to_container(values)
    content = {
        "defaults": [*({f"override /{g}": c} for g, c in choices.items()), "_self_"],
        **nested,
    }
    where = os.path.relpath(study.folder)
    path.parent.mkdir(exist_ok=True)
    with atomic_write(path) as file:
        file.write(
            f"# @package _global_\n"
            f"# The best trial of {where}, number {best.number}: validation loss "
            f"{best.values[0]:.4f}.\n"
            f"# python train.py --config-dir {where} experiment=best\n"
        )
        yaml.safe_dump(content, file, sort_keys=False)
    return True
