"""Two jobs never get one folder, and a second process in a run's folder is told of the first."""

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from mnist_bench.errors import ConfigError
from mnist_bench.runs import folder as folder_module
from mnist_bench.runs.folder import RunFolder, claim_folder

HOLD = """
import sys, time
from mnist_bench.runs.folder import RunFolder
with RunFolder(sys.argv[1]).owned():
    print("mine", flush=True)
    time.sleep(600)
"""


def test_every_claim_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(claim_folder(tmp_path / "run", "key")))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 20
    assert {path.name for path in found} == {"run", *(f"run-{n}" for n in range(2, 21))}


def test_what_cannot_be_made_is_told_with_its_key() -> None:
    with pytest.raises(ConfigError, match=r"hydra\.run\.dir=/proc/run cannot be made"):
        claim_folder(Path("/proc/run"), "hydra.run.dir")


def test_a_second_process_is_told_who_has_the_folder_until_that_one_dies(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "mine\n"
        sentence = rf"{tmp_path} is in use by process {owner.pid} on {os.uname().nodename}, since"
        with pytest.raises(ConfigError, match=sentence), RunFolder(tmp_path).owned():
            pass
        owner.kill()
        owner.wait()
    with RunFolder(tmp_path).owned():
        pass


def test_the_owner_may_take_it_twice(tmp_path: Path) -> None:
    """As when it is looked at before it is trained in."""
    with RunFolder(tmp_path).owned():
        with RunFolder(tmp_path).owned():
            pass
        assert (tmp_path / ".owner.json").exists()
        refused = subprocess.run(
            [sys.executable, "-c", HOLD, str(tmp_path)], capture_output=True, text=True
        )
        assert "is in use by process" in refused.stderr
    assert not (tmp_path / ".owner.json").exists()


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has none, and hearts that beat fast."""

    def refuse(self: FileLock, *args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    monkeypatch.setattr(folder_module, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(folder_module, "DEAD_SECONDS", 1.0)


@pytest.mark.usefixtures("no_locks")
def test_without_locks_the_owners_heart_counts(tmp_path: Path) -> None:
    with RunFolder(tmp_path).owned():
        time.sleep(1.5)  # longer than a dead one is waited for
        with pytest.raises(ConfigError, match="in use by process"), RunFolder(tmp_path).owned():
            pass
    with RunFolder(tmp_path).owned():
        pass
    # One that was killed leaves its file, which grows old.
    (tmp_path / ".owner.json").write_text('{"pid": 1, "host": "x", "since": "then"}')
    with (
        pytest.raises(ConfigError, match="process 1 on x, since then"),
        RunFolder(tmp_path).owned(),
    ):
        pass
    time.sleep(1.2)
    with RunFolder(tmp_path).owned():
        pass
