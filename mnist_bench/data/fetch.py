"""Putting a dataset's files in place, verified, whatever else runs or is killed meanwhile."""

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mnist_bench.data.datasets import IdxDataset
from mnist_bench.data.idx import locate
from mnist_bench.data.images import Announce
from mnist_bench.data.sources import Source, find_sources, short_reason
from mnist_bench.data.verify import MISSING, find_faults
from mnist_bench.errors import DataError

# Both lie in the folder of the files, so that a rename from one to the other never leaves it.
LOCK_NAME = ".lock"
TEMPORARY_PREFIX = ".fetch-"


def ensure_files(dataset: IdxDataset, root: Path, announce: Announce) -> None:
    """Make sure that the dataset's four files lie under `root` and are what they should be.

    A file NAME may be there as NAME.gz instead. Good files are only read: no lock is taken and
    `root` may be read-only. Otherwise what is
    missing or wrong, and only that, is fetched from the first source that has it, into a temporary
    folder beside the files, verified there, and renamed into place. A wrong file is renamed to
    NAME.corrupt once its replacement is at hand; until then it stays. Processes that start together
    wait for one of them. Each step is told to `announce` in one line.

    Raises DataError, saying what is wrong, what each source answered and which files to put where,
    if no source can help or the folder cannot be written.
    """
    folder = dataset.raw_folder(root)
    faults: dict[str, str] = {}
    try:
        faults = _find_faults_in(dataset, folder)
        if faults:
            folder.mkdir(parents=True, exist_ok=True)
            with _lock(dataset, folder, announce):
                # Whoever held the lock before may have done the work.
                faults = _find_faults_in(dataset, folder)
                if faults:
                    _fetch(dataset, folder, faults, announce)
                    return
    except OSError as error:
        cause = f"{folder} cannot be used: {short_reason(error)}"
        raise DataError(_explain(dataset, folder, faults, [cause])) from error
    announce(f"{dataset.folder}: 4 files in {folder}, {_verified(dataset)}")


def _find_faults_in(dataset: IdxDataset, folder: Path) -> dict[str, str]:
    return find_faults(dataset, {file.name: locate(folder / file.name) for file in dataset.files})


def _verified(dataset: IdxDataset) -> str:
    pinned = all(file.sha256 for file in dataset.files)
    return "verified" if pinned else "headers, lengths and counts verified (no digest is pinned)"


@contextmanager
def _lock(dataset: IdxDataset, folder: Path, announce: Announce) -> Iterator[None]:
    lock = FileLock(folder / LOCK_NAME)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        announce(f"{dataset.folder}: waiting for another process that is fetching it to {folder}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch(dataset: IdxDataset, folder: Path, faults: dict[str, str], announce: Announce) -> None:
    """Replace the files in `faults`, with the lock held; raises DataError if no source can."""
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        # The lock is ours, so whoever made it was killed.
        shutil.rmtree(leftover, ignore_errors=True)

    reasons = []
    for source in find_sources(dataset):
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(
            prefix=TEMPORARY_PREFIX, dir=folder, ignore_cleanup_errors=True
        ) as temporary:
            try:
                _write_verified(dataset, source, list(faults), folder, Path(temporary))
            except (DataError, OSError) as error:
                reason = f"{source.label}: {short_reason(error)}"
                reasons.append(reason)
                announce(f"{dataset.folder}: not from {reason}")
                continue
            _install(dataset, faults, Path(temporary), folder, announce)
        announce(
            f"{dataset.folder}: fetched from {source.label} in {time.monotonic() - begun:.1f} s, "
            f"{_verified(dataset)}, written to {folder}"
        )
        return
    raise DataError(_explain(dataset, folder, faults, reasons))


def _write_verified(
    dataset: IdxDataset, source: Source, names: Sequence[str], folder: Path, temporary: Path
) -> None:
    """Have `source` write the files `names` to `temporary`; raises DataError if one is not good."""
    source.write(names, temporary)
    # Files already in place count too: images and labels must match across the two folders.
    paths = {
        file.name: temporary / file.name if file.name in names else locate(folder / file.name)
        for file in dataset.files
    }
    for name, fault in find_faults(dataset, paths).items():
        raise DataError(f"its {name} {fault}")


def _install(
    dataset: IdxDataset, faults: dict[str, str], temporary: Path, folder: Path, announce: Announce
) -> None:
    """Rename verified files into place; killed between any two lines, it leaves whole files."""
    for name, fault in faults.items():
        if fault != MISSING:
            wrong = locate(folder / name)
            aside = _free_name(wrong)
            wrong.rename(aside)
            announce(f"{dataset.folder}: {wrong} {fault}; set aside as {aside.name}")
        (temporary / name).replace(folder / name)


def _free_name(path: Path) -> Path:
    """NAME.corrupt, or with a number behind it where earlier ones lie, which are kept."""
    aside = path.with_name(f"{path.name}.corrupt")
    number = 2
    while aside.exists():
        aside = path.with_name(f"{path.name}.corrupt{number}")
        number += 1
    return aside


def _explain(
    dataset: IdxDataset, folder: Path, faults: dict[str, str], reasons: Sequence[str]
) -> str:
    """The whole story of a dataset that is not there, for the user to act on."""
    missing = [name for name, fault in faults.items() if fault == MISSING]
    lines = [f"{dataset.folder} is not complete in {folder} and could not be fetched."]
    if missing:
        lines.append(f"  missing: {', '.join(missing)}")
    lines += [
        f"  wrong, left as it is: {locate(folder / name)} {fault}"
        for name, fault in faults.items()
        if fault != MISSING
    ]
    lines += [f"  tried: {reason}" for reason in reasons]
    lines.append(f"Put {', '.join(faults)} into {folder} by hand, as they are or as .gz.")
    return "\n".join(lines)
