"""What a path, a name or a glob means: a folder, its runs, or the best of them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mnist_bench.analysis.find import find_folder, find_folders, find_run, runs_below
from mnist_bench.cli import app
from mnist_bench.errors import ConfigError


def write(path: str, loss: float = 0.5, **more: object) -> Path:
    """Make the folder of a run with what has to be in the summary of a completed one."""
    folder = Path(path)
    folder.mkdir(parents=True)
    figures = dict.fromkeys(("train_accuracy", "val_accuracy", "test_accuracy"), 0.9)
    known = {"status": "completed", "dataset": "mnist", "device": "CPU", "seed": 0}
    summary = {**known, **figures, "train_seconds": 1.0, "val_loss": loss, **more}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture(autouse=True)
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def sweep() -> Path:
    folder = Path("outputs/sweeps/kernels")
    for number, loss in enumerate((0.3, 0.1, 0.2)):
        write(f"{folder}/seed={number}", loss)
    write(f"{folder}/seed=3", 0.0, status="failed")
    (folder / "seed=4").mkdir()
    (folder / "sweep.json").write_text("{}")
    return folder


def test_a_name_is_that_of_a_sweep_a_search_or_a_run() -> None:
    for kind in ("sweeps", "searches", "runs"):
        run = write(f"outputs/{kind}/of_{kind}/run")
        assert find_folder(f"of_{kind}") == run.parent
        assert find_folder(Path(run)) == run
    with pytest.raises(ConfigError, match="nothing is not there: name the folder of a run"):
        find_folder("nothing")


def test_a_folder_with_runs_goes_before_another_of_the_name(sweep: Path) -> None:
    Path("kernels").mkdir()
    assert find_folder("kernels") == sweep
    write("kernels/mine")
    assert find_folder("kernels") == Path("kernels")


def test_globs_names_and_files_beside_runs(sweep: Path) -> None:
    assert find_folders("outputs/sweeps/*/seed=[12]") == [sweep / "seed=1", sweep / "seed=2"]
    assert find_folders("kernels") == [sweep]
    assert find_folders(sweep / "sweep.json") == []
    assert find_folders(sweep / "seed=1" / "summary.json") == [sweep / "seed=1"]
    bracketed = write("outputs/runs/[1]")
    assert find_folders("outputs/runs/[1]") == [bracketed]


def test_a_glob_may_be_of_names(sweep: Path) -> None:
    assert find_folders("kern*") == [sweep]
    assert find_folders("kernels/*=[12]") == [sweep / "seed=1", sweep / "seed=2"]


def test_what_is_no_folder_is_said_to_be_that() -> None:
    Path("notes.txt").touch()
    with pytest.raises(ConfigError, match=r"notes\.txt is a file: name the folder"):
        find_folder("notes.txt")
    with pytest.raises(ConfigError, match="An empty name was given"):
        find_folder("")
    with pytest.raises(ConfigError, match="An empty name was given"):
        find_folders("")


def test_runs_end_the_way_down() -> None:
    run = write("outputs/runs/one")
    write("outputs/runs/one/figures/two")
    write("outputs/.trash/three")
    assert list(runs_below(Path("outputs"))) == [run]


def test_by_a_sweep_its_run_of_lowest_validation_loss_is_meant(sweep: Path) -> None:
    told: list[str] = []
    assert find_run("kernels", told.append) == sweep / "seed=1"
    assert told == [f"{sweep}/seed=1: lowest validation loss of 3 runs, 0.1000"]
    assert find_run(sweep / "seed=0", told.append) == sweep / "seed=0" and len(told) == 1


def test_what_has_no_best_run_is_refused(sweep: Path) -> None:
    with pytest.raises(ConfigError, match="outputs/sweeps is a folder of runs, and no sweep"):
        find_run("outputs/sweeps", print)
    write(f"{sweep}/seed=5", 0.05, dataset="fashion_mnist")
    with pytest.raises(ConfigError, match="kernels has runs on other data, or of other losses"):
        find_run("kernels", print)
    for summary in sweep.glob("*/summary.json"):
        summary.write_text('{"status": "interrupted"}')
    with pytest.raises(ConfigError, match="kernels has no completed run yet"):
        find_run("kernels", print)


@pytest.mark.parametrize("verb", ["predict", "evaluate", "demo", "export", "export-keras"])
def test_verbs_that_use_a_network_take_a_sweep(verb: str, sweep: Path) -> None:
    """They go on to the best run, which has no weights here."""
    Path("x.png").touch()
    more = {"predict": ["x.png"], "export": ["--to", "safetensors"], "export-keras": ["x.h5"]}
    done = CliRunner().invoke(app, [verb, "kernels", *more.get(verb, [])])
    assert "seed=1: lowest validation loss of 3 runs" in done.stderr
    assert "seed=1" in str(done.exception) and "checkpoints" in str(done.exception)
