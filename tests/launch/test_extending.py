"""docs/extending.md as its reader would follow it, from a folder outside of the checkout."""

import csv
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import mnist_bench
from mnist_bench.errors import ConfigError
from tests.support.own_parts import write_own_parts
from tests.support.train_command import (
    COMMAND,
    environment,
    read_summary,
    run_train,
    same_training,
)

OWN = ("--config-dir", "mine", "model=tiny", "data=stripes", "optimizer=nadam")
LEARNS = ("loss=margin", "scheduler=inverse_root")
QUICK = ("trainer.gpus=0", "trainer.precision=fp32", "trainer.batch_size=32", "model.width=4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the files of the page."""
    root = tmp_path_factory.mktemp("elsewhere")
    write_own_parts(root)
    return root


def train(folder: Path, mnist_root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    process = run_train(*arguments, cwd=folder, data_root=mnist_root)
    assert process.returncode == 0, process.stderr
    return process


@pytest.fixture(scope="module")
def run(folder: Path, mnist_root: Path) -> Path:
    settings = (*OWN, *LEARNS, *QUICK, "logger=[tensorboard,lines]", "trainer.epochs=5")
    train(folder, mnist_root, *settings, "hydra.run.dir=run")
    return folder / "run"


def test_a_network_data_an_optimizer_and_a_logger_of_ones_own_train(run: Path) -> None:
    summary = read_summary(run)
    assert (summary["status"], summary["model"], summary["dataset"]) == (
        "completed",
        "tiny",
        "stripes",
    )
    assert (summary["train_images"], summary["val_images"], summary["test_images"]) == (
        240,
        60,
        100,
    )
    assert summary["config"]["optimizer._target_"] == "torch.optim.NAdam"
    assert summary["config"]["loss.margin"] == 2.0
    # Eight steps an epoch: after 40 of them, as the page's formula says.
    with (run / "metrics.csv").open() as file:
        *_, last = csv.DictReader(file)
    assert float(last["learning_rate"]) == pytest.approx(2e-3 * (10 / 40) ** 0.5)
    assert len((run / "lines.txt").read_text().splitlines()) == 5
    assert list((run / "tensorboard").iterdir())


def test_what_was_trained_predicts_what_it_was_tested_with(run: Path, folder: Path) -> None:
    network = mnist_bench.load(run, config_dir=folder / "mine")
    with np.load(run / "predictions.npz") as saved:
        logits, labels = torch.from_numpy(saved["logits"]), saved["labels"]
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 256, (400, 32, 1, 3), generator=generator, dtype=torch.uint8)
    lying = rows.expand(-1, 32, 32, 3)[:100]
    images = torch.where(torch.arange(100).view(-1, 1, 1, 1) % 2 == 0, lying, lying.transpose(1, 2))
    found = network.predict(images)
    assert network.class_names == ("lie", "stand")
    assert np.array_equal(found.labels, logits.argmax(1).numpy())
    assert np.allclose(found.probabilities, logits.softmax(1).numpy(), atol=1e-5)
    assert network.predict(images[7].numpy()).labels.tolist() == [found.labels[7]]
    assert set(labels) == {0, 1}


def test_it_is_killed_and_goes_on_to_the_same_end(run, folder, mnist_root) -> None:
    settings = (*OWN, *LEARNS, *QUICK, "logger=lines", "trainer.epochs=5", "hydra.run.dir=killed")
    variables = environment(mnist_root, PYTHONUNBUFFERED="1")
    with subprocess.Popen(
        [*COMMAND, *settings], cwd=folder, env=variables, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if b"epoch 2/5" in line:
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    train(folder, mnist_root, "--config-dir", "mine", "resume=killed")
    assert same_training(folder / "killed", run)


def test_its_settings_are_swept(folder: Path, mnist_root: Path) -> None:
    settings = (*OWN, *QUICK[:-1], "logger=none", "trainer.epochs=1", "hydra.sweep.dir=sweep")
    process = train(folder, mnist_root, "-m", *settings, "model.width=2,3")
    assert sorted(p.name for p in (folder / "sweep").glob("model*")) == [
        "model.width=2",
        "model.width=3",
    ]
    assert "model.width=2" in process.stdout
    assert not list((folder / "sweep").rglob("tensorboard"))


def test_a_saved_run_of_ones_own_says_where_its_classes_may_come_from(run, folder, mnist_root):
    with pytest.raises(ConfigError, match="--config-dir FOLDER"):
        mnist_bench.load(run)
    process = run_train("resume=run", cwd=folder, data_root=mnist_root)
    assert process.returncode == 1
    assert "my_parts is not an installed package" in process.stderr


REFUSED = [
    (("model.widht=3",), "model.widht is not a key"),
    (("+model.depth=3",), "It takes (num_classes, image_shape, width)"),
    (("model._target_=os.system",), "not a class that derives from torch.nn"),
    (("data.count=-5",), "data._target_=my_parts.Stripes cannot be loaded: RuntimeError"),
    (("optimizer.lr=fast",), "optimizer.lr=fast is not a number"),
    (("logger=nowhere",), "logger=nowhere is not there"),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSED)
def test_what_is_wrong_with_it_is_told_in_one_sentence(
    folder: Path, mnist_root: Path, arguments: tuple[str, ...], said: str
) -> None:
    process = run_train(
        *OWN, *QUICK, *arguments, "hydra.run.dir=refused", cwd=folder, data_root=mnist_root
    )
    assert process.returncode == 1
    assert said in process.stderr and len(process.stderr.splitlines()) == 1
    assert not (folder / "refused").exists()
