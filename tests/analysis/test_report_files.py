"""What a report writes: the table, JSON, the command's files."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mnist_bench.analysis.report import Options, report
from mnist_bench.analysis.report.text import as_csv, as_json
from mnist_bench.cli import app
from tests.support.made_up_sweep import built, write_kernels


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be written to."""
    return write_kernels(tmp_path_factory.mktemp("made_up") / "kernels")


def test_the_table_and_json_have_what_the_report_says(sweep: Path) -> None:
    found = built(sweep, compare=["kernel_size=5,3"])
    (section,) = found.sections
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    told = json.loads(as_json(found))
    assert len(rows) == len(told["sections"][0]["settings"]) == 4
    for row, line, plain in zip(section.rows, rows, told["sections"][0]["settings"], strict=True):
        assert float(line["test_accuracy_mean"]) == row.estimate.mean == plain["mean"]
        assert row.estimate.reach is not None
        assert float(line["test_accuracy_low"]) == row.estimate.mean - row.estimate.reach
        assert line["may_be_best"] == str(row.is_candidate)
        assert line["seeds"] == "0 1 2 3"
        assert line["model.kernel_size"] == str(row.setting.values["model.kernel_size"])
        assert plain["settings"] == dict(row.setting.values)
    assert [pair["p_holm"] for pair in told["pairs"]] == [pair.p_holm for pair in found.pairs]


def test_the_command_writes_three_files_and_shows_the_verdict(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["report", str(sweep), "--compare", "kernel_size=5,3"])
    assert done.exit_code == 0, done.output
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report.md", "report.csv"}
    shown = " ".join(done.output.split())
    assert "2 of 4 settings cannot be ruled out as the best" in shown
    assert "kernel_size by dropout" in shown and "different" in shown
    assert "Written: report.html, report.md, report.csv" in shown
    quiet = CliRunner().invoke(app, ["report", str(sweep), "--json", "--out", "elsewhere"])
    assert json.loads(quiet.output)["metric"] == "test_accuracy"
    assert len(list((tmp_path / "elsewhere").iterdir())) == 3


@pytest.mark.parametrize("package", ["scipy", "jinja2"])
def test_what_is_not_installed_is_told_with_the_extra_that_has_it(package: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None; sys.argv = ['mnist-bench', 'report']\n"
        "from mnist_bench.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        f"A report takes {package}, which is not installed: pip install 'mnist-bench[reports]'\n"
    )


def test_the_python_function_does_the_same(sweep: Path, tmp_path: Path) -> None:
    found = report([sweep], Options(metric="val_accuracy"), out=tmp_path / "new" / "folder")
    assert found.sections[0].measure.title == "validation accuracy, %"
    text = (tmp_path / "new" / "folder" / "report.md").read_text()
    assert "| validation accuracy, % |" in text
    assert all(row.label in text or row.values[0] in text for row in found.sections[0].rows)
