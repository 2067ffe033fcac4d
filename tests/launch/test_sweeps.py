"""Sweeps keep their runs apart: from each other, and from those of other sweeps."""

import subprocess

from mnist_bench.runs.checkpoint import epochs_begun, read_checkpoint
from tests.support.train_command import COMMAND, environment, read_summary, run_train

TINY = (
    *("data.limit=200", "trainer.epochs=1", "trainer.gpus=0", "trainer.precision=fp32"),
    *("model.channels=[4,4]", "model.dense=[8]", "logger=none"),
)


def test_two_sweeps_that_begin_together_have_folders_of_their_own(tmp_path, mnist_root):
    """Both are told the same folder, as two of the same second are."""
    folder = "hydra.sweep.dir=sweep"
    processes = [
        subprocess.Popen(
            [*COMMAND, "-m", f"model={model}", "seed=0,1", *TINY, folder],
            cwd=tmp_path,
            env=environment(mnist_root),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for model in ("cnn3x3", "cnn5x5")
    ]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    found = {
        name: [read_summary(tmp_path / name / f"seed={seed}")["model"] for seed in (0, 1)]
        for name in ("sweep", "sweep-2")
    }
    assert sorted(found.values()) == [["cnn3x3"] * 2, ["cnn5x5"] * 2]


def test_what_would_put_two_runs_into_one_folder_is_refused(tmp_path, mnist_root):
    for arguments, said in (
        (["seed=0,0"], "Two runs of this sweep would have the folder seed=0"),
        (["seed=0,1", "hydra.sweep.subdir=same"], "would have the folder same"),
        (["seed=1", "seed=2,3"], "seed is given twice, as seed=1 and seed=2,3"),
    ):
        process = run_train("-m", *arguments, *TINY, cwd=tmp_path, data_root=mnist_root)
        assert process.returncode == 1
        assert said in process.stderr and len(process.stderr.splitlines()) == 1
        assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_in_use_is_refused_with_its_owner(tmp_path, mnist_root):
    """And once it is over, it can be gone on with."""
    long = [*TINY, "trainer.epochs=1000", "hydra.run.dir=run"]
    with subprocess.Popen(
        [*COMMAND, *long], cwd=tmp_path, env=environment(mnist_root), stdout=subprocess.PIPE
    ) as owner:
        while not (tmp_path / "run" / "checkpoints" / "last.pt").exists():
            assert owner.poll() is None
        refused = run_train("resume=run", cwd=tmp_path, data_root=mnist_root)
        assert refused.returncode == 1
        (sentence,) = refused.stderr.splitlines()
        assert f"run is in use by process {owner.pid} on " in sentence
        owner.kill()
    begun = epochs_begun(read_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt"))
    more = f"trainer.epochs={begun + 1}"
    again = run_train("resume=run", more, cwd=tmp_path, data_root=mnist_root)
    assert again.returncode == 0, again.stderr
