"""The rows of a device as Markdown: README.md beside its rows.jsonl."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.gpu.rows import Origin, Row, label, read_rows
from mnist_bench.reproduction.published import SECONDS_PER_EPOCH

Table = list[str]


def write_tables(folder: Path) -> Path:
    path = folder / "README.md"
    beside = folder / "README.md.partial"
    beside.write_text(render(read_rows(folder)))
    beside.replace(path)
    return path


def render(rows: Sequence[Row]) -> str:
    """A section for each part, and in it a table for each commit, the newest first."""
    devices = " and ".join(dict.fromkeys(row.origin.device for row in rows))
    lines = [
        f"# What was measured on {devices}",
        "",
        "`python -m benchmarks.gpu` measures the rows of [rows.jsonl](rows.jsonl), and `python -m "
        "benchmarks.gpu --tables` writes these tables from them.",
    ]
    for name, (title, explanation, table) in SECTIONS.items():
        of_part = [row for row in rows if row.part == name]
        if not of_part:
            continue
        lines += ["", f"## {title}", "", explanation]
        for origin in reversed(dict.fromkeys(row.origin for row in of_part)):
            newest = {row.name: row for row in of_part if row.origin == origin}
            lines += ["", origin_line(origin, list(newest.values()))]
            if good := [row for row in newest.values() if not row.failed]:
                lines += ["", *table(good)]
            words = [(row, word) for row in good for word in row.figures.get("warnings", [])]
            if words:
                lines += ["", *(f"- `{label(row.key)}`: {word}" for row, word in words)]
            if bad := [row for row in newest.values() if row.failed]:
                lines += ["", *(f"- `{label(row.key)}` failed: {row.failed}" for row in bad)]
    return "\n".join(lines) + "\n"


def origin_line(origin: Origin, rows: Sequence[Row]) -> str:
    days = sorted({row.date[:10] for row in rows})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return (
        f"{origin.device}, torch {origin.torch}, Python {origin.python}, commit {origin.commit}, "
        f"{when}:"
    )


def markdown(header: Sequence[str], cells: Sequence[Sequence[str]], text_columns: int = 1) -> Table:
    """A table whose first columns are text and whose others are numbers."""
    rules = ["---" if place < text_columns else "---:" for place in range(len(header))]
    return [f"| {' | '.join(line)} |" for line in [header, rules, *cells]]


def figure(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def per_cent(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}%}"


def tests(rows: Sequence[Row]) -> Table:
    outcomes = ("passed", "failed", "skipped")
    cells = [
        [f"`{row.key['file']}`", *(str(row.figures[outcome]) for outcome in outcomes)]
        for row in rows
    ]
    lines = markdown(["file", *outcomes], cells)
    failures = [name for row in rows for name in row.figures["failures"]]
    return lines + ([""] + [f"- failed: `{name}`" for name in failures] if failures else [])


def steps(rows: Sequence[Row]) -> Table:
    """A line for each network, with its variants side by side."""
    variants = list(dict.fromkeys(row.key["variant"] for row in rows))
    lines: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        figures = row.figures
        of_line = (row.key["network"], row.key["recipe"], figures["optimizer"])
        place = (*of_line, str(figures["batch_size"]), row.key["precision"])
        lines.setdefault(place, {})[row.key["variant"]] = row

    def cell(row: Row | None) -> str:
        if row is None:
            return "-"
        graph_ms = row.figures.get("graph_ms")
        ratio = "" if graph_ms is None else f" ({row.figures['ms'] / graph_ms:.2f})"
        return f"{row.figures['ms']:.3f}{ratio}"

    cells = [
        [f"`{place[0]}`", *place[1:], *(cell(found.get(variant)) for variant in variants)]
        for place, found in lines.items()
    ]
    header = ["network", "recipe", "optimizer", "batch", "precision", *variants]
    return markdown(header, cells, text_columns=5)


def against_graph(rows: Sequence[Row]) -> Table:
    """A line for each row, beside the step that it is a variant of."""
    cells = []
    for row in rows:
        key, figures = row.key, row.figures
        line = [f"`{key['network']}`", key["recipe"], key["precision"], key["variant"]]
        line += [figure(figures["ms"], 3), figure(figures["graph_ms"], 3)]
        line += [figure(figures["ms"] / figures["graph_ms"], 2)]
        names = ("seconds_before", "graph_seconds_before")
        cells.append(line + [figure(figures.get(name), 1) for name in names])
    header = ["network", "recipe", "precision", "variant", "ms", "without it, ms", "ratio"]
    header += ["seconds before", "without it"]
    return markdown(header, cells, text_columns=4)


def trainings(rows: Sequence[Row]) -> Table:
    cells = []
    for row in rows:
        name, figures = row.key["experiment"], row.figures
        published = SECONDS_PER_EPOCH.get(name)
        line = [f"`{name}`", str(figures["epochs"]), figure(figures.get("train_seconds"))]
        line += [figure(figures.get("warm_up_seconds")), figure(figures["first_epoch_seconds"])]
        line += [figure(figures["later_epoch_seconds"], 3)]
        line += [figure(figures.get("whole_epoch_seconds"), 3), figure(figures.get("wall_seconds"))]
        line += ["-" if published is None else str(published * figures["epochs"])]
        cells.append([*line, per_cent(figures["test_accuracy"])])
    header = ["recipe", "epochs", "training, s", "warm-up before, s", "first epoch, s"]
    header += ["a later epoch, s", "a later epoch with validation and saving, s"]
    header += ["whole process, s", "training as published, s", "test accuracy"]
    settings = sorted({" ".join(f"`{one}`" for one in row.figures["settings"]) for row in rows})
    return [*markdown(header, cells), "", f"Beside the recipe: {'; '.join(settings)}."]


def seeds(rows: Sequence[Row]) -> Table:
    def of_seeds(found: Sequence[Row], name: str) -> str:
        values = [row.figures.get(name) for row in found]
        return "-" if None in values else ", ".join(per_cent(value) for value in values)

    cells = []
    for experiment in dict.fromkeys(row.key["experiment"] for row in rows):
        found = [row for row in rows if row.key["experiment"] == experiment]
        line = [f"`{experiment}`", ", ".join(str(row.key["seed"]) for row in found)]
        names = ("test_accuracy", "val_binary_accuracy", "train_binary_accuracy")
        cells.append(line + [of_seeds(found, name) for name in names])
    header = ["recipe", "seeds", "test accuracy", "binary validation accuracy"]
    return markdown([*header, "binary training accuracy"], cells, text_columns=2)


def saving(rows: Sequence[Row]) -> Table:
    cells = []
    for row in rows:
        line = [f"`trainer.save_every={row.key['save_every']}`", str(row.figures["epochs"])]
        names = ("later_epoch_seconds", "whole_epoch_seconds", "wall_seconds")
        cells.append(line + [figure(row.figures[name], 3) for name in names])
    header = ["setting", "epochs", "a later epoch's steps, s"]
    return markdown([*header, "with validation and saving, s", "whole process, s"], cells)


def speedrun(rows: Sequence[Row]) -> Table:
    cells = []
    for row in rows:
        for name, title in (("ours", "`experiment=speedrun`"), ("study", "study of 2021")):
            found = row.figures[name]
            line = [f"{title}, {row.key['seeds']} seeds"]
            line += [
                figure(found[f"{which}_seconds"], 3) for which in ("median", "lowest", "highest")
            ]
            line += [per_cent(found[one], 3) for one in ("mean_accuracy", "accuracy_deviation")]
            line += [per_cent(found[f"{which}_accuracy"]) for which in ("lowest", "highest")]
            cells.append(line)
    header = ["", "median, s", "from", "to", "test accuracy, mean", "standard deviation"]
    return markdown([*header, "lowest", "highest"], cells)


def accuracy(rows: Sequence[Row]) -> Table:
    cells = []
    for network in dict.fromkeys(row.key["network"] for row in rows):
        found = [row.figures for row in rows if row.key["network"] == network]
        values = [figures["test_accuracy"] for figures in found]
        deviation = statistics.stdev(values) if len(values) > 1 else None
        line = [f"`{network}`", str(len(found)), per_cent(statistics.mean(values), 3)]
        line += [per_cent(deviation, 3), per_cent(min(values)), per_cent(max(values))]
        seconds = statistics.median(figures["train_seconds"] for figures in found)
        cells.append([*line, figure(seconds, 1)])
    header = ["network", "seeds", "test accuracy, mean", "standard deviation", "lowest", "highest"]
    return markdown([*header, "training, s"], cells)


def replicas(rows: Sequence[Row]) -> Table:
    cells = [
        [f"`{row.key['network']}`", str(row.key["replicas"])]
        + [figure(row.figures[name], 3) for name in ("ms", "ms_alone")]
        + [figure(row.figures["ms"] / (row.key["replicas"] * row.figures["ms_alone"]), 3)]
        for row in rows
    ]
    header = ["network", "side by side", "a step of all, ms", "a step of one alone, ms"]
    return markdown([*header, "share of as many alone"], cells)


def equality(rows: Sequence[Row]) -> Table:
    cells = [
        [f"`{value}`" if place == 0 else str(value) for place, value in enumerate(row.key.values())]
        + ["yes" if row.figures["equal"] else "no", f"{row.figures['difference']:.1g}"]
        for row in rows
    ]
    names = list(rows[0].key)
    return markdown([*names, "equal", "largest difference"], cells, len(names) + 1)


# By part: its title, what the figures are, and how its rows become a table.
SECTIONS: dict[str, tuple[str, str, Callable[[Sequence[Row]], Table]]] = {
    "training": (
        "Published trainings",
        "`experiment=NAME` in bf16, seed 0. Seconds of epochs are those of their training steps; "
        "a later epoch is the median of all but the first.",
        trainings,
    ),
    "seeds": (
        "Published trainings, further seeds",
        "As above; binary accuracies are what Keras reports of vgg16.",
        seeds,
    ),
    "step": (
        "Training steps",
        "Milliseconds, medians of rounds; in brackets, how many times as long as the step with a "
        "CUDA graph that took turns with it. Recipe `own`: optimizer, batch and loss of "
        "`experiment=NAME`; `adam`: those of `model=NAME`.",
        steps,
    ),
    "precision": (
        "Training steps in other precisions",
        "Milliseconds, medians of rounds.",
        steps,
    ),
    "compile": (
        "Steps of compiled networks",
        "`trainer.compile`, both with a CUDA graph; the seconds before are those until the steps "
        "could be timed.",
        against_graph,
    ),
    "deterministic": (
        "Steps of deterministic kernels",
        "`trainer.deterministic`, both with a CUDA graph.",
        against_graph,
    ),
    "save": (
        "Saving checkpoints",
        "`experiment=vgg16` for a few epochs. Seconds with validation and saving are those from "
        "one epoch's line in train.log to the next.",
        saving,
    ),
    "speedrun": (
        "The time to 99 %",
        "`experiment=speedrun` in bf16, in turns with the study of 2021 in fp32 "
        "(`benchmarks/speedrun.py`).",
        speedrun,
    ),
    "accuracy": (
        "The most accurate networks",
        "`experiment=accuracy` (`benchmarks/accuracy.py`, which has the ensemble too).",
        accuracy,
    ),
    "tests": (
        "Tests that need CUDA",
        "`pytest -m needs_cuda`. Those that failed at 2e99cf2 held rounding to too small a "
        "tolerance, or an optimizer that computed in another way under a graph; at later commits "
        "both sides compute alike and are compared for equality.",
        tests,
    ),
    "equality of graphs": (
        "Graphs beside plain steps",
        "20 deterministic steps with a CUDA graph and without. Where they are not equal bit for "
        "bit, the optimizer took its rate from a tensor under a graph and from a number without; "
        "at later commits it is a tensor either way.",
        equality,
    ),
    "replicas": (
        "Several seeds in one graph",
        "A feature that is no longer there: `trainer.replicas=K` recorded the steps of K networks "
        "as branches of one CUDA graph.",
        replicas,
    ),
    "equality of replicas": (
        "Several seeds beside each alone",
        "Three networks in one graph, each beside what it does alone.",
        equality,
    ),
}
