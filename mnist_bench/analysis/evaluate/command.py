"""What `mnist-bench evaluate` does: to the terminal, as JSON, and into a folder."""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from mnist_bench.analysis.evaluate.evaluation import Evaluation, Wrong, evaluate_run
from mnist_bench.analysis.evaluate.show import describe_evaluation
from mnist_bench.errors import FileError, explain_file_error
from mnist_bench.loggers.console import Screen
from mnist_bench.runs.folder import atomic_write


def evaluate_and_show(
    run: Path,
    overrides: Sequence[str],
    config_dir: Path | None = None,
    as_json: bool = False,
    out: Path | None = None,
) -> None:
    """Evaluate a run, and print what comes of it; with `out`, write it into that folder, too.

    Raises:
        BenchError: as `evaluate_run`.
        FileError: a file cannot be written.
    """
    evaluation = evaluate_run(run, overrides, config_dir, lambda line: print(line, file=sys.stderr))
    if as_json:
        print(json.dumps(evaluation.as_json(), indent=2, ensure_ascii=False))
    else:
        console = Screen().console
        console.print(describe_evaluation(evaluation, console.width))
    if out is not None:
        written = write_evaluation(evaluation, out)
        print(f"{out}: {', '.join(path.name for path in written)}", file=sys.stderr)


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write evaluation.json, wrong.csv and the pictures into a folder; return the files.

    Raises:
        FileError: one of them cannot be written.
    """
    from mnist_bench.analysis.evaluate.pictures import draw_pictures

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / "evaluation.json") as file:
            json.dump(evaluation.as_json(), file, indent=2, ensure_ascii=False)
            file.write("\n")
        with atomic_write(folder / "wrong.csv") as file:
            columns = [entry.name for entry in fields(Wrong)]
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(one) for one in evaluation.wrong)
        pictures = draw_pictures(evaluation, folder)
    except OSError as error:
        raise FileError(f"{explain_file_error(error, str(folder))}.") from error
    return [folder / "evaluation.json", folder / "wrong.csv", *pictures]
