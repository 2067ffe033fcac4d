"""What a sweep's table and its sweep.csv say of a run."""

import csv
from pathlib import Path

from rich.console import Console

from mnist_bench.launch.sweeps.results import results_table, write_csv
from mnist_bench.runs.standing import Standing, State

FIGURES = {
    **{f"{part}_accuracy": 0.5 for part in ("train", "val", "test")},
    **{"val_loss": 0.5, "test_errors": 1, "train_seconds": 1.0},
}


def run(name: str, **settings: object) -> Standing:
    config = {key.replace("__", "."): value for key, value in settings.items()}
    summary = {**FIGURES, "model": config.pop("model", None), "config": config}
    return Standing(name, State.completed, summary)


# The first was made when the seed alone varied, the third is not there yet.
STANDINGS = [
    run("seed=0", seed=0, model="cnn3x3", optimizer__name="adam", model__dropout=[0.25, 0.5]),
    run(
        "model.dropout=0--model=cnn5x5--optimizer=sgd--seed=0",
        **{"seed": 0, "model": "cnn5x5", "optimizer__name": "sgd", "model__dropout": 0},
    ),
    Standing("model.dropout=0--model=cnn5x5--optimizer=sgd--seed=1", State.waiting, {}),
]
VARIED = ["model", "model.dropout", "optimizer", "seed"]


def test_a_run_from_before_a_key_varied_shows_its_setting(tmp_path: Path) -> None:
    write_csv(tmp_path / "sweep.csv", VARIED, STANDINGS)
    with (tmp_path / "sweep.csv").open(newline="") as file:
        rows = [[row[key] for key in VARIED] for row in csv.DictReader(file)]
    assert rows == [
        ["cnn3x3", "[0.25, 0.5]", "adam", "0"],
        ["cnn5x5", "0", "sgd", "0"],
        ["cnn5x5", "0", "sgd", "1"],
    ]


def test_so_does_the_table(tmp_path: Path) -> None:
    console = Console(file=(tmp_path / "table").open("w"), width=200)
    console.print(results_table("a sweep", STANDINGS, VARIED))
    console.file.close()
    lines = [" ".join(line.split()) for line in (tmp_path / "table").read_text().splitlines()]
    assert any(
        line.startswith("dropout=[0.25, 0.5] model=cnn3x3 optimizer=adam seed=0 completed")
        for line in lines
    )
    assert any(line == "dropout=0 model=cnn5x5 optimizer=sgd seed=1 waiting" for line in lines)
