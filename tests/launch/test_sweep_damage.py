"""Runs of a sweep that fail, or whose files are damaged, and the others."""

import re
import subprocess

import pytest

from tests.support.sweeps import NAMED, sweep_of, when_trained
from tests.support.train_command import COMMAND


def test_a_folder_that_holds_another_run_is_not_taken_for_it(tmp_path, mnist_root):
    sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,1")
    named = tmp_path / "outputs" / "sweeps" / "named"
    (named / "seed=1").rename(named / "seed=2")
    process = sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,2", status=1)
    assert "seed=2 holds another run, of other settings: move it away" in process.stderr


def test_a_run_that_cannot_go_on_fails_the_sweep(tmp_path, mnist_root):
    """Though no summary.json could be written that says so."""
    sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,1")
    run = tmp_path / "outputs" / "sweeps" / "named" / "seed=0"
    (run / "summary.json").unlink()
    for file in (run / "checkpoints").iterdir():
        file.write_bytes(b"junk")
    process = sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,1", status=1)
    assert process.stderr.startswith("seed=0 failed: ")
    assert "1 of 2 runs are completed, 1 failed. To go on: " in process.stdout


def test_a_damaged_summary_fails_its_run_and_hides_no_other(tmp_path, mnist_root):
    sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,1")
    named = tmp_path / "outputs" / "sweeps" / "named"
    before = when_trained(named)
    (named / "seed=0" / "summary.json").write_text("{")
    process = sweep_of(tmp_path, mnist_root, *NAMED, "seed=0,1,2", status=1)
    (sentence,) = process.stderr.splitlines()
    assert sentence.startswith("seed=0 failed: ") and "summary.json is damaged" in sentence
    assert "2 of 3 runs are completed, 1 failed. To go on: " in process.stdout
    after = when_trained(named)
    assert {*after} == {"seed=0", "seed=1", "seed=2"}
    assert all(after[name] == before[name] for name in before)
    command = [*COMMAND[:-1], "status", "named"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0 and "summary.json is damaged" in told.stderr
    for row in ("seed=0 +failed", "seed=1 +completed", "seed=2 +completed"):
        assert re.search(row, told.stdout)


@pytest.mark.parametrize("content", ["{", "[]", '{"jobs": {}}', '{"jobs": [1]}', "null"])
def test_a_damaged_record_is_named_and_runs_are_found_without_it(tmp_path, mnist_root, content):
    sweep_of(tmp_path, mnist_root, *NAMED, "seed=0")
    named = tmp_path / "outputs" / "sweeps" / "named"
    before = when_trained(named)
    (named / "sweep.json").write_text(content)
    process = sweep_of(tmp_path, mnist_root, *NAMED, "seed=0", status=1)
    assert "sweep.json is damaged" in process.stderr and "remove it" in process.stderr
    assert len(process.stderr.splitlines()) == 1
    (named / "sweep.json").unlink()
    sweep_of(tmp_path, mnist_root, *NAMED, "seed=0")
    assert when_trained(named) == before


def test_it_ends_at_the_first_failure_if_that_is_wished(tmp_path, mnist_root):
    fails = (*NAMED, "optimizer=sgd", "optimizer.lr=1e20,0.01", "sweep.fail_fast=true")
    process = sweep_of(tmp_path, mnist_root, *fails, status=1)
    assert "1 failed, 1 is left" in process.stdout
