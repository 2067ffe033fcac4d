"""A run folder with damaged or foreign files is refused in one sentence, before it is trained."""

import shutil

import pytest
import torch

import mnist_bench
from mnist_bench.errors import BenchError, DataError
from mnist_bench.runs.checkpoint import read_best, read_checkpoint, write_checkpoint
from mnist_bench.runs.folder import RunFolder
from tests.support.train_command import FEWER, run_train

# Three epochs of which the second is the best.
OVERFITTING = (
    *(*FEWER, "data.limit=300", "trainer.epochs=4", "trainer.batch_size=32", "model.dropout=0"),
    *("optimizer.lr=0.005", "scheduler=constant", "logger=none", "hydra.run.dir=run"),
)


@pytest.fixture(scope="module")
def ended(tmp_path_factory, mnist_root):
    """A run whose best epoch is not its last, and one of another network. Not to be written to."""
    cwd = tmp_path_factory.mktemp("ended")
    others = ("data.limit=300", "trainer.epochs=1", "hydra.run.dir=other")
    for more in ((), ("model=cnn5x5_single", "model.channels=[16]", *others)):
        arguments = OVERFITTING if not more else (*OVERFITTING[3:-1], "trainer.gpus=0", *more)
        process = run_train(*arguments, cwd=cwd, data_root=mnist_root)
        assert process.returncode == 0, process.stderr
    assert read_checkpoint(RunFolder(cwd / "run").best)["epoch"] < 4
    return cwd


def put(name, text):
    def damage(run, other):
        (run.path / name).write_text(text)

    return damage


def of_the_other(name):
    def damage(run, other):
        shutil.copy(other.path / name, run.path / name)

    return damage


def another_key(run, other):
    run.config.write_text(run.config.read_text() + "unheard: of\n")


def no_dict(run, other):
    torch.save([1, 2], run.last)
    run.previous.unlink()


def best_for_last(run, other):
    shutil.copy(run.best, run.last)


def last_for_best(run, other):
    shutil.copy(run.last, run.best)


def best_of_an_epoch_that_was_not(run, other):
    best = read_checkpoint(run.best)
    write_checkpoint(run.best, {**best, "epoch": best["epoch"] + 1})


def without_best(run, other):
    run.best.unlink()


def of_no_known_settings(run, other):
    """As a checkpoint of format 2 is."""
    for file in (run.last, run.previous):
        write_checkpoint(file, {**read_checkpoint(other.last), "identity": {}})


DAMAGE = {
    "an empty configuration": (put(".hydra/config.yaml", ""), "config.yaml is not the config"),
    "a list for it": (put(".hydra/config.yaml", "[1, 2]"), "config.yaml is not the configuration"),
    "an unknown key": (another_key, "config.yaml is not the configuration"),
    "that of another network": (of_the_other(".hydra/config.yaml"), "they are of two runs"),
    "weights of another network": (of_the_other("checkpoints/last.pt"), "they are of two runs"),
    "weights of none": (of_no_known_settings, "last.pt does not fit the network of this run"),
    "best weights for the last": (best_for_last, "last.pt has no optimizer: it is another kind"),
    "the last for the best": (last_for_best, "best.pt has no epoch: it is another kind of file"),
    "no dict": (no_dict, "last.pt cannot be read as a checkpoint"),
    "weights of another epoch": (best_of_an_epoch_that_was_not, "best.pt has the weights of epoch"),
    "no best weights": (without_best, "best.pt cannot be read or written, as it"),
    "an empty hydra.yaml": (put(".hydra/hydra.yaml", ""), "hydra.yaml does not tell how this run"),
    "a list for hydra.yaml": (put(".hydra/hydra.yaml", "[1]"), "hydra.yaml does not tell how"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_it_is_refused_before_it_is_trained(name, ended, tmp_path, mnist_root) -> None:
    damage, said = DAMAGE[name]
    shutil.copytree(ended / "run", tmp_path / "run")
    damage(RunFolder(tmp_path / "run"), RunFolder(ended / "other"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    process = run_train("resume=run", "trainer.epochs=5", cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 1
    (sentence,) = process.stderr.splitlines()
    assert said in sentence
    assert "epoch 5/5" not in process.stdout
    kept = {path: content for path, content in before.items() if path.suffix in (".pt", ".csv")}
    assert {path: path.read_bytes() for path in kept} == kept


@pytest.mark.parametrize("name", ["weights of another epoch", "the last for the best", "no dict"])
def test_nor_is_it_loaded(name, ended, tmp_path) -> None:
    damage, _ = DAMAGE[name]
    shutil.copytree(ended / "run", tmp_path / "run")
    damage(RunFolder(tmp_path / "run"), RunFolder(ended / "other"))
    with pytest.raises(BenchError):
        mnist_bench.load(tmp_path / "run")


def test_best_weights_of_an_epoch_that_comes_again_are_no_damage(tmp_path) -> None:
    """As where the last checkpoint is lost, and the run goes on from the one before."""
    folder = RunFolder(tmp_path)
    write_checkpoint(folder.best, {"network": {}, "epoch": 3})
    assert read_best(folder, 3)["epoch"] == 3
    assert read_best(folder, 1, trained=2)["epoch"] == 3
    for epoch, trained in ((1, None), (1, 3), (2, 4)):
        with pytest.raises(DataError, match="the weights of epoch 3"):
            read_best(folder, epoch, trained)
