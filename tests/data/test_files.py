"""Reading the files: the IDX format, the table of datasets, and images as tensors.

torchvision reads the same files in every test of images: it is the independent reader.
"""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets as published

from mnist_bench.data.datasets import DATASETS, IdxDataset, find_dataset
from mnist_bench.data.fetch import ensure_files
from mnist_bench.data.idx import locate, read_idx, write_idx
from mnist_bench.data.published import load_images
from mnist_bench.data.verify import find_faults
from mnist_bench.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def digits(mnist_root: Path) -> tuple[np.ndarray, np.ndarray]:
    """MNIST's test images (N, 28, 28) and labels (N,), as torchvision reads them."""
    mnist = published.MNIST(mnist_root, train=False)
    return mnist.data.numpy(), mnist.targets.numpy().astype(np.uint8)


def write_dataset(
    dataset: IdxDataset,
    root: Path,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
) -> Path:
    folder = dataset.raw_folder(root)
    folder.mkdir(parents=True)
    for pair, arrays in zip(dataset.pairs, (train, test), strict=True):
        for file, array in zip(pair, arrays, strict=True):
            write_idx(folder / file.name, array)
    return folder


def test_mnist_is_what_torchvision_reads(mnist_root: Path) -> None:
    images = load_images(find_dataset("mnist", None), mnist_root)
    for part, pixels, labels in (
        (True, images.train_images, images.train_labels),
        (False, images.test_images, images.test_labels),
    ):
        reference = published.MNIST(mnist_root, train=part)
        assert pixels.dtype == torch.uint8 and labels.dtype == torch.int64
        assert torch.equal(pixels, reference.data)
        assert torch.equal(labels, reference.targets)
    assert len(images.class_names) == 10


def test_kmnist_is_read_from_torchvisions_folder(
    tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    pixels, labels = digits
    dataset = find_dataset("kmnist", None)
    write_dataset(
        dataset, tmp_path, (pixels[:600], labels[:600]), (pixels[600:700], labels[600:700])
    )
    images = load_images(dataset, tmp_path)
    assert torch.equal(images.train_images, published.KMNIST(tmp_path, train=True).data)
    assert torch.equal(images.test_labels, published.KMNIST(tmp_path, train=False).targets)


@pytest.mark.parametrize("split", [None, "test10k", "test50k", "test"])
def test_qmnist_test_parts_are_torchvisions(
    tmp_path: Path, digits: tuple[np.ndarray, np.ndarray], split: str | None
) -> None:
    pixels, labels = digits
    wide = np.outer(labels, [1, 1000, -7, 0, 2, 3, 4, 5]).astype(np.int32)  # the class comes first
    more = slice(5_000, 5_300)
    test = np.concatenate([pixels, pixels[more]]), np.concatenate([wide, wide[more]])
    dataset = find_dataset("qmnist", split)
    write_dataset(dataset, tmp_path, (pixels[:500], wide[:500]), test)

    images = load_images(dataset, tmp_path)
    train = published.QMNIST(tmp_path, what="train")
    reference = published.QMNIST(tmp_path, what=split or "test10k")
    assert torch.equal(images.train_images, train.data)
    assert torch.equal(images.train_labels, train.targets[:, 0])
    assert torch.equal(images.test_images, reference.data)
    assert torch.equal(images.test_labels, reference.targets[:, 0])


@pytest.mark.parametrize("split", ["balanced", "byclass", "bymerge", "digits", "mnist"])
def test_emnist_is_upright(
    tmp_path: Path, digits: tuple[np.ndarray, np.ndarray], split: str
) -> None:
    pixels, labels = digits
    stored = pixels.transpose(0, 2, 1)  # EMNIST's files hold rows and columns swapped
    dataset = find_dataset("emnist", split)
    write_dataset(
        dataset, tmp_path, (stored[:600], labels[:600]), (stored[600:700], labels[600:700])
    )

    images = load_images(dataset, tmp_path)
    reference = published.EMNIST(tmp_path, split=split, train=True)
    assert torch.equal(images.train_images, reference.data.mT)
    assert torch.equal(images.train_labels, reference.targets)
    assert np.array_equal(images.test_images.numpy(), pixels[600:700])
    assert images.train_images.is_contiguous()


def test_emnist_letters_count_from_zero(
    tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    pixels, _ = digits
    letters = np.arange(1, 27, dtype=np.uint8).repeat(4)
    dataset = find_dataset("emnist", "letters")
    part = pixels[: len(letters)], letters
    write_dataset(dataset, tmp_path, part, (part[0][::-1], part[1][::-1]))

    images = load_images(dataset, tmp_path)
    reference = published.EMNIST(tmp_path, split="letters", train=False)
    assert len(images.class_names) == 26
    assert torch.equal(images.test_labels, reference.targets - 1)
    assert images.train_labels.min() == 0 and images.train_labels.max() == 25


def test_a_label_unknown_in_training_is_named(
    tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    pixels, labels = digits
    dataset = find_dataset("kmnist", None)
    known = labels != 7
    write_dataset(dataset, tmp_path, (pixels[known], labels[known]), (pixels, labels))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte has the label 7"):
        load_images(dataset, tmp_path)


@pytest.mark.parametrize(("name", "split"), [("kmnist", None), ("emnist", "digits")])
@pytest.mark.parametrize("part", ["train", "test"])
def test_a_label_that_the_dataset_does_not_have_is_named(
    tmp_path: Path, digits: tuple[np.ndarray, np.ndarray], name: str, split: str, part: str
) -> None:
    """One slip is not an eleventh class."""
    pixels, labels = digits
    odd = labels.copy()
    odd[77] = 10
    dataset = find_dataset(name, split)
    train, test = (odd, odd) if part == "train" else (labels, odd)
    write_dataset(dataset, tmp_path, (pixels, train), (pixels, test))
    with pytest.raises(DataError, match=r"(train|t10k|test)-labels-idx1-ubyte has the label 10"):
        load_images(dataset, tmp_path)


def test_emnist_letters_begin_at_one(tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]) -> None:
    pixels, labels = digits
    dataset = find_dataset("emnist", "letters")
    write_dataset(dataset, tmp_path, (pixels, labels), (pixels, labels))
    with pytest.raises(DataError, match=r"has the label 0, and emnist has only 1 to 26"):
        load_images(dataset, tmp_path)


def test_classes_are_named_as_torchvision_names_them() -> None:
    def names(name: str, split: str | None = None) -> list[str]:
        return list(find_dataset(name, split).class_names)

    assert names("fashion_mnist") == published.FashionMNIST.classes
    assert names("kmnist") == published.KMNIST.classes
    for name in ("mnist", "qmnist"):
        assert names(name) == [text.split()[0] for text in published.MNIST.classes]
    for split, classes in published.EMNIST.classes_split_dict.items():
        assert names("emnist", split) == [text for text in classes if text != "N/A"]


def test_a_split_without_images_is_refused(
    tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    pixels, labels = digits
    wide = np.zeros((len(labels), 8), np.int32)
    dataset = find_dataset("qmnist", "test50k")
    write_dataset(dataset, tmp_path, (pixels, wide), (pixels, wide))  # only the first 10,000
    with pytest.raises(DataError, match=r"0 to test on for data\.split=test50k"):
        load_images(dataset, tmp_path)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_idx_is_read_by_torchvision_as_written(tmp_path: Path, dtype: type) -> None:
    limits = np.iinfo(dtype)
    array = np.array([[limits.min, 1, 258 % limits.max], [limits.max, 0, 77]], dtype)
    write_idx(tmp_path / "array", array)
    reference = published.mnist.read_sn3_pascalvincent_tensor(str(tmp_path / "array"))
    assert np.array_equal(reference.numpy(), array)
    back = read_idx(tmp_path / "array")
    assert back.dtype == dtype and np.array_equal(back, array)


HEADER = struct.pack(">BBBBI", 0, 0, 8, 1, 5)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (HEADER + b"abc", "holds 11 bytes, but its header promises 13 (5 of uint8)"),
        (HEADER + b"abcdef", "holds 14 bytes, but its header promises 13 (5 of uint8)"),
        (HEADER[:6], "ends after 6 bytes, inside its header of 8 bytes"),
        (b"<html>not found</html>", "its 22 bytes start with '3c68746d'"),
        (b"\0\0\x0d\x01" + bytes(8), "its 12 bytes start with '00000d01'"),
        (b"", "its 0 bytes start with ''"),
    ],
)
def test_a_broken_idx_file_is_named_with_what_it_holds(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    path = tmp_path / "broken-idx1-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_idx(path)
    assert str(path) in str(error.value) and complaint in str(error.value)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent cannot be read: No such file"):
        read_idx(tmp_path / "absent")


def test_structure_is_checked_where_no_digest_is_pinned(
    tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    pixels, labels = digits
    dataset = find_dataset("kmnist", None)
    folder = write_dataset(dataset, tmp_path, (pixels, labels), (pixels, labels))
    paths = {file.name: folder / file.name for file in dataset.files}
    assert find_faults(dataset, paths) == {}

    write_idx(paths["train-images-idx3-ubyte"], pixels[:, :27])
    write_idx(paths["t10k-labels-idx1-ubyte"], labels[:-1])
    assert find_faults(dataset, paths) == {
        "train-images-idx3-ubyte": "holds 10000×27×28 of uint8, expected 10000×28×28 of uint8",
        "t10k-images-idx3-ubyte": "holds 10,000 images for 9,999 labels",
        "t10k-labels-idx1-ubyte": "holds 9,999 labels for 10,000 images",
    }


def test_packed_files_are_read_and_checked_as_they_are(
    tmp_path: Path, digits: tuple[np.ndarray, np.ndarray]
) -> None:
    """NAME.gz where there is no NAME; where both are, NAME."""
    pixels, labels = digits
    dataset = find_dataset("kmnist", None)
    folder = write_dataset(dataset, tmp_path, (pixels, labels), (pixels[:50], labels[:50]))
    expected = load_images(dataset, tmp_path)
    packed = {}
    for file in dataset.files:
        path = folder / file.name
        packed[file.name] = folder / f"{file.name}.gz"
        packed[file.name].write_bytes(gzip.compress(path.read_bytes(), 1))
        path.unlink()
    lines: list[str] = []
    ensure_files(dataset, tmp_path, lines.append)
    assert len(lines) == 1 and "4 files in" in lines[0]
    found = load_images(dataset, tmp_path)
    assert torch.equal(found.train_images, expected.train_images)
    assert torch.equal(found.test_labels, expected.test_labels)

    write_idx(folder / "t10k-labels-idx1-ubyte", labels[50:100])
    assert load_images(dataset, tmp_path).test_labels.tolist() == labels[50:100].tolist()
    paths = {name: locate(folder / name) for name in packed}
    assert paths["t10k-labels-idx1-ubyte"].suffix == ""
    cut = packed["train-images-idx3-ubyte"].read_bytes()[:-5000]
    packed["train-images-idx3-ubyte"].write_bytes(cut)
    packed["train-labels-idx1-ubyte"].write_bytes(b"no gzip at all")
    short = gzip.compress(gzip.decompress(packed["t10k-images-idx3-ubyte"].read_bytes())[:-1])
    packed["t10k-images-idx3-ubyte"].write_bytes(short)
    faults = find_faults(dataset, paths)
    assert faults["train-images-idx3-ubyte"].startswith("cannot be read: Compressed file ended")
    assert faults["train-labels-idx1-ubyte"].startswith("cannot be read: Not a gzipped file")
    assert "holds 39,215 bytes, but its header promises 39,216" in faults["t10k-images-idx3-ubyte"]
    assert len(faults) == 3


@pytest.mark.parametrize("name", ["kmnist", "mnist"], ids=["by structure", "by digest"])
def test_a_named_pipe_is_no_file(tmp_path: Path, name: str) -> None:
    """To open it would wait for ever."""
    dataset = find_dataset(name, None)
    paths = {file.name: tmp_path / file.name for file in dataset.files}
    for path in paths.values():
        os.mkfifo(path)
    faults = find_faults(dataset, paths)
    assert set(faults.values()) == {"cannot be read: Not a regular file"} and len(faults) == 4
    with pytest.raises(DataError, match="cannot be read: Not a regular file"):
        read_idx(next(iter(paths.values())))


def test_every_split_has_its_own_files_or_rows() -> None:
    for choices in DATASETS.values():
        assert len({(choice.files, choice.test_rows) for choice in choices}) == len(choices)
        assert find_dataset(choices[0].name, None) is choices[0]
        for choice in choices:
            assert find_dataset(choice.name, choice.split) is choice


@pytest.mark.parametrize(
    ("name", "split", "complaint"),
    [
        ("mnist", "letters", "data.split=letters is not possible: mnist has no splits"),
        ("emnist", "test", "data.split=test is not a split of emnist: choose one of balanced, "),
        ("qmnist", "nist", "choose one of test10k, test50k, test"),
        ("cifar10", None, "data.name=cifar10 is not a dataset: choose one of mnist, "),
    ],
)
def test_an_unknown_name_or_split_is_answered_with_the_known(
    name: str, split: str | None, complaint: str
) -> None:
    with pytest.raises(ConfigError) as error:
        find_dataset(name, split)
    assert complaint in str(error.value)
