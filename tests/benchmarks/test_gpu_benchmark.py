"""What `python -m benchmarks.gpu` measures, plans and leaves."""

import json
import re
import subprocess
import sys
import tarfile
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import bundle, measures, tables
from benchmarks.gpu.parts import Settings, cuda_tests, parts
from benchmarks.gpu.rows import Origin, Row, read_rows
from mnist_bench.data.datasets import MNIST
from mnist_bench.kernels.layers import Conv2d

ROOT = Path(__file__).parents[2]
HERE = Origin("a device", "2.11.0", "3.12.3", "this commit")


def row(part, key, figures=None, failed=None, origin=HERE):
    return Row(part, key, figures or {}, 1.0, failed, origin, "2026-11-26T05:00:00+0000")


def test_the_committed_tables_are_those_of_the_committed_rows():
    folders = command.device_folders()
    assert folders
    for folder in folders:
        assert (folder / "README.md").read_text() == tables.render(read_rows(folder))


def test_the_committed_rows_say_where_and_when_they_were_measured():
    for folder in command.device_folders():
        for found in read_rows(folder):
            assert len(found.origin.commit) == 40 and datetime.fromisoformat(found.date)
            assert found.origin.device and found.origin.torch and found.origin.python


def test_a_table_of_steps_holds_each_variant_against_its_own_turns():
    def step(variant, ms, graph_ms=None):
        key = {"network": "vgg16", "recipe": "adam", "precision": "bf16", "variant": variant}
        figures = {"ms": ms, "batch_size": 128, "optimizer": "adam"}
        return row("step", key, figures | ({"graph_ms": graph_ms} if graph_ms else {}))

    text = tables.render([step("graph", 2.0), step("plain PyTorch", 6.0, graph_ms=1.5)])
    assert "| `vgg16` | adam | adam | 128 | bf16 | 2.000 | 6.000 (4.00) |" in text


def test_a_table_is_of_one_commit_and_of_its_newest_rows():
    key = {"file": "tests/training/test_graphs.py"}
    earlier = replace(HERE, commit="another commit")

    def tests(passed, origin):
        figures = {"passed": passed, "failed": 1, "skipped": 0, "failures": ["test_it"]}
        return row("tests", key, figures, origin=origin)

    text = tables.render([tests(1, earlier), tests(2, HERE), tests(3, HERE)])
    ours, theirs = text.index("this commit"), text.index("another commit")
    assert ours < text.index("| `tests/training/test_graphs.py` | 3 | 1 | 0 |") < theirs
    assert theirs < text.index("| `tests/training/test_graphs.py` | 1 | 1 | 0 |")
    assert "| 2 | 1 | 0 |" not in text and "- failed: `test_it`" in text


def test_what_failed_is_told_in_place_of_its_figures():
    text = tables.render([row("save", {"save_every": 1}, failed="longer than 48 s")])
    assert "- `1` failed: longer than 48 s" in text


def test_the_parts_name_what_there_is(compose, tmp_path):
    """Every training of theirs composes, and every row has a name of its own."""
    every = parts(tmp_path, HERE, Settings())
    names = [f"{part.name} {json.dumps(key)}" for part in every for key in part.keys]
    assert len(names) == len(set(names))
    keys = {part.name: part.keys for part in every}
    overrides = set()
    for part in ("step", "precision", "deterministic", "compile"):
        for key in keys[part]:
            which = "experiment" if key["recipe"] == "own" else "model"
            variant = key["variant"]
            others = {"graph", "plain PyTorch", "without centre tap"}
            assert variant in measures.VARIANTS or variant in others
            overrides |= {
                (f"{which}={key['network']}",),
                (f"trainer.precision={key['precision']}",),
            }
    overrides |= {(switch,) for switch in measures.VARIANTS.values()}
    overrides |= {(f"experiment={k['experiment']}",) for k in keys["training"] + keys["seeds"]}
    overrides |= {("experiment=accuracy", f"model={k['network']}") for k in keys["accuracy"]}
    overrides |= {(f"trainer.save_every={key['save_every']}",) for key in keys["save"]}
    for some in overrides:
        compose(*some)
    assert all((ROOT / key["file"]).is_file() for key in keys["tests"])
    assert Conv2d.centre_tap is True  # what `without centre tap` switches off


def test_all_but_the_long_parts_are_planned_for_two_calls(tmp_path):
    """Whether or not the rows of the first day tell how long they take."""
    every = parts(tmp_path, HERE, Settings())
    short = [part for part in every if not part.long]
    for rows in ([], read_rows(command.RESULTS / "nvidia-h200")):
        origin = replace(HERE, device=rows[0].origin.device) if rows else HERE
        found = list(command.calls(command.plan(short, rows, origin), command.seconds_of(6)))
        assert len(found) == 2
        assert all(sum(turn.seconds for turn in call) <= 350 for call in found)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_a_plan_needs_no_gpu(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu", "--plan"])
    command.main()
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"NVIDIA H\d+.*, commit", lines[0])
    assert [line.split(",")[0] for line in lines if not line.startswith(" ")][1:] == [
        *("call 1", "call 2", "further calls"),
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_measuring_is_refused_without_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu", str(tmp_path)])
    with pytest.raises(SystemExit, match="PyTorch finds no CUDA device"):
        command.main()
    assert list(tmp_path.iterdir()) == []


def test_an_archive_has_all_but_weights_and_curves(tmp_path):
    folder = tmp_path / "device"
    kept = ["rows.jsonl", "logs/step.log", "reproduction/vgg16/seed=0/summary.json"]
    for name in [*kept, "runs/a/checkpoints/last.pt", "runs/a/tensorboard/events"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    pack = folder / "packed.tar.gz"
    for _ in range(2):
        command.keep(folder, pack)
        with tarfile.open(pack) as archive:
            names = archive.getnames()
        assert sorted(names) == sorted(f"device/{name}" for name in [*kept, "README.md"])
    assert not list(folder.glob("*.partial"))


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_a_bundle_unpacks_into_what_was_committed(tmp_path, mnist_root, monkeypatch):
    """Without wheels: this Python has them. MNIST comes from the bundle, the plan from its rows."""
    monkeypatch.setenv("MNIST_BENCH_DATA", str(mnist_root))
    monkeypatch.setattr(sys, "argv", ["bundle", str(tmp_path / "bundle")])
    bundle.main()
    monkeypatch.delenv("MNIST_BENCH_DATA")
    monkeypatch.setenv("PYTHON", sys.executable)
    run = ["bash", str(tmp_path / "bundle" / "run.sh"), str(tmp_path / "there"), "--plan"]
    found = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True)
    commit = bundle.git("rev-parse", "HEAD")
    assert f", commit {commit}: 0 of " in found.stdout.partition("\n")[0]
    which = "import os, mnist_bench; print(mnist_bench.__file__, os.environ['GIT_COMMIT'])"
    run[-1:] = ["--", sys.executable, "-c", which]
    found = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [f"{tmp_path}/there/mnist_bench/__init__.py", commit]
    for file in MNIST.files:
        theirs = MNIST.raw_folder(tmp_path / "there" / "data") / file.name
        assert theirs.read_bytes() == (MNIST.raw_folder(mnist_root) / file.name).read_bytes()


# What a machine with a GPU need not have, by the names that are imported.
NOT_THERE = (
    *("jax", "jinja2", "keras", "onnx", "onnxruntime", "onnxscript", "optuna", "safetensors"),
    *("scipy", "selenium", "statsmodels", "wandb", "xdist"),
)
WITHOUT = f"""\
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {NOT_THERE}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Without())
"""


def test_the_tests_for_cuda_need_no_more_than_pytest(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    refused = subprocess.run([sys.executable, "-c", "import scipy"], capture_output=True)
    assert refused.returncode == 1
    asked = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "needs_cuda", "--collect-only"]
    files = cuda_tests()
    command = [sys.executable, *asked, *files]
    found = subprocess.run(command, cwd=bundle.ROOT, capture_output=True)
    assert found.returncode == 0, found.stdout.decode()
    assert all(file in found.stdout.decode() for file in files) and len(files) == 2


def test_a_report_of_pytest_is_counted(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "@pytest.mark.parametrize('n', [1, 2])\n"
        "def test_bad(n): assert n == 1\n"
        "@pytest.mark.skip\n"
        "def test_left_out(): pass\n"
    )
    report = tmp_path / "report.xml"
    arguments = ["-m", "pytest", "-q", f"--junitxml={report}", "-p", "no:cacheprovider"]
    subprocess.run([sys.executable, *arguments, "test_it.py"], cwd=tmp_path, capture_output=True)
    assert measures.read_junit(report) == {
        "passed": 2,
        "failed": 1,
        "skipped": 1,
        "failures": ["test_bad[2]"],
    }


def test_epochs_are_timed_by_the_lines_of_the_log():
    log = (
        "[2026-11-26 05:33:40,250] epoch  1/10  train loss 0.1\n"
        "[2026-11-26 05:33:41,000] a word between\n"
        "[2026-11-26 05:33:41,750] epoch  2/10  train loss 0.1\n"
        "[2026-11-26 05:33:42,000] epoch  3/10  train loss 0.1\n"
    )
    assert measures.epoch_seconds(log) == pytest.approx([1.5, 0.25])
