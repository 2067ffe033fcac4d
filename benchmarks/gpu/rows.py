"""What was measured on a device: one JSON object a line, added when it is measured.

    {"part": "step", "key": {"network": "vgg16", ...}, "figures": {"ms": 1.78, ...}, "seconds": 3,
     "device": "NVIDIA H200", "torch": "2.11.0+cu130", "python": "3.12.3", "commit": ...,
     "date": "2026-11-26"}

`key` tells a row from the others of its part, `seconds` is what measuring it took, and a row that
could not be measured has `failed`, the reason, in place of figures.
"""

import json
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

FILE = "rows.jsonl"

Key = Mapping[str, Any]
Figures = dict[str, Any]


@dataclass(frozen=True)
class Origin:
    """Where rows come from; rows of another origin are other measurements."""

    device: str
    torch: str
    python: str
    commit: str

    @classmethod
    def here(cls, device: str) -> Self:
        """The code in this process; with a `+` behind the commit if it was changed since."""
        import torch  # late: what only reads rows, or is told where it is, starts at once

        from mnist_bench.runs.records import provenance

        found = provenance()
        changes = (found["git_changes"] or "").splitlines()
        changed = any("benchmarks/results/" not in line for line in changes)
        commit = f"{found['git_commit'] or 'unknown'}{'+' * changed}"
        return cls(device, torch.__version__, platform.python_version(), commit)


@dataclass(frozen=True)
class Row:
    part: str
    key: Key
    figures: Figures
    seconds: float | None
    failed: str | None
    origin: Origin
    date: str

    @property
    def name(self) -> str:
        return name_of(self.part, self.key)


def name_of(part: str, key: Key) -> str:
    """What tells one row from all others, such as `step vgg16/adam/bf16/graph`."""
    return f"{part} {label(key)}"


def label(key: Key) -> str:
    return "/".join(str(value) for value in key.values())


def read_rows(folder: Path) -> list[Row]:
    """All rows of a device's folder, oldest first; a last line that was cut off is left out."""
    path = folder / FILE
    if not path.exists():
        return []
    rows = []
    whole, _, _ = path.read_text().rpartition("\n")
    for line in whole.splitlines():
        try:
            found = json.loads(line)
        except json.JSONDecodeError:
            continue  # cut off, and followed by others since
        origin = Origin(*(found[name] for name in ("device", "torch", "python", "commit")))
        rows.append(
            Row(
                found["part"],
                found["key"],
                found.get("figures", {}),
                found.get("seconds"),
                found.get("failed"),
                origin,
                found["date"],
            )
        )
    return rows


def add_row(folder: Path, row: Row) -> None:
    """Append a row, so that it stays whatever happens next."""
    found: dict[str, Any] = {"part": row.part, "key": dict(row.key)}
    found |= {"failed": row.failed} if row.failed else {"figures": row.figures}
    if row.seconds is not None:
        found["seconds"] = round(row.seconds, 2)
    line = json.dumps(found | asdict(row.origin) | {"date": row.date}) + "\n"
    with (folder / FILE).open("ab+") as file:
        if file.tell() > 0:  # at the end; a line that was cut off there stays alone
            file.seek(-1, os.SEEK_END)
            line = line if file.read() == b"\n" else f"\n{line}"
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def measure_rows(
    part: str, folder: Path, keys: Sequence[Key], origin: Origin, measure: Callable[[Key], Figures]
) -> None:
    """Measure one row after the other, in a process of its own that ends with its parent.

    The first failure is the process's end: what comes after it is begun anew in a fresh one.
    """
    end_with_parent()
    for key in keys:
        start = time.perf_counter()
        print(f"--- {name_of(part, key)}", flush=True)
        figures = measure(key)
        seconds = time.perf_counter() - start
        add_row(folder, Row(part, key, figures, seconds, None, origin, now()))


def end_with_parent() -> None:
    """Kill this process group when the parent is gone, which holds the other end of stdin."""

    def watch() -> None:
        while os.read(0, 1):  # not by sys.stdin, whose lock would hold up the process's end
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
