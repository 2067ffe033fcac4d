"""NumPy files as Keras and MedMNIST name their arrays, with MNIST's digits."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mnist_bench.data.images import Images
from mnist_bench.data.loading import load
from mnist_bench.data.npz import Npz
from mnist_bench.errors import DataError


@pytest.fixture
def keras(images: Images) -> dict[str, np.ndarray]:
    """The arrays of Keras's mnist.npz, of fewer images."""
    return {
        "x_train": images.train_images[:300].numpy(),
        "y_train": images.train_labels[:300].numpy().astype(np.uint8),
        "x_test": images.test_images[:100].numpy(),
        "y_test": images.test_labels[:100].numpy().astype(np.uint8),
    }


@pytest.fixture
def medmnist(images: Images) -> dict[str, np.ndarray]:
    """The arrays of a MedMNIST file in colour: digits in three channels, labels (N, 1)."""
    digits = images.train_images[:1800].view(600, 3, 28, 28).permute(0, 2, 3, 1).numpy()
    labels = images.train_labels[:600, None].numpy().astype(np.uint8)
    return {
        f"{part}_{kind}": array[rows]
        for part, rows in (
            ("train", slice(400)),
            ("val", slice(400, 450)),
            ("test", slice(450, 600)),
        )
        for kind, array in (("images", digits), ("labels", labels))
    }


def write(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def read(path: Path) -> Images:
    return load(Npz(str(path)), lambda line: None)


def test_what_does_not_go_together_is_told_by_the_files_name(tmp_path, keras) -> None:
    path = write(tmp_path / "short.npz", keras | {"y_train": keras["y_train"][:-1]})
    with pytest.raises(DataError, match=r"short\.npz has train_labels of .* of the 300 images"):
        read(path)


def test_keras_arrays_are_read(tmp_path: Path, keras: dict[str, np.ndarray]) -> None:
    lines: list[str] = []
    path = write(tmp_path / "mnist.npz", keras)
    found = load(Npz(str(path)), lines.append)
    np.testing.assert_array_equal(found.train_images, keras["x_train"])
    np.testing.assert_array_equal(found.test_labels, keras["y_test"])
    assert found.train_labels.dtype == torch.int64
    assert found.class_names == tuple("0123456789")
    assert found.validation_images is None
    assert lines == [f"{path}: 300 to train + 100 to test, of 28 x 28, in 10 classes"]


def test_medmnist_arrays_are_read_with_its_own_split(
    tmp_path: Path, medmnist: dict[str, np.ndarray]
) -> None:
    lines: list[str] = []
    found = load(Npz(str(write(tmp_path / "digits.npz", medmnist))), lines.append)
    for ours, theirs in (("train", "train"), ("validation", "val"), ("test", "test")):
        np.testing.assert_array_equal(
            getattr(found, f"{ours}_images"), medmnist[f"{theirs}_images"]
        )
        np.testing.assert_array_equal(
            getattr(found, f"{ours}_labels"), medmnist[f"{theirs}_labels"][:, 0]
        )
    assert "The dataset has 50 images to validate on: no training images are held out." in lines


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.int32])
def test_whole_numbers_that_fit_are_pixels(
    tmp_path: Path, keras: dict[str, np.ndarray], dtype: type
) -> None:
    wide = {**keras, "x_train": keras["x_train"].astype(dtype)}
    found = read(write(tmp_path / "wide.npz", wide))
    np.testing.assert_array_equal(found.train_images, keras["x_train"])


def test_labels_are_counted_in_their_order(tmp_path: Path, keras: dict[str, np.ndarray]) -> None:
    """Of the digits without 3, named -50, -40, -30, -10 ...: eight follow the first."""
    names = keras["y_train"].astype(np.int64) * 10 - 50, keras["y_test"].astype(np.int64) * 10 - 50
    kept = keras["y_train"] != 3, keras["y_test"] != 3
    found = read(
        write(
            tmp_path / "named.npz",
            {
                **{"x_train": keras["x_train"][kept[0]], "y_train": names[0][kept[0]]},
                **{"x_test": keras["x_test"][kept[1]], "y_test": names[1][kept[1]]},
            },
        )
    )
    assert found.class_names == ("-50", "-40", "-30", "-10", "0", "10", "20", "30", "40")
    expected = [int(label) - (label > 3) for label in keras["y_test"] if label != 3]
    assert found.test_labels.tolist() == expected


def _without(name: str) -> Any:
    return lambda arrays: arrays.pop(name)


def _replaced(name: str, change: Any) -> Any:
    return lambda arrays: arrays.update({name: change(arrays[name])})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_without("y_test"), r"has no y_test, only x_train, y_train, x_test: name the arrays x_tr"),
        (_replaced("x_train", lambda a: a / 255), r"x_train is .*float64, and pixels are whole nu"),
        (
            _replaced("x_test", lambda a: a.astype(np.uint16) * 257),
            r"x_test is .*uint16, and pixels are whole numbers from 0 to 255",
        ),
        (_replaced("x_test", lambda a: a.astype(int) - 1), r"x_test is .*from 0 to 255"),
        (_replaced("x_test", lambda a: a.reshape(100, -1)), r"x_test is .*\(N, H, W\) or \(N, H"),
        (_replaced("x_test", lambda a: a[..., None].repeat(2, 3)), r"x_test is .*\(N, H, W, 3\)"),
        (_replaced("x_test", lambda a: a[:, :27]), r"27 x 28 to test on, unlike those of 28 x 28"),
        (_replaced("x_test", lambda a: a[:0]), r"has test_images of shape .*: there must be some"),
        (_replaced("y_train", lambda a: a[:-1]), r"train_labels of .*one for each of the 300 ima"),
        (_replaced("y_train", lambda a: np.eye(10)[a]), r"y_train is .*10 labels for an image"),
        (_replaced("y_train", lambda a: a / 1), r"y_train is .*float64, expected whole numbers"),
        (_replaced("y_test", lambda a: a + 10), r"y_test has the label 1\d, which none of the tr"),
        (_replaced("y_train", lambda a: a * 0), r"y_test has the label \d, which none"),
    ],
)
def test_what_does_not_fit_is_named_in_one_sentence(
    tmp_path: Path, keras: dict[str, np.ndarray], spoil: Any, said: str
) -> None:
    spoil(keras)
    with pytest.raises(DataError, match=said) as refusal:
        read(write(tmp_path / "odd.npz", keras))
    assert "\n" not in str(refusal.value)


def test_several_labels_for_an_image_are_refused(
    tmp_path: Path, medmnist: dict[str, np.ndarray]
) -> None:
    """As in MedMNIST's ChestMNIST."""
    medmnist["train_labels"] = np.zeros((400, 14), np.uint8)
    with pytest.raises(DataError, match=r"train_labels is .*, 14 labels for an image"):
        read(write(tmp_path / "chest.npz", medmnist))


def test_half_a_validation_set_is_refused(tmp_path: Path, medmnist: dict[str, np.ndarray]) -> None:
    del medmnist["val_labels"]
    with pytest.raises(DataError, match=r"has no val_labels, only .*val_images"):
        read(write(tmp_path / "half.npz", medmnist))


class _Evil:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_nothing_is_unpickled(tmp_path: Path, keras: dict[str, np.ndarray]) -> None:
    mark = tmp_path / "harmed"
    path = write(tmp_path / "evil.npz", {**keras, "x_train": np.array([_Evil(mark)], object)})
    with pytest.raises(DataError, match=r"evil\.npz cannot be read as an \.npz file: .*pickle"):
        read(path)
    path.write_bytes(pickle.dumps(_Evil(mark)))
    with pytest.raises(DataError, match="cannot be read"):
        read(path)
    assert not mark.exists()


def test_what_is_no_npz_file_is_named(tmp_path: Path, keras: dict[str, np.ndarray]) -> None:
    whole = write(tmp_path / "whole.npz", keras).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    np.save(tmp_path / "single.npy", keras["x_train"])
    os.mkfifo(tmp_path / "pipe.npz")
    for name, said in (
        ("cut.npz", r"cut\.npz cannot be read as an \.npz file"),
        ("single.npy", r"single\.npy holds a single array: give an \.npz file"),
        ("pipe.npz", r"data\.path=.*pipe\.npz is not a file"),
        ("absent.npz", r"data\.path=.*absent\.npz is not a file"),
    ):
        with pytest.raises(DataError, match=said):
            read(tmp_path / name)
