"""Runs of a sweep side by side, and jobs composed as Hydra composes them."""

import copy
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from mnist_bench.config.compose import CONF
from mnist_bench.config.schema import register_schemas
from mnist_bench.launch.jobs import others_save_first
from mnist_bench.launch.sweeps.compose import JobLoader
from mnist_bench.runs.folder import RunFolder
from tests.support.train_command import (
    REPOSITORY,
    environment,
    read_summary,
    run_train,
    same_training,
    started,
)


def test_side_by_side_by_joblib_is_the_same_as_alone(tmp_path, mnist_root):
    """With as many threads; what fails is told, the others are done, and a network of one's own
    is found by the processes of joblib."""
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "tiny.yaml").write_text("_target_: my_nets.Tiny\nwidth: 2\n")
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n"
        "class Tiny(nn.Sequential):\n"
        "    def __init__(self, width, num_classes):\n"
        "        super().__init__(nn.Conv2d(1, width, 9, 9), nn.ReLU(), nn.Flatten(),\n"
        "                         nn.Linear(9 * width, num_classes))\n"
    )
    sweep = [
        *("--config-dir", "mine", "-m", "model=tiny", "model.width=2,3", "seed=0,1"),
        *("data.limit=200", "trainer.epochs=5", "trainer.gpus=0", "trainer.precision=fp32"),
    ]
    beside = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    for arguments in ((*sweep, "sweep.name=alone"), (*sweep, *beside, "sweep.name=beside")):
        done = run_train(*arguments, cwd=tmp_path, data_root=mnist_root, OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr
    sweeps = tmp_path / "outputs" / "sweeps"
    for width in (2, 3):
        for seed in (0, 1):
            name = f"model.width={width}--seed={seed}"
            assert same_training(sweeps / "alone" / name, sweeps / "beside" / name)
            assert f"\n{name}: epoch 5/5 " in done.stdout
            device = read_summary(sweeps / "beside" / name)["device"]
            assert device.endswith(", 1 thread")
            assert device == read_summary(sweeps / "alone" / name)["device"]
    assert "best: outputs/sweeps/beside/model.width=" in done.stdout


@pytest.mark.parametrize(
    "overrides",
    [
        ["seed=3"],
        ["model=cnn5x5", "model.dropout=0.25", "seed=1"],
        ["model.dropout=0.25", "model=wide3x5_bn"],
        ["experiment=vgg16", "optimizer=sgd", "optimizer.momentum=0.5", "model.dropout=[0.1,0.2]"],
        ["+hydra.job.env_set.A=b", "hydra.sweep.subdir='a=b'", "seed=1", "++trainer.epochs=3"],
        ["~experiment", "optimizer.lr=${model.adam_lr}"],
        ["logger=[tensorboard,none]", "hydra/job_logging=none"],
    ],
)
def test_jobs_are_composed_as_hydra_does(overrides):
    register_schemas()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration(
            "train", ["label_smoothing=0.1", "hydra.job.num=7"], RunMode.MULTIRUN
        )
        ours = JobLoader(loader)
        for lines in (overrides, [*overrides, "trainer.epochs=9"], overrides):
            expected = loader.load_sweep_config(copy.deepcopy(master), lines)
            found = ours.load_sweep_config(master, lines)
            assert OmegaConf.to_container(found) == OmegaConf.to_container(expected)
            assert OmegaConf.is_struct(found) and not OmegaConf.is_readonly(found.hydra)


def test_a_worker_ends_with_the_process_that_started_it(tmp_path):
    """Also where that is killed, and cannot tell it."""
    worker = "import time; from mnist_bench.launch.jobs import end_with_parent as end; end(); end()"
    worker = f"{worker}; print('ready', flush=True); time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", parent],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.kill()
        assert process.stdout.read() == "", "read to its end: nobody writes to it any more"


HOLDS = "import sys, time; from mnist_bench.runs.folder import RunFolder as Folder\n"
HOLDS += "with Folder(sys.argv[1]).owned(): print('held', flush=True); time.sleep(600)"


@pytest.mark.parametrize("ours", [True, False])
def test_a_run_that_another_command_works_on_is_left_alone(tmp_path, ours):
    """A sweep may be shared: a signal to one of the processes is for those that it has started."""
    hold = [sys.executable, "-c", HOLDS, str(tmp_path)]
    adopted = ["sh", "-c", '"$@" & exit', "sh", *hold]  # by the init process, as its parent ends
    with subprocess.Popen(
        hold if ours else adopted,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        ours or process.wait()
        holder = RunFolder(tmp_path).owner_here()
        try:
            with pytest.raises(SystemExit) as ended, others_save_first([RunFolder(tmp_path)]):
                signal.raise_signal(signal.SIGTERM)
            assert ended.value.code == 128 + signal.SIGTERM
            assert (RunFolder(tmp_path).owner_here() == holder) is not ours
        finally:
            with suppress(ProcessLookupError):
                os.kill(holder, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_main_process_has_all_runs_saved(tmp_path, mnist_root, number):
    """It alone gets it, as by a cluster's or a person's kill; joblib would end its workers."""
    arguments = [
        *("-m", "seed=0,1", "sweep.name=beside", "hydra/launcher=joblib"),
        *("hydra.launcher.n_jobs=2", "model=cnn5x5_single", "trainer.epochs=1000"),
        *("data.limit=500", "trainer.gpus=0", "trainer.save_every=1000", "trainer.figures=false"),
    ]
    runs = [tmp_path / "outputs" / "sweeps" / "beside" / f"seed={seed}" for seed in (0, 1)]
    with started(
        *arguments, cwd=tmp_path, environ=environment(mnist_root, OMP_NUM_THREADS="1")
    ) as process:
        process.wait_until(lambda: all((run / "metrics.csv").exists() for run in runs))
        assert not any((run / "checkpoints" / "last.pt").exists() for run in runs)
        process.send(number)
        ended = process.end()
    assert ended.returncode == 128 + number, ended.stderr
    for run in runs:
        assert (run / "checkpoints" / "last.pt").exists()
        assert read_summary(run)["status"] == "interrupted"
    assert "0 of 2 runs are completed, 2 are left. To go on: " in ended.stdout


DIES = """
import multiprocessing, os
from torch import nn

class Dies(nn.Sequential):
    def __init__(self, width, num_classes):
        if width == 3 and "Loky" in multiprocessing.current_process().name:
            os.kill(os.getpid(), 9)
        super().__init__(nn.Conv2d(1, width, 9, 9), nn.ReLU(), nn.Flatten(),
                         nn.Linear(9 * width, num_classes))
"""


@pytest.mark.slow
def test_a_process_that_is_killed_costs_the_sweep_its_own_run_alone(tmp_path, mnist_root):
    """Joblib ends all others with it, so those under way are tried once more, each alone."""
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "dies.yaml").write_text("_target_: my_nets.Dies\nwidth: 2\n")
    (tmp_path / "my_nets.py").write_text(DIES)
    done = run_train(
        *("--config-dir", "mine", "-m", "model=dies", "model.width=2,3,4", "sweep.name=killed"),
        *("data.limit=200", "trainer.epochs=1", "trainer.gpus=0", "logger=none"),
        *("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
        cwd=tmp_path,
        data_root=mnist_root,
        OMP_NUM_THREADS="1",
    )
    assert done.returncode == 1, done.stderr
    sweep = tmp_path / "outputs" / "sweeps" / "killed"
    for width in (2, 4):
        assert read_summary(sweep / f"model.width={width}")["status"] == "completed"
    assert not (sweep / "model.width=3" / "summary.json").exists()
    first, *_, last = done.stderr.splitlines()
    assert first.startswith("A process of hydra/launcher=joblib died (TerminatedWorkerError)")
    assert "model.width=3" in first.partition("each alone: ")[2]
    assert last.startswith("model.width=3 failed: its process died again, alone")
    assert re.search(r"width=3 +failed", done.stdout)
    assert "2 of 3 runs are completed, 1 failed. To go on: " in done.stdout
