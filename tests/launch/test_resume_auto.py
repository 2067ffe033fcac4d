"""`resume=auto`, in outputs/runs and in a folder that is given, and sweeps that are stopped."""

import json
import os
import shutil
import signal
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from mnist_bench.config.compose import compose
from mnist_bench.config.identity import computed, digest
from mnist_bench.config.read import to_config
from mnist_bench.config.walk import flatten
from mnist_bench.launch.resume import newest_unfinished
from mnist_bench.runs import records
from mnist_bench.runs.checkpoint import read_checkpoint
from mnist_bench.runs.folder import RunFolder
from tests.support import stopping
from tests.support.config_files import write_hydra_folder
from tests.support.train_command import environment, read_summary, run_train, started

TINY = (
    *("data.limit=200", "trainer.epochs=2", "trainer.gpus=0", "trainer.precision=fp32"),
    *("model.channels=[4,4]", "model.dense=[8]", "logger=none"),
)
# Of two steps an epoch; killed in the second epoch, when the first is on the disk, or before it is.
KILLED = partial(stopping.kill_in_step, 4, "checkpoints/last.pt")
KILLED_EARLY = partial(stopping.kill_in_step, 1)


def train(cwd, data_root, *arguments, before=None, status=0):
    environ = environment(data_root)
    with started(*arguments, *TINY, cwd=cwd, environ=environ, before=before) as training:
        ended = training.end()
    assert ended.returncode == status, ended.stderr
    return ended


def test_in_outputs_runs_the_newest_unfinished_one_of_the_same_settings_goes_on(
    tmp_path: Path, mnist_root: Path
) -> None:
    runs = tmp_path / "outputs" / "runs"
    train(tmp_path, mnist_root, "resume=auto", before=KILLED, status=-signal.SIGKILL)
    (killed,) = runs.iterdir()
    assert not (killed / "summary.json").exists()
    train(tmp_path, mnist_root, "resume=auto", "seed=1")
    (other,) = set(runs.iterdir()) - {killed}
    again = train(tmp_path, mnist_root, "resume=auto", "trainer.save_every=2")
    assert f"resume=auto goes on with outputs/runs/{killed.name}\n" in again.stdout
    assert read_summary(killed)["status"] == "completed"
    assert set(runs.iterdir()) == {killed, other}
    train(tmp_path, mnist_root, "resume=auto")  # a completed one does not count
    assert len(list(runs.iterdir())) == 3


def test_in_a_given_folder_there_is_this_run_or_none(tmp_path: Path, mnist_root: Path) -> None:
    again = ("resume=auto", "hydra.run.dir=run")
    run = tmp_path / "run"
    train(tmp_path, mnist_root, *again, before=KILLED_EARLY, status=-signal.SIGKILL)
    assert run.is_dir() and not (run / "checkpoints").exists()
    with RunFolder(run).owned():
        refused = train(tmp_path, mnist_root, *again, status=1)
    assert "run is in use by process" in refused.stderr
    train(tmp_path, mnist_root, *again)
    assert read_summary(run)["status"] == "completed"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name[0] != "."}
    refused = train(tmp_path, mnist_root, *again, "model.dropout=0.1", status=1)
    (sentence,) = refused.stderr.splitlines()
    assert "run holds another run, with model.dropout=[0.25, 0.5]: give this one" in sentence
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of runs that no process has trained: one file for each that is looked at."""
    for number in range(20):
        folder = tmp_path / f"run{number:02}"
        write_hydra_folder(folder, *COMPOSED)
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last.pt").touch()
        os.utime(folder / "checkpoints" / "last.pt", (number, number))
        end(folder, "completed")
    return tmp_path


COMPOSED = compose(TINY)
CONFIG = to_config(COMPOSED[0])
DIGEST = digest(computed(flatten(CONFIG)))


def end(folder: Path, status: str, digest: str = DIGEST) -> None:
    (folder / "summary.json").write_text(json.dumps({"status": status, "digest": digest}))


def find(runs: Path) -> str | None:
    with ExitStack() as kept:
        found = newest_unfinished(runs, CONFIG, kept)
        if found is not None:
            assert found.owner.exists(), "it is this process's own"
        return found and found.path.name


def test_the_newest_one_is_found_without_reading_what_was_completed(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    load_config = records.load_config
    monkeypatch.setattr(records, "load_config", lambda path: read.append(path) or load_config(path))
    assert find(runs) is None
    assert find(runs / "not there") is None
    end(runs / "run03", "interrupted")
    assert find(runs) == "run03"
    end(runs / "run05", "failed")
    assert find(runs) == "run05"
    end(runs / "run07", "interrupted", digest="of another")
    assert find(runs) == "run05"
    assert read == []
    (runs / "run09" / "summary.json").unlink()
    assert find(runs) == "run09"
    assert len(read) >= 1 and set(read) == {runs / "run09" / ".hydra" / "config.yaml"}


def test_what_is_damaged_unsaved_or_another_process_s_is_passed_over(runs: Path) -> None:
    end(runs / "run03", "interrupted")
    (runs / "run05" / "summary.json").write_text("{")
    (runs / "run07" / "summary.json").unlink()
    (runs / "run07" / ".hydra" / "config.yaml").write_text("- a\n- list\n")
    (runs / "run09" / "summary.json").unlink()
    shutil.rmtree(runs / "run09" / "checkpoints")
    (runs / "a file").touch()
    assert find(runs) == "run03"
    (runs / "run03" / "checkpoints" / "last.pt").rename(
        runs / "run03" / "checkpoints" / "previous.pt"
    )  # killed between two renames
    assert find(runs) == "run03"
    with stopping.owned_by_another_process(runs / "run03"):
        assert find(runs) is None
    assert find(runs) == "run03"


# --- Sweeps -----------------------------------------------------------------------------------


def test_a_sweep_is_stopped_by_a_signal_and_by_its_time_and_goes_on(
    tmp_path: Path, mnist_root: Path
) -> None:
    sweep = ("-m", "seed=0,1", "sweep.name=stopped")
    first = train(
        *(tmp_path, mnist_root, *sweep),
        before=partial(stopping.signal_in_step, 3, signal.SIGUSR1),
        status=128 + signal.SIGUSR1,
    )
    assert first.stderr == "" and "Traceback" not in first.stdout
    told = "0 of 2 runs are completed, 2 are left. To go on: mnist-bench train -m "
    assert told in first.stdout and "run 2 of 2" not in first.stdout
    runs = [RunFolder(tmp_path / "outputs" / "sweeps" / "stopped" / f"seed={n}") for n in (0, 1)]
    assert read_checkpoint(runs[0].last)["position"]["step"] == 1

    # Each of the two has time for one step, and no more.
    limited = train(tmp_path, mnist_root, *sweep, "trainer.max_seconds=1e-3", status=os.EX_TEMPFAIL)
    assert limited.stderr == ""
    assert limited.stdout.count("Stopped in time for trainer.max_seconds=0.001") == 2
    assert "run 1 of 2, goes on: seed=0" in limited.stdout and told in limited.stdout
    positions = [read_checkpoint(run.last)["position"] for run in runs]
    assert [(p["epoch"], p["step"]) for p in positions] == [(2, 2), (1, 1)]

    train(tmp_path, mnist_root, *sweep)
    train(tmp_path, mnist_root, "-m", "seed=0,1", "sweep.name=whole")
    for run in runs:
        stopped, whole = (
            read_summary(folder)
            for folder in (run.path, tmp_path / "outputs" / "sweeps" / "whole" / run.path.name)
        )
        for key in ("status", "digest", "val_loss", "test_loss", "test_errors"):
            assert stopped[key] == whole[key]


def test_between_the_runs_of_a_sweep_a_signal_ends_it_with_its_table(
    tmp_path: Path, mnist_root: Path
) -> None:
    ended = train(
        *(tmp_path, mnist_root, "-m", "seed=0,1", "sweep.name=between"),
        before=partial(stopping.signal_after_a_run, signal.SIGTERM),
        status=128 + signal.SIGTERM,
    )
    assert ended.stderr == ""
    assert "1 of 2 runs are completed, 1 is left. To go on: " in ended.stdout
    assert (tmp_path / "outputs" / "sweeps" / "between" / "sweep.csv").exists()


def test_a_sweep_is_told_to_go_on_by_its_name(tmp_path: Path, mnist_root: Path) -> None:
    process = run_train("-m", "seed=0,1", "resume=auto", cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 1
    (sentence,) = process.stderr.splitlines()
    assert "resume=auto" in sentence and "sweep.name=NAME" in sentence
    assert list(tmp_path.iterdir()) == []
