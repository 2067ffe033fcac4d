"""C functions: compiled once, and done without where they cannot be had."""

import logging
import os
import stat
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from mnist_bench.kernels import build
from mnist_bench.kernels.layers import Conv2d, MaxPool2d

available = pytest.mark.skipif(build.compiler() is None, reason="needs AVX-512 and a C compiler")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A cache of its own, on disk and in the process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for function in (build.library, build.compiler):
        function.cache_clear()
    yield tmp_path / "cache" / "mnist_bench"
    for function in (build.library, build.compiler):
        function.cache_clear()


def put_in_path(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that does what `script` says."""
    folder.mkdir()
    (folder / "cc").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "cc").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


@available
def test_a_library_is_compiled_once_for_each_type(cache: Path) -> None:
    for _ in range(2):
        for dtype in build.ELEMENTS:
            assert build.library("pooling", dtype) is not None
        build.library.cache_clear()  # as a new process has it
        times = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
        assert len(times) == 4  # each with its digest
    assert times == {path: path.stat().st_mtime_ns for path in cache.iterdir()}


@available
def test_a_compiler_that_fails_is_named_and_pytorch_computes(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put_in_path(
        tmp_path / "bin",
        "echo 'In function f:' >&2; echo 'error: unknown processor' >&2; exit 1",
        monkeypatch,
    )
    x = torch.rand(2, 16, 6, 6)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(MaxPool2d(2)(x), F.max_pool2d(x, 2))
        MaxPool2d(2)(x)
    (record,) = caplog.records
    message = record.getMessage()
    assert str(tmp_path / "bin" / "cc") in message
    assert "error: unknown processor" in message and "In function" not in message
    assert not list(cache.glob("**/*.so"))


@available
def test_a_broken_library_is_not_used(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put_in_path(tmp_path / "bin", 'for last; do :; done; echo nonsense > "$last"', monkeypatch)
    assert build.library("pooling", torch.float32) is None
    assert "more slowly" in caplog.text


def test_without_a_compiler_there_are_none(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(build, "COMPILERS", ("no-such-compiler",))
    assert build.library("pooling", torch.float32) is None
    layer, x = Conv2d(32, 32, 3, 1, "valid"), torch.rand(2, 32, 8, 8)
    assert layer(x).shape == (2, 32, 6, 6)
    assert not caplog.records, "nothing is wrong"
