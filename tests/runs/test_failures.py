"""What the machine refuses in the middle of a run ends in one sentence, and loses nothing."""

import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch

from mnist_bench.errors import OutOfMemory, explain_file_error
from mnist_bench.launch.edge import Shown
from mnist_bench.runs.failures import is_out_of_memory, naming_the_batch
from tests.support.train_command import (
    COMMAND,
    QUICK,
    environment,
    read_summary,
    run_train,
    same_training,
)

# --- Memory -----------------------------------------------------------------------------------


def errors_of_no_memory():
    """As NumPy and PyTorch raise them, on the host for real."""
    for ask in (lambda: np.empty(1 << 60, np.uint8), lambda: torch.empty(1 << 60)):
        try:
            ask()
        except (MemoryError, RuntimeError) as error:
            yield error
    yield torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    yield RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)")
    yield OSError(12, "Cannot allocate memory")


@pytest.mark.parametrize(
    "error", list(errors_of_no_memory()), ids=lambda error: type(error).__name__
)
def test_no_memory_is_told_with_the_batch_size(error, compose) -> None:
    assert is_out_of_memory(error)
    where = "the GPU" if "CU" in str(error) else "this machine"
    said = rf"memory of {where} .* trainer\.batch_size=77: lower it, or data\.limit"
    with (
        pytest.raises(OutOfMemory, match=said),
        naming_the_batch(compose("trainer.batch_size=77")),
    ):
        raise error


@pytest.mark.parametrize("error", [RuntimeError("a shape"), OSError(28, "full"), ValueError("no")])
def test_other_errors_stay_what_they_are(error, compose) -> None:
    with pytest.raises(type(error)) as raised, naming_the_batch(compose()):
        raise error
    assert raised.value is error


def test_a_network_that_does_not_fit_is_refused_in_a_sentence(tmp_path, mnist_root) -> None:
    """Its first dense layer would have 140 TB."""
    process = run_train(*QUICK, "model.dense=[4000000000]", cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 1
    (sentence,) = process.stderr.splitlines()
    assert "trainer.batch_size=128" in sentence and "data.limit" in sentence


HUNGRY = """
import torch
from torch import nn

class Hungry(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.output = nn.Linear(784, num_classes)

    def forward(self, images):
        if len(images) == 64:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.output(images.flatten(1))
"""


def test_a_batch_that_does_not_fit_fails_its_run_and_not_the_sweep(tmp_path, mnist_root) -> None:
    mine = tmp_path / "mine"
    (mine / "model").mkdir(parents=True)
    (mine / "hungry.py").write_text(HUNGRY)
    (mine / "model" / "hungry.yaml").write_text("_target_: hungry.Hungry\n")
    command = ("--config-dir", "mine", "-m", "model=hungry", "trainer.batch_size=64,50")
    quick = ("data.limit=200", "trainer.epochs=1", "trainer.gpus=0", "hydra.sweep.dir=sweep")
    process = run_train(*command, *quick, cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 1 and "Traceback" not in process.stderr
    (sentence,) = process.stderr.splitlines()
    assert "memory of the GPU" in sentence and "trainer.batch_size=64: lower it" in sentence
    failed = read_summary(tmp_path / "sweep" / "trainer.batch_size=64")
    assert failed["status"] == "failed" and "trainer.batch_size=64" in failed["error"]
    other = read_summary(tmp_path / "sweep" / "trainer.batch_size=50")
    assert other["status"] == "completed"


# --- The disk ---------------------------------------------------------------------------------


def test_what_a_file_fails_with_is_told_with_its_name_and_what_to_do() -> None:
    for error, said in (
        (OSError(28, "No space left on device", "a.pt"), "a.pt .* disk is full: free some space"),
        (PermissionError(13, "Permission denied", "a.pt"), "a.pt .* not permitted: give yourself"),
        (OSError(30, "Read-only file system", "a.pt"), "a.pt .* is read-only: make it writable"),
        (FileNotFoundError(2, "No such file", "a.pt"), "a.pt .* is gone: put that back"),
        (OSError(5, "Input/output error", "a.pt"), "a.pt .* input/output error: see to the disk"),
        (OSError(27, "File too large", "a.pt"), r"a.pt .* larger .*: raise that limit \(ulimit"),
        (OSError(28, "No space left on device"), "A file cannot be written, as the disk is full"),
        (OSError(71, "Protocol error", "a.pt"), "a.pt .* the system says: Protocol error"),
    ):
        assert re.search(said, explain_file_error(error))


def train_within(limit, *arguments, cwd, data_root):
    """With so many KiB as the size that a file may have at most."""
    return subprocess.run(
        ["bash", "-c", f'ulimit -f {limit} && exec "$@"', "bash", *COMMAND, *arguments],
        cwd=cwd,
        env=environment(data_root),
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_a_file_that_may_not_grow_ends_the_run_which_then_goes_on(tmp_path, mnist_root) -> None:
    """As on a full disk: the checkpoint has 7 MB. What was saved before is there still."""
    arguments = (*QUICK, "scheduler=constant", "hydra.run.dir=run")
    run_train(*arguments, cwd=tmp_path, data_root=mnist_root)
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    process = train_within(
        4000, "resume=run", "trainer.epochs=5", cwd=tmp_path, data_root=mnist_root
    )
    assert process.returncode == 1
    (sentence,) = process.stderr.splitlines()
    assert "checkpoints/last.pt cannot be written, as it would be larger than" in sentence
    assert sentence.endswith("then go on with mnist-bench train resume=run.")
    assert not list(tmp_path.rglob("*.partial"))
    assert read_summary(tmp_path / "run")["status"] == "failed"
    for name in ("run", "other"):
        more = (f"resume={name}", "trainer.epochs=5")
        process = run_train(*more, cwd=tmp_path, data_root=mnist_root)
        assert process.returncode == 0, process.stderr
    assert same_training(tmp_path / "run", tmp_path / "other")


@pytest.mark.slow
def test_a_folder_that_goes_away_ends_the_run_in_a_sentence(tmp_path, mnist_root) -> None:
    with subprocess.Popen(
        [*COMMAND, *QUICK, "trainer.epochs=1000", "hydra.run.dir=run"],
        cwd=tmp_path,
        env=environment(mnist_root),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not (tmp_path / "run" / "checkpoints" / "last.pt").exists():
            assert process.poll() is None
        (tmp_path / "run").rename(tmp_path / "away")
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in said
    assert "is gone: put that back, then give the same command again." in said


# --- The screen -------------------------------------------------------------------------------


def test_behind_a_closed_pipe_all_is_trained(tmp_path, mnist_root) -> None:
    """Of a sweep, the other runs, too."""
    script = 'set -o pipefail; "$@" | head -n 2'
    process = subprocess.run(
        ["bash", "-c", script, "bash", *COMMAND, "-m", *QUICK, "seed=0,1", "hydra.sweep.dir=s"],
        cwd=tmp_path,
        env=environment(mnist_root),
        capture_output=True,
        text=True,
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert len(process.stdout.splitlines()) == 2
    for seed in (0, 1):
        run = tmp_path / "s" / f"seed={seed}"
        assert read_summary(run)["status"] == "completed"
        assert "test accuracy" in (run / "train.log").read_text()


def test_a_full_disk_behind_the_screen_is_told_and_nothing_else(tmp_path, mnist_root) -> None:
    with open("/dev/full", "w") as full:
        process = subprocess.run(
            [*COMMAND, *QUICK, "hydra.run.dir=run"],
            cwd=tmp_path,
            env=environment(mnist_root),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert process.returncode == 0
    (sentence,) = process.stderr.splitlines()
    assert sentence.startswith("What a run prints cannot be shown, as the disk is full")
    assert read_summary(tmp_path / "run")["status"] == "completed"


def test_what_an_encoding_lacks_is_replaced(tmp_path, mnist_root) -> None:
    process = subprocess.run(
        [*COMMAND, *QUICK, "hydra.run.dir='папка'"],
        cwd=tmp_path,
        env=environment(mnist_root, PYTHONIOENCODING="latin-1"),
        capture_output=True,
    )
    assert (process.returncode, process.stderr) == (0, b"")
    assert b"?????" in process.stdout and b"+------" in process.stdout
    assert json.loads((tmp_path / "папка" / "summary.json").read_text())["status"] == "completed"
    assert "папка" in (tmp_path / "папка" / "train.log").read_text("utf-8")


def test_a_guarded_stream_is_still_known_as_the_process_s_own() -> None:
    """By `in (sys.stderr, ...)`, as absl's log asks before it closes what it has written to."""
    stream = io.TextIOWrapper(io.BytesIO())
    assert stream in (Shown(stream), None)
    assert io.StringIO() not in (Shown(stream), None)
