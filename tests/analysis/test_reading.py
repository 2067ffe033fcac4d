"""Runs as they are found, told apart and listed, wherever their folders lie."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.reading import write_sweep
from mnist_bench.analysis.collect import collect
from mnist_bench.analysis.listing import list_runs
from mnist_bench.analysis.settings import sections_of, short_values
from mnist_bench.cli import app
from mnist_bench.errors import ConfigError
from mnist_bench.runs.folder import RunFolder

AXES = {"model.kernel_size": [3, 5], "model.dropout": [0.0, 0.25]}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep of 2 x 2 x 2 runs and one more run. Not to be written to."""
    home = tmp_path_factory.mktemp("home")
    write_sweep(home / "outputs" / "sweeps" / "one", AXES, 2, images=200)
    single = write_sweep(home / "scratch", {"trainer.epochs": [6]}, 1, images=200)
    (home / "outputs" / "runs").mkdir()
    shutil.move(single[0], home / "outputs" / "runs" / "2026-11-26_10-00-00_cnn5x5_single")
    shutil.rmtree(home / "scratch")
    return home


@pytest.fixture
def cwd(outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of these to write to, as the working directory."""
    shutil.copytree(outputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*paths: Path | str) -> int:
    return len(collect(paths))


def test_runs_are_found_by_folders_globs_and_names_each_once(cwd: Path) -> None:
    run = "outputs/sweeps/one/model.dropout=0.0--model.kernel_size=3--seed=0"
    assert found() == found("outputs") == found(cwd) == 9
    assert found("one") == found("outputs/sweeps/one") == found("outputs/sweeps/*") == 8
    assert found(run) == found(f"{run}/summary.json") == 1
    assert found("one", run, "outputs/sweeps/one/*seed=1*", "outputs/sweeps/one/sweep.json") == 8
    assert found("outputs/**/*kernel_size=5*") == 4
    with pytest.raises(ConfigError, match="two is not there: name the folder of a run"):
        collect(["two"])
    (cwd / "empty").mkdir()
    with pytest.raises(ConfigError, match="There are no runs in empty"):
        collect(["empty"])


def test_the_newest_is_first_and_what_differs_is_told(cwd: Path) -> None:
    runs = list_runs(["one"])
    started = [run.started for run in runs]
    assert started == sorted(started, reverse=True)
    assert runs[0].differs == {"model.dropout": 0.25, "model.kernel_size": 5, "seed": 1}
    assert (runs[0].state, runs[0].model, runs[0].dataset) == (
        "completed",
        "cnn5x5_single",
        "mnist",
    )
    assert runs[0].test_accuracy == pytest.approx(0.99, abs=0.01)


def test_runs_that_have_not_ended_well_are_listed_with_their_state(cwd: Path) -> None:
    sweep = cwd / "outputs" / "sweeps" / "one"
    runs = sorted(path for path in sweep.iterdir() if path.is_dir())

    def change(run: Path, **keys: object) -> None:
        content = json.loads((run / "summary.json").read_text())
        (run / "summary.json").write_text(json.dumps({**content, **keys}))

    change(runs[0], status="failed", error="The loss is NaN.")
    change(runs[1], status="interrupted")
    (runs[1] / "checkpoints").mkdir()
    (runs[1] / "checkpoints" / "last.pt").touch()
    change(runs[2], status="pruned")
    change(runs[3], status="imported")
    (runs[4] / "summary.json").write_text("{")
    shutil.rmtree(runs[5])
    (runs[5] / ".hydra").mkdir(parents=True)
    (runs[5] / ".hydra" / "config.yaml").write_text("seed: 0\n")
    (runs[6] / "summary.json").unlink()
    with RunFolder(runs[6]).owned():
        by_path = {run.path.name: run for run in list_runs(["one"])}
    states = [by_path[run.name].state for run in runs]
    assert states == [
        *("failed", "stopped", "pruned", "imported", "failed", "cut off", "running", "completed")
    ]
    assert by_path[runs[0].name].error == "The loss is NaN."
    assert "is damaged" in str(by_path[runs[4].name].error)
    assert by_path[runs[1].name].epochs == by_path[runs[6].name].epochs == 6


def test_long_fractions_are_shortened_as_far_as_they_stay_apart() -> None:
    assert short_values([0.34077893813557525, 0.25, 0.0, 7, "adam", None]) == [
        *("0.341", "0.25", "0.0", "7", "adam", "null")
    ]
    assert short_values([0.00117814487, 0.00117814999]) == ["0.00117814", "0.00117815"]
    assert short_values([0.1 + 0.2, 0.3]) == ["0.30000000000000004", "0.3"]


def test_what_a_run_refers_to_is_resolved_before_it_has_ended_too(
    cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = cwd / "outputs/sweeps/one/model.dropout=0.0--model.kernel_size=3--seed=0"
    (run / "summary.json").unlink()
    (run / ".hydra").mkdir(exist_ok=True)
    config = run / ".hydra" / "config.yaml"
    config.write_text(
        "seed: 0\nmodel: {adam_lr: 0.003}\noptimizer: {lr: '${model.adam_lr}'}\n"
        "data: {root: '${oc.env:MNIST_BENCH_DATA,data}'}\n"
    )
    monkeypatch.delenv("MNIST_BENCH_DATA", raising=False)
    (found_run,) = collect([run])
    assert found_run.settings["data.root"] == "data"
    assert found_run.settings["optimizer.lr"] == 0.003
    config.write_text("data: {root: '${nothing.there}'}\n")
    (found_run,) = collect([run])
    assert found_run.settings["data.root"] == "${nothing.there}"


def test_runs_that_have_not_begun_add_no_differences(cwd: Path) -> None:
    """Of a run that waits there is but the name of its folder."""
    shutil.rmtree(cwd / "outputs/sweeps/one/model.dropout=0.0--model.kernel_size=3--seed=0")
    runs = list_runs(["one"])
    assert {*runs[0].differs} == {*runs[-1].differs} == {*AXES, "seed"}
    assert (runs[-1].state, runs[-1].started) == ("waiting", None)


def test_those_that_have_begun_are_named_by_what_those_that_wait_will_differ_in(cwd: Path) -> None:
    for run in (cwd / "outputs/sweeps/one").glob("*kernel_size=5*"):
        shutil.rmtree(run)
    runs = list_runs(["one"])
    assert {run.state for run in runs} == {"completed", "waiting"}
    assert all({*run.differs} == {*AXES, "seed"} for run in runs)


def test_trials_of_a_search_are_runs(cwd: Path) -> None:
    sweep, search = cwd / "outputs/sweeps/one", cwd / "outputs/searches/digits"
    for number, run in enumerate(sorted(sweep.glob("*seed=*"))):
        trial = search / f"trial-{number // 2:03}" / f"seed={number % 2}"
        shutil.copytree(run, trial)
    (search / "journal.log").touch()
    assert found("digits") == found("outputs/searches") == 8
    assert found("digits", "outputs/searches/digits/trial-000") == 8
    assert found("outputs/searches/digits/trial-*") == 8
    (section,) = sections_of(collect(["digits"]))
    assert [setting.n for setting in section.settings] == [2] * 4


def test_the_list_fits_eighty_columns_and_json_has_all(
    cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, ["runs", "--last", "3"])
    assert shown.exit_code == 0, shown.output
    assert all(len(line) <= 100 for line in shown.output.splitlines())
    assert "The 3 newest of 9 runs: 9 completed; --last 0 shows all" in shown.output
    assert "outputs/sweeps/one" in shown.output and "kernel_size=5" in shown.output
    told = CliRunner().invoke(app, ["runs", "--json", "one"])
    content = json.loads(told.output)
    assert len(content) == 8
    assert content[0]["differs"] == {"model.dropout": 0.25, "model.kernel_size": 5, "seed": 1}


# --- Runs that may be compared ----------------------------------------------------------------


def write(folder: Path, config: dict[str, object] | None = None, seeds: int = 2) -> list[Path]:
    return write_sweep(folder, {"model.kernel_size": [3, 5]}, seeds, images=100, config=config)


def test_other_images_and_other_networks_are_not_thrown_together(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b", {"data.name": "fashion_mnist"})
    write(tmp_path / "c", {"model.name": "cnn3x3", "model.channels": [32, 64]})
    write(tmp_path / "d", {"data.limit": 50})
    runs = collect([tmp_path])
    sections = sections_of(runs)
    assert len(sections) == 4
    assert all(len(section.settings) == 2 and len(section.runs) == 4 for section in sections)
    # To compare networks one says so, or sweeps them; other images never are.
    assert sorted(len(s.settings) for s in sections_of(runs, together=True)) == [2, 2, 4]


def test_networks_of_one_sweep_are_compared_and_what_follows_from_them_is_no_key(
    tmp_path: Path,
) -> None:
    write(tmp_path / "a")
    jobs = json.loads((tmp_path / "a" / "sweep.json").read_text())["jobs"]
    other = write(tmp_path / "b", {"model.name": "cnn3x3", "model.channels": [32, 64]}, 1)
    for run in other:
        digest = json.loads((run / "summary.json").read_text())["digest"]
        jobs[digest] = f"model=cnn3x3--{run.name}"
        run.rename(tmp_path / "a" / jobs[digest])
    shutil.rmtree(tmp_path / "b")
    content = json.loads((tmp_path / "a" / "sweep.json").read_text())
    (tmp_path / "a" / "sweep.json").write_text(json.dumps({**content, "jobs": jobs}))
    (section,) = sections_of(collect([tmp_path]))
    assert section.axes == {"model": ["cnn3x3", "cnn5x5_single"], "model.kernel_size": [3, 5]}
    assert [setting.n for setting in section.settings] == [1, 1, 2, 2]


def test_one_seed_trained_twice_counts_once_as_the_newest(tmp_path: Path) -> None:
    first = write(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "again")
    content = json.loads((first[0] / "summary.json").read_text())
    newer = {**content, "started": "2027-01-01T00:00:00+0000", "device": "another"}
    (first[0] / "summary.json").write_text(json.dumps(newer))
    (section,) = sections_of(collect([tmp_path]))
    assert [setting.n for setting in section.settings] == [2, 2]
    assert len(section.repeated) == 4
    assert section.settings[0].runs[0].path == first[0]


def test_a_list_of_layers_is_a_value_like_others(tmp_path: Path) -> None:
    write_sweep(tmp_path / "a", {"model.dropout": [[0.25, 0.5], 0.0]}, 2, images=50)
    (section,) = sections_of(collect([tmp_path]))
    assert section.axes == {"model.dropout": [0.0, [0.25, 0.5]]}
    labels = [setting.label(section.short) for setting in section.settings]
    assert labels == ["dropout=0.0", "dropout=[0.25,0.5]"]


def test_it_prints_without_pytorch() -> None:
    """A list of runs takes no PyTorch, whose import alone takes seconds."""
    import subprocess
    import sys

    code = (
        "import sys, mnist_bench.cli, mnist_bench.analysis.listing, mnist_bench.analysis.report\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
