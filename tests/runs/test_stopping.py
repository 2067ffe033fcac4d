"""A run is stopped in every way there is, and the same command goes on with it."""

import json
import os
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

from mnist_bench.config.walk import flatten
from mnist_bench.runs.checkpoint import read_checkpoint
from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.load import load
from tests.support import stopping
from tests.support.train_command import (
    COMMAND,
    FIVE_EPOCHS,
    environment,
    read_summary,
    same_training,
    started,
)

# Of eight steps an epoch.
AGAIN = (*FIVE_EPOCHS, "resume=auto", "hydra.run.dir=run")


def test_stopped_in_every_way_it_is_the_same_run_in_the_end(
    tmp_path: Path, mnist_root: Path, uninterrupted: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    told, begun = tmp_path / "told", tmp_path / "begun"
    handled = partial(stopping.with_a_handler_in_step, 3, signal.SIGUSR2, told, folder.path)
    steps = 0
    for before, code, most in (
        (partial(stopping.signal_in_step, 3, signal.SIGUSR1), 128 + signal.SIGUSR1, 3),
        (partial(stopping.close_the_terminal_in_step, 7), 128 + signal.SIGHUP, 7),
        (handled, 128 + signal.SIGUSR2, 3),
        (partial(stopping.under_nohup_in_step, 3, signal.SIGTERM), 128 + signal.SIGTERM, 5),
        (partial(stopping.with_slow_steps, 0.1, begun), os.EX_TEMPFAIL, 19),
        (partial(stopping.in_the_test, signal.SIGINT), 128 + signal.SIGINT, 40),
    ):
        limit = ["trainer.max_seconds=3"] if code == os.EX_TEMPFAIL else []
        with started(
            *AGAIN, *limit, cwd=tmp_path, environ=environment(mnist_root), before=before
        ) as training:
            ended = training.end()
        assert (ended.returncode, ended.stderr) == (code, ""), ended.stdout
        if code != 128 + signal.SIGHUP:
            assert "To go on: mnist-bench train resume=run" in ended.stdout
        if steps:
            assert "resume=auto goes on with" in ended.stdout or code == 128 + signal.SIGHUP
        summary = read_summary(folder.path)
        assert summary["status"] == "interrupted"
        position = read_checkpoint(folder.last)["position"]
        now = 8 * len(position["history"]) + position["step"]
        assert summary["epochs"] == len(position["history"])
        assert steps < now <= steps + most
        if limit:
            assert folder.last.stat().st_mtime - begun.stat().st_mtime < 3
            assert "Stopped in time for trainer.max_seconds=3. To go on" in ended.stdout
            assert flatten(load(folder.path).config)["trainer.max_seconds"] == 3
        else:
            assert now == min(steps + most, 40)
        steps = now
    assert steps == 40
    assert json.loads(told.read_text()) == [signal.SIGUSR2, "interrupted", True, True]

    with started(*AGAIN, cwd=tmp_path, environ=environment(mnist_root)) as training:
        ended = training.end()
    assert ended.returncode == 0, ended.stderr
    assert same_training(folder.path, uninterrupted)
    before_it = folder.summary.read_text()
    with started(*AGAIN, cwd=tmp_path, environ=environment(mnist_root)) as training:
        ended = training.end()
    assert (ended.returncode, ended.stderr) == (0, "")
    errors = read_summary(folder.path)["test_errors"]
    assert "run holds this run, completed: test accuracy " in ended.stdout
    assert f"{errors} errors in 1,000 images" in ended.stdout
    assert folder.summary.read_text() == before_it


def test_ctrl_c_while_pytorch_is_imported_leaves_no_traceback(
    tmp_path: Path, mnist_root: Path
) -> None:
    process = subprocess.Popen(
        [*COMMAND, *FIVE_EPOCHS],
        cwd=tmp_path,
        env=environment(mnist_root),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    maps = Path("/proc", str(process.pid), "maps")
    while "libtorch_cpu" not in maps.read_text():
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == 128 + signal.SIGINT
    assert list(tmp_path.iterdir()) == []
