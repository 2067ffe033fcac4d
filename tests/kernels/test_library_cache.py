"""Libraries are kept where nobody else can write, and a damaged one is made again.

Of a function in plain C, so that any processor and compiler will do.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from mnist_bench.kernels import build, library_cache

COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")


@pytest.fixture(autouse=True)
def of_plain_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Library `answer` is compiled from a file with one function; nothing is cached yet."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "answer.c").write_text("int answer(void) { return 42; }")
    monkeypatch.setattr(build, "FOLDER", tmp_path / "source")
    monkeypatch.setattr(build, "HEADERS", ())
    monkeypatch.setattr(build, "flags", lambda: ["-fPIC", "-shared"])
    monkeypatch.setattr(build, "compiler", lambda: COMPILER)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    build.library.cache_clear()
    library_cache._of_this_process.cache_clear()
    yield
    build.library.cache_clear()
    library_cache._of_this_process.cache_clear()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "home" / "mnist_bench"


def answer() -> int:
    """By the library, as a process that has just begun finds it."""
    build.library.cache_clear()
    library = build.library("answer", torch.float32)
    assert library is not None
    return library.answer()


def kept(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.so"))


def test_the_folder_is_made_for_its_user_alone(cache: Path) -> None:
    assert answer() == 42
    assert cache.stat().st_mode & 0o777 == 0o700
    assert len(kept(cache)) == 1


def test_a_library_is_compiled_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer() == 42
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("compiled again"))
    assert answer() == 42


@pytest.mark.parametrize("damage", ["empty", "truncated", "a flipped bit", "no digest", "another"])
def test_a_damaged_library_is_made_again(cache: Path, damage: str) -> None:
    assert answer() == 42
    (path,) = kept(cache)
    content = path.read_bytes()
    path.unlink()  # it is in use in this process, which would see it change
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(content[: len(content) // 2])
        case "a flipped bit":
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "no digest":
            path.write_bytes(content)
            path.with_suffix(".sha256").unlink()
        case "another":
            path.write_bytes(b"what somebody else has put there")
    assert answer() == 42
    assert path.read_bytes() == content


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_folder_that_others_may_write_to_is_not_used(
    cache: Path, tmp_path: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    cache.mkdir(parents=True)
    cache.chmod(mode)
    assert answer() == 42
    assert not kept(cache)
    (private,) = (tmp_path / "temporary").iterdir()
    assert private.stat().st_mode & 0o777 == 0o700 and len(kept(private)) == 1
    assert "other users may write to it" in caplog.text and str(cache) in caplog.text


def test_a_link_is_not_followed(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    cache.parent.mkdir()
    cache.symlink_to(tmp_path / "theirs")
    assert answer() == 42
    assert not kept(tmp_path / "theirs")


@pytest.mark.parametrize("of", ["the folder", "a folder above"])
def test_a_folder_of_another_user_is_not_used(
    cache: Path, tmp_path: Path, of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a library in it that its digest fits, as its owner can make one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "for the name"))
    assert answer() == 42
    (ours,) = kept(tmp_path / "for the name")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    cache.mkdir(mode=0o700, parents=True)
    code, theirs = tmp_path / "theirs.c", cache / ours.name
    code.write_text("int answer(void) { return 666; }")
    assert COMPILER is not None
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", theirs, code], check=True)
    digest = library_cache._digest(theirs.read_bytes())
    theirs.with_suffix(".sha256").write_bytes(digest)
    assert answer() == 666, "as the owner of the folder, they are us"

    owned = cache if of == "the folder" else cache.parent
    uid, (lstat, stat) = os.getuid(), (Path.lstat, Path.stat)

    def as_of_another(look):
        def looked(path: Path, **options):
            found = look(path, **options)
            if os.path.realpath(path) != os.path.realpath(owned):
                return found
            return os.stat_result([*found[:4], uid + 1, *found[5:10]])

        return looked

    monkeypatch.setattr(Path, "lstat", as_of_another(lstat))
    monkeypatch.setattr(Path, "stat", as_of_another(stat))
    assert answer() == 42


def test_a_user_without_a_home_has_a_private_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    shared = tmp_path / "temporary" / "mnist_bench"  # where anybody can put one
    shared.mkdir()
    assert answer() == 42
    assert not kept(shared) and len(kept(tmp_path / "temporary")) == 1


def test_a_relative_folder_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the XDG specification asks: libraries of whoever prepared the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "home")
    monkeypatch.setenv("HOME", str(tmp_path / "own"))
    assert answer() == 42
    assert kept(tmp_path / "own" / ".cache" / "mnist_bench") and not (tmp_path / "home").exists()


def test_where_no_folder_can_be_made_a_private_one_serves(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.parent.write_text("a file, where a folder should be")
    assert answer() == 42
    assert len(kept(tmp_path / "temporary")) == 1
    (record,) = caplog.records
    assert str(cache) in record.getMessage()


def test_a_private_folder_is_one_for_the_process_and_gone_with_it(tmp_path: Path) -> None:
    (tmp_path / "temporary").rmdir()
    script = (
        "import tempfile, os\n"
        "from mnist_bench.kernels import library_cache\n"
        "first, second = library_cache.folder(), library_cache.folder()\n"
        "assert first == second and first.is_dir()\n"
        "print(first)\n"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": "/dev/null", "TMPDIR": str(tmp_path)}
    folder = run_python(script, environment)
    assert folder.startswith(str(tmp_path)) and not Path(folder).exists()


def run_python(script: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", script]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, env=environment, cwd=root, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
