"""One program by three names: `mnist-bench train`, `python -m mnist_bench train`, `train.py`."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mnist_bench import __version__
from mnist_bench.cli import app
from mnist_bench.launch.jobs import PROGRAM, train_command
from tests.support.train_command import REPOSITORY, environment

BY_PATH = [sys.executable, str(PROGRAM)]
BY_MODULE = [sys.executable, "-m", "mnist_bench"]
SCRIPT = [sys.executable, str(REPOSITORY / "train.py")]


def call(*command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    # What `-m` finds is this checkout, whatever else is installed.
    variables = {**environment(REPOSITORY / "data"), "PYTHONPATH": str(REPOSITORY), **variables}
    return subprocess.run(
        command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    "command",
    [
        [*BY_PATH, "--version"],
        [*BY_MODULE, "--version"],
        [*BY_PATH, "train", "--version"],
        [*SCRIPT, "--version"],
        [*SCRIPT, "model=vgg16", "--version"],
    ],
    ids=lambda command: " ".join(command[1:]).replace(str(REPOSITORY), ""),
)
def test_version_is_our_own(tmp_path: Path, command: list[str]) -> None:
    done = call(*command, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"mnist-bench {__version__}\n", "")


ALIKE = [
    ["--help"],
    ["--cfg", "job", "experiment=speedrun"],
    ["--cfg", "job", "--resolve", "seed=3"],
    ["-m", "seed=0,1", "model.dropout=0,1.5"],
    ["model=lenet"],
    ["--cfg", "everything"],
    ["-sc", "install=bash"],
]


@pytest.mark.parametrize("arguments", ALIKE, ids=" ".join)
def test_train_py_and_the_verb_answer_alike(tmp_path: Path, arguments: list[str]) -> None:
    script = call(*SCRIPT, *arguments, cwd=tmp_path)
    verb = call(*train_command(*arguments), cwd=tmp_path)
    assert verb.returncode == script.returncode
    for said, expected in ((verb.stdout, script.stdout), (verb.stderr, script.stderr)):
        # The names of the program, and the spaces that align with them.
        said, expected = (
            re.sub(r"(python )?train\.py|mnist-bench train|__main__\.py|\bpython\b|\s+", " ", text)
            for text in (said, expected)
        )
        assert said == expected
    assert list(tmp_path.iterdir()) == []


def test_help_names_the_program_that_was_called(tmp_path: Path) -> None:
    assert "\n  python train.py model=vgg16" in call(*SCRIPT, "--help", cwd=tmp_path).stdout
    verb = call(*train_command("--help"), cwd=tmp_path).stdout
    assert "\n  mnist-bench train model=vgg16" in verb and "train.py" not in verb


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["--cfg", "job"]], ids=" ".join)
def test_a_question_loads_neither_pytorch_nor_typer(tmp_path: Path, arguments: list[str]) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv = {[str(PROGRAM), 'train', *arguments]!r}\n"
        f"try: runpy.run_path({str(PROGRAM)!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print({'torch', 'typer', 'tensorboard'} & sys.modules.keys())"
    )
    done = call(sys.executable, "-c", code, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


def test_a_child_is_of_this_package_whatever_lies_where_it_starts(tmp_path: Path) -> None:
    """Not of a package of the same name, and with no module that shadows another's."""
    (tmp_path / "mnist_bench").mkdir()
    (tmp_path / "mnist_bench" / "__init__.py").write_text("raise SystemExit(3)")
    for name in ("hydra.py", "errors.py", "data.py"):
        (tmp_path / name).write_text("raise SystemExit(4)")
    done = subprocess.run(
        train_command("--info", "searchpath"), cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"file://{REPOSITORY / 'conf'}" in done.stdout


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("mnist-bench train scheduler=c", {"scheduler=constant", "scheduler=cosine"}),
        ("mnist-bench train model=vgg16 trainer.ep", {"trainer.epochs="}),
        ("mnist-bench rep", set()),
    ],
)
def test_bash_is_offered_what_can_follow(tmp_path: Path, line: str, offered: set[str]) -> None:
    done = call(*BY_PATH, "-sc", "query=bash", cwd=tmp_path, COMP_LINE=line)
    assert (done.returncode, set(done.stdout.split())) == (0, offered)


def test_the_verb_is_listed_beside_the_others_and_passes_everything_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed = CliRunner().invoke(app, ["--help"]).output
    assert all(verb in listed for verb in ("train", "import-keras", "export-keras", "reproduce"))
    passed: list[list[str]] = []
    monkeypatch.setattr("mnist_bench.launch.main.main", passed.append)
    arguments = ["-m", "seed=0,1", "--cfg", "job", "--help"]
    assert CliRunner().invoke(app, ["train", *arguments]).exit_code == 0
    assert passed == [arguments]


def test_ctrl_c_before_the_training_ends_with_its_status(tmp_path: Path) -> None:
    """While PyTorch loads, say; there is nothing to save yet."""
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from mnist_bench.launch import main\n"
        "main._compose_and_run = lambda: os.kill(os.getpid(), signal.SIGINT)\n"
        "main.main([])"
    )
    done = call(sys.executable, "-c", code, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, "", "")


def test_a_screen_that_is_closed_is_no_error(tmp_path):
    """As after `>&-`, where Python has no stream at all."""
    code = (
        "import sys; sys.stdout = None; from mnist_bench.launch.edge import guard_streams; "
        "guard_streams(); from mnist_bench.loggers.console import info; info('nobody sees it')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_module_needs_unix_to_be_imported(tmp_path: Path) -> None:
    """As where there is no fcntl, no SIGHUP and no process group."""
    modules = [
        ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        for path in sorted((REPOSITORY / "mnist_bench").rglob("*.py"))
        if path.stem != "__main__"
    ]
    code = (
        "import importlib, os, signal, sys\n"
        "import torch, tensorboard, torch.utils.tensorboard, filelock, h5py, matplotlib, scipy\n"
        "sys.modules.update(dict.fromkeys(('fcntl', 'pwd', 'grp', 'resource', 'termios')))\n"
        "for name in ('SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGKILL'): delattr(signal, name)\n"
        "for name in ('killpg', 'getuid', 'sched_getaffinity', 'fork'): delattr(os, name)\n"
        f"for module in {modules!r}: importlib.import_module(module)"
    )
    done = call(sys.executable, "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_citation_and_the_changelog_know_this_version() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == __version__
    assert f"\n## [{__version__}] - " in (REPOSITORY / "CHANGELOG.md").read_text()
