"""What can be concluded from runs, with its uncertainty: `mnist-bench report`.

    from mnist_bench.analysis.report import report
    found = report(["outputs/sweeps/kernels"], out="results")

build.py draws the conclusions, which everything else only shows: terminal.py, text.py (Markdown,
CSV, JSON) and page.py (HTML).
"""

import time
from collections.abc import Sequence
from pathlib import Path

from mnist_bench.analysis.collect import collect
from mnist_bench.analysis.report.build import Options, Report, build
from mnist_bench.errors import FileError, explain_file_error
from mnist_bench.runs.folder import atomic_write

__all__ = ["Options", "Report", "report", "write"]


def report(
    paths: Sequence[Path | str] = (), options: Options | None = None, out: Path | str | None = None
) -> Report:
    """Read runs, draw the conclusions, and with `out` write report.html, .md and .csv there.

    `paths` are folders of runs, sweeps or searches, or above them; without any, outputs/.

    Raises:
        ConfigError: there are no completed runs there, or an option names what is not there.
        DataError: a sweep.json is damaged.
        FileError: the files cannot be written.
    """
    found = build(collect(paths), options or Options())
    if out is not None:
        write(found, Path(out), paths)
    return found


def write(found: Report, out: Path, paths: Sequence[Path | str] = ()) -> list[Path]:
    """Write report.html, report.md and report.csv to a folder, and return them.

    Raises:
        FileError: they cannot be written.
    """
    from mnist_bench.analysis.report.page import as_page
    from mnist_bench.analysis.report.text import as_csv, as_markdown

    what = ", ".join(map(str, paths)) or "outputs"
    made = f"Made of {what}, {time.strftime('%Y-%m-%d %H:%M')}."
    contents = {
        "report.html": as_page(found, made),
        "report.md": as_markdown(found),
        "report.csv": as_csv(found),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            with atomic_write(out / name) as file:
                file.write(content)
    except OSError as error:
        raise FileError(f"{explain_file_error(error, str(out))}.") from error
    return [out / name for name in contents]
