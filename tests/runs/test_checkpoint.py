"""A checkpoint knows whether it is whole and what it belongs to; the one before it is kept."""

import random
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from mnist_bench.errors import ConfigError, DataError
from mnist_bench.runs.checkpoint import (
    read_checkpoint,
    read_last,
    refuse_another_configuration,
    write_checkpoint,
)
from mnist_bench.runs.folder import RunFolder, atomic_write
from mnist_bench.runs.run import Run
from tests.support.train_command import QUICK, run_train, same_training


@pytest.fixture
def content() -> dict:
    weights = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    return {"network": {"weight": weights}, "epoch": 3, "names": ["a", "b"]}


def test_it_is_read_as_it_was_written_by_pytorch_too(tmp_path: Path, content: dict) -> None:
    file = tmp_path / "best.pt"
    write_checkpoint(file, content)
    for found in (
        read_checkpoint(file),
        torch.load(file, weights_only=True),
        torch.load(file, weights_only=True, mmap=True),
    ):
        assert found["format"] == 3 and found["names"] == ["a", "b"]
        assert torch.equal(found["network"]["weight"], content["network"]["weight"])
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]


def test_one_flipped_bit_anywhere_is_noticed(tmp_path: Path, content: dict) -> None:
    file = tmp_path / "best.pt"
    write_checkpoint(file, content)
    whole = file.read_bytes()
    draw = random.Random(0)
    places = [*range(8), *range(len(whole) - 100, len(whole))]
    places += [draw.randrange(len(whole)) for _ in range(300)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        file.write_bytes(damaged)
        with pytest.raises(DataError, match="damaged"):
            read_checkpoint(file)


def test_a_page_of_zeros_and_a_torn_end_are_noticed(tmp_path: Path, content: dict) -> None:
    file = tmp_path / "best.pt"
    write_checkpoint(file, content)
    whole = file.read_bytes()
    for damaged in (whole[:1024] + bytes(1024) + whole[2048:], whole[:-1], whole[: 2**11], b""):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match="damaged"):
            read_checkpoint(file)


def test_what_is_damaged_says_how_its_run_begins_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    lines = ["model=cnn3x3", "data.root='a b'", "label_smoothing=${model.adam_lr}"]
    sources = [{"path": "/a folder", "provider": "command-line"}]
    for mode, remedy in (
        ("RUN", r"start the run again: mnist-bench train --config-dir '/a folder' {}"),
        ("MULTIRUN", f"remove {folder.last.parent}, and give the command of the sweep again."),
    ):
        own = {"overrides": {"task": lines}, "mode": mode, "runtime": {"config_sources": sources}}
        folder.hydra.parent.mkdir(parents=True, exist_ok=True)
        OmegaConf.save({"hydra": own}, folder.hydra)
        folder.last.parent.mkdir(exist_ok=True)
        folder.last.write_bytes(b"junk")
        with pytest.raises(DataError) as damage:
            read_checkpoint(folder.last)
        sentence = str(damage.value)
        assert sentence.endswith(f"ours; {remedy.format(' '.join(map(shlex.quote, lines)))}")
    folder.hydra.write_text("{")
    with pytest.raises(DataError, match=r"not one of ours; start the run again\.$"):
        read_checkpoint(folder.last)


def test_the_one_before_last_is_kept_and_used_if_last_is_damaged(tmp_path, content) -> None:
    folder = RunFolder(tmp_path)
    content |= {"optimizer": {}, "position": {}}
    for epoch in (1, 2, 3):
        write_checkpoint(folder.last, {**content, "epoch": epoch})
    assert read_checkpoint(folder.previous)["epoch"] == 2
    said: list[str] = []
    assert read_last(folder, said.append)["epoch"] == 3 and said == []
    folder.last.write_bytes(folder.last.read_bytes()[:-5])
    assert read_last(folder, said.append)["epoch"] == 2
    assert "last.pt" in said[0] and "previous.pt" in said[0]


@pytest.mark.slow
def test_a_run_goes_on_from_the_one_before_to_the_same_end(tmp_path, mnist_root) -> None:
    for name, epochs in (("run", 3), ("whole", 5)):
        arguments = (*QUICK, f"trainer.epochs={epochs}", "scheduler=constant")
        process = run_train(*arguments, f"hydra.run.dir={name}", cwd=tmp_path, data_root=mnist_root)
        assert process.returncode == 0, process.stderr
    folder = RunFolder(tmp_path / "run")
    last = bytearray(folder.last.read_bytes())
    last[len(last) // 2] ^= 1
    folder.last.write_bytes(last)
    process = run_train("resume=run", "trainer.epochs=5", cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 0, process.stderr
    assert "Its predecessor is whole and is used" in process.stdout
    assert "from epoch 3" in process.stdout
    assert same_training(tmp_path / "run", tmp_path / "whole")


def test_format_2_is_still_read(tmp_path: Path) -> None:
    """It had None for figures that a run has not, and knew nothing of its configuration."""
    file = tmp_path / "last.pt"
    record = {"epoch": 1, "val_loss": 0.5, "val_binary_accuracy": None}
    torch.save({"format": 2, "position": {"history": [record]}}, file)
    found = read_checkpoint(file)
    assert found["position"]["history"] == [{"epoch": 1, "val_loss": 0.5}]
    assert found["identity"] == {} and found["inputs"] is None


@pytest.fixture
def small(compose, mnist_root):
    return compose(
        *(f"data.root={mnist_root}", "data.limit=200", "trainer.gpus=0", "trainer.epochs=3"),
        *("trainer.precision=fp32", "model.channels=[2,2]", "model.dense=[4]"),
    )


def test_a_checkpoint_of_other_settings_is_refused_and_the_first_one_named(small, tmp_path):
    folder = RunFolder(tmp_path)
    run = Run(small, folder, print)
    for path, content in run.checkpoints().items():
        write_checkpoint(path, content)
    last = read_checkpoint(folder.last)
    refuse_another_configuration(last, folder.last, small, folder)
    longer = replace(small, trainer=replace(small.trainer, epochs=9, save_every=2))
    refuse_another_configuration(last, folder.last, longer, folder)
    with pytest.raises(DataError, match=r"trained with seed=0, and .*config\.yaml says 1"):
        refuse_another_configuration(last, folder.last, replace(small, seed=1), folder)
    del last["identity"]["seed"]  # of a version that did not have it
    refuse_another_configuration(last, folder.last, replace(small, seed=1), folder)


def test_a_folder_that_holds_a_run_is_not_given_to_another(small, tmp_path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch\n")
    with pytest.raises(ConfigError, match="holds a run already"):
        Run(small, RunFolder(tmp_path), print).open()


def test_what_cannot_be_written_leaves_the_old_file_and_nothing_beside(tmp_path: Path) -> None:
    file = tmp_path / "summary.json"
    file.write_text("old")

    def fail() -> None:
        with atomic_write(file) as new:
            new.write("half of it")
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
