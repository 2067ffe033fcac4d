"""`mnist-bench status`, which only reads: also on a disk that is read-only, or another's folder."""

import json
from functools import partial

import pytest
from optuna.distributions import FloatDistribution

from mnist_bench.analysis.find import JOURNAL
from mnist_bench.analysis.sweeps import FILE
from mnist_bench.launch.search.study import SEEDS, SharedStudy, ask
from mnist_bench.runs.folder import RunFolder
from tests.support.stopping import refuse_to_write
from tests.support.train_command import environment, started

LR = {"optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True)}


@pytest.fixture
def status(tmp_path, mnist_root):
    """Return what it says of a folder that cannot be written to."""

    def told(folder):
        before = partial(refuse_to_write, folder)
        environ = environment(mnist_root)
        with started(
            str(folder), cwd=tmp_path, environ=environ, before=before, verb="status"
        ) as process:
            ended = process.end()
        assert ended.returncode == 0 and ended.stderr == "", ended.stderr
        return ended.stdout

    return told


def test_a_search_that_is_under_way(tmp_path, status):
    """One of its trials runs, the process of the other was killed while it wrote a line."""
    study = SharedStudy(tmp_path, begin=True)
    study.refuse_another({"seed": 0, SEEDS: 1})
    study.study.add_trial(ask([], LR, seed=0))
    study.study.add_trial(ask(study.trials, LR, seed=0))
    with (tmp_path / JOURNAL).open("a") as journal:
        journal.write('{"op_code": 6, "wor')
    content = (tmp_path / JOURNAL).read_bytes()
    running = RunFolder(study.folder_of(0))
    running.path.mkdir()
    with running.owned():
        told = status(tmp_path)
    assert "2 trials: 1 running, 1 stopped" in told
    assert (tmp_path / JOURNAL).read_bytes() == content


def test_a_search_that_has_not_begun(tmp_path, mnist_root):
    (tmp_path / JOURNAL).touch()
    environ = environment(mnist_root)
    with started(str(tmp_path), cwd=tmp_path, environ=environ, verb="status") as process:
        ended = process.end()
    assert ended.returncode == 1 and ended.stderr.endswith("has not begun yet.\n")
    assert (tmp_path / JOURNAL).read_bytes() == b""


def test_a_sweep_that_is_under_way(tmp_path, status):
    record = {key: ["seed"] for key in ("shared", "varied", "moved")}
    jobs = {"a digest": "seed=0", "another": "seed=1"}
    (tmp_path / FILE).write_text(json.dumps({**record, "bases": {}, "jobs": jobs}))
    running = RunFolder(tmp_path / "seed=0")
    running.path.mkdir()
    with running.owned():
        told = status(tmp_path)
    assert "seed=0  running" in told and "seed=1  waiting" in told
    assert "2 of 2 runs are missing, 1 of them running" in told
