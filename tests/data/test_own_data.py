"""Images of one's own, from the folder or the file to the end of a run."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mnist_bench.data import Dataset, Images
from mnist_bench.data.loading import load
from tests.support.train_command import QUICK, REPOSITORY, read_summary, run_train

SMALL = (*QUICK, "hydra.run.dir=run", "model.channels=[4]", "model.pool_after=[1]")


def documented(language: str) -> str:
    """The example of docs/configuration.md in a language."""
    text = (REPOSITORY / "docs" / "configuration.md").read_text()
    (example,) = re.findall(rf"```{language}\n(.*?)```", text, re.S)
    return example


def write_tables(folder: Path, images: Images) -> None:
    """MNIST as Kaggle publishes its digits: a header, then a label and 784 pixels in each line."""
    for part, count in (("train", 600), ("test", 200)):
        pixels = getattr(images, f"{part}_images")[:count].flatten(1).numpy().astype(int)
        labels = getattr(images, f"{part}_labels")[:count, None].numpy()
        header = ",".join(["label", *(f"pixel{n}" for n in range(784))])
        np.savetxt(
            folder / f"digits_{part}.csv",
            np.hstack([labels, pixels]),
            fmt="%d",
            delimiter=",",
            header=header,
            comments="",
        )


def write_coloured_digits(root: Path, images: Images) -> None:
    """Digits in three channels, 28 x 20, as root/LABEL/NUMBER.png."""
    for number in range(300):
        path = root / str(int(images.train_labels[number])) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        channels = images.train_images[number, :, 4:24, None].expand(-1, -1, 3)
        pixels = channels * torch.tensor([1.0, 0.5, 0.25])
        Image.fromarray(pixels.byte().numpy()).save(path)


def test_the_documented_class_loads(
    tmp_path: Path, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tables(tmp_path, images)
    names: dict[str, type] = {}
    exec(documented("python"), names)
    monkeypatch.chdir(tmp_path)
    dataset = names["Tables"]("digits_train.csv", "digits_test.csv", 28)
    assert isinstance(dataset, Dataset)
    found = load(dataset, lambda line: None)
    assert torch.equal(found.train_images, images.train_images[:600])
    assert torch.equal(found.test_labels, images.test_labels[:200])


def test_the_documented_class_trains(tmp_path: Path, images: Images, mnist_root: Path) -> None:
    write_tables(tmp_path, images)
    (tmp_path / "own_images.py").write_text(documented("python"))
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "tables.yaml").write_text(documented("yaml"))
    process = run_train(
        f"--config-dir={tmp_path / 'mine'}",
        "data=tables",
        *SMALL,
        cwd=tmp_path,
        data_root=mnist_root,
    )
    assert process.returncode == 0, process.stderr
    assert "tables: 500 images to train, 60 to validate, 200 to test" in process.stdout
    assert read_summary(tmp_path / "run")["test_images"] == 200


def test_a_folder_of_coloured_images_trains(
    tmp_path: Path, images: Images, mnist_root: Path
) -> None:
    write_coloured_digits(tmp_path / "digits", images)
    process = run_train(
        *("data=image_folder", "data.root=digits", "data.test_fraction=0.2"),
        *("data.scaling=standardised", "augmentation=flip_crop", *SMALL),
        cwd=tmp_path,
        data_root=mnist_root,
    )
    assert process.returncode == 0, process.stderr
    assert "28 x 20 in 3 channels, in 10 classes" in process.stdout
    assert read_summary(tmp_path / "run")["test_accuracy"] > 0.1


def test_a_medmnist_file_trains_at_another_size_in_grey(
    tmp_path: Path, images: Images, mnist_root: Path
) -> None:
    digits = images.train_images[:900].view(300, 3, 28, 28).permute(0, 2, 3, 1).numpy()
    labels = images.train_labels[:300, None].numpy()
    rows = {"train": slice(200), "val": slice(200, 240), "test": slice(240, 300)}
    arrays = {f"{part}_images": digits[chosen] for part, chosen in rows.items()}
    arrays |= {f"{part}_labels": labels[chosen] for part, chosen in rows.items()}
    np.savez(tmp_path / "digits.npz", **arrays)
    process = run_train(
        *("data=npz", "data.path=digits.npz", "data.image_size=32", "data.grey=true", *SMALL),
        cwd=tmp_path,
        data_root=mnist_root,
    )
    assert process.returncode == 0, process.stderr
    assert "npz: 200 images to train, 40 to validate, 60 to test" in process.stdout
    assert re.search(r"conv1 \(Conv2d\) +4 x 30 x 30 +40", process.stdout)


@pytest.mark.parametrize(
    "data", ["data=image_folder data.root=absent", "data=npz data.path=absent"]
)
def test_images_that_are_not_there_are_refused_before_anything_is_written(
    tmp_path: Path, mnist_root: Path, data: str
) -> None:
    process = run_train(*data.split(), *QUICK, cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 1 and "absent is not a f" in process.stderr
    assert list(tmp_path.iterdir()) == []
