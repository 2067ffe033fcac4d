"""Some of the file operations of `benchmarks.failures`, failed one by one."""

import re
import shutil
import subprocess
import sys

import pytest

from benchmarks.failures import HERE, names_the_file, turns
from tests.support.train_command import environment


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_no_operation_that_fails_leaves_damage_or_a_traceback(mnist_root) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "benchmarks.failures", "--every", "30"],
        cwd=HERE.parent,
        env=environment(mnist_root),
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    rows = re.findall(r"^\| a \w+ \| (.*) \|$", process.stdout, re.M)
    assert len(rows) == 3
    for row in rows:
        failed, struck, ended, completed, findings = map(int, row.split(" | "))
        assert failed == struck == ended + completed >= 3 and findings == 0


def test_the_committed_counts_add_up() -> None:
    text = (HERE / "results" / "failures.md").read_text()
    rows = re.findall(r"^\| a \w+ \| (.*) \|$", text, re.M)
    assert len(rows) == 3
    for row in rows:
        failed, struck, ended, completed, findings = map(int, row.split(" | "))
        assert failed == struck == ended + completed > 0 and findings == 0


def test_each_operation_has_an_error_in_turn() -> None:
    operations = [f"write a {n}" for n in range(4)] + ["read a 0", "read a 1", "scandir b 0"]
    errors = [error for _, error in turns(operations)]
    assert errors == ["ENOSPC", "EIO", "EACCES", "ENOSPC", "EIO", "EACCES", "EIO"]


def test_a_sentence_names_the_file_that_was_written() -> None:
    said = "/x/run/checkpoints/last.pt cannot be read or written, as it is not permitted."
    assert names_the_file(said, "write run/checkpoints/last.pt.partial 0")
    assert not names_the_file(said, "write run/metrics.csv.partial 0")
