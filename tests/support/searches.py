"""Tiny searches, in a process of their own or, to be refused, in this one."""

import sys

import pytest

from mnist_bench.launch.search.command import begin
from mnist_bench.launch.search.study import SharedStudy
from tests.support.train_command import run_train

SPACE = "optimizer.lr: {low: 1e-4, high: 1e-2, log: true}\nmodel.kernel_size: [3, 5]\n"


def search_in(folder, mnist_root, *arguments, status=0, space=SPACE):
    (folder / "space.yaml").write_text(space)
    process = run_train(
        *("tried", "--space", "space.yaml", *arguments),
        cwd=folder,
        data_root=mnist_root,
        verb="search",
    )
    assert process.returncode == status, process.stderr + process.stdout
    return process


def refusal(folder, mnist_root, monkeypatch, *arguments, space=SPACE, seeds=1):
    """Return the sentence that a search ends with in this process."""
    (folder / "space.yaml").write_text(space)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MNIST_BENCH_DATA", str(mnist_root))
    monkeypatch.setattr("sys.argv", ["mnist-bench"])
    monkeypatch.setattr("sys.path", [*sys.path])
    with pytest.raises(SystemExit) as ended:
        begin("tried", arguments, "space.yaml", trials=1, seeds=seeds)
    assert isinstance(ended.value.code, str) and "\n" not in ended.value.code
    return ended.value.code


def study_in(folder):
    return SharedStudy(folder / "outputs" / "searches" / "tried")
