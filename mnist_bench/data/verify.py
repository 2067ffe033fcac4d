"""Telling whether a dataset's files are what they should be."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mnist_bench.data.datasets import DataFile, IdxDataset
from mnist_bench.data.idx import (
    MOST_BYTES,
    READING_ERRORS,
    IdxHeader,
    open_file,
    read_idx_header,
)
from mnist_bench.errors import DataError

MISSING = "missing"


def find_faults(dataset: IdxDataset, paths: Mapping[str, Path]) -> dict[str, str]:
    """What is wrong with each faulty file, by name, to be read after it; empty if all are good.

    `paths` says where each of the files lies. A pinned file must have its size and sha256; every
    other one an IDX header that fits its role and its length, and as many labels as images. An
    absent file's fault is MISSING.
    """
    faults: dict[str, str] = {}
    for file in dataset.files:
        fault = _find_fault(dataset, file, paths[file.name])
        if fault:
            faults[file.name] = fault
    for images, labels in dataset.pairs:
        if images.name in faults or labels.name in faults:
            continue
        n_images = read_idx_header(paths[images.name]).shape[0]
        n_labels = read_idx_header(paths[labels.name]).shape[0]
        if n_images != n_labels:
            # Either may be the wrong one, so neither is trusted.
            faults[images.name] = f"holds {n_images:,} images for {n_labels:,} labels"
            faults[labels.name] = f"holds {n_labels:,} labels for {n_images:,} images"
    return faults


def _find_fault(dataset: IdxDataset, file: DataFile, path: Path) -> str | None:
    if not os.path.exists(path):  # unlike Path.exists, false for what may not be looked at
        return MISSING
    if file.sha256 is not None:
        return _find_digest_fault(file, path)
    try:
        header = read_idx_header(path)
    except DataError as error:
        return str(error).removeprefix(f"{path} ").rstrip(".")
    row: tuple[int, ...] = ()
    dtype: np.dtype[Any] = np.dtype(np.uint8)
    if file in (dataset.train_images, dataset.test_images):
        row = dataset.image_shape
    elif dataset.wide_labels:
        row, dtype = (8,), np.dtype(np.int32)
    expected = IdxHeader(dtype, (header.shape[0], *row))
    return None if header == expected else f"holds {header}, expected {expected}"


def _find_digest_fault(file: DataFile, path: Path) -> str | None:
    assert file.sha256 is not None
    digest, size = hashlib.sha256(), 0
    try:
        with open_file(path) as stream:
            while size <= MOST_BYTES and (chunk := stream.read(1 << 20)):
                digest.update(chunk)
                size += len(chunk)
    except READING_ERRORS as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    sha256 = digest.hexdigest()
    if (size, sha256) == (file.size, file.sha256):
        return None
    return (
        f"holds {size:,} bytes with sha256 {sha256[:12]}…, "
        f"expected {file.size:,} bytes with sha256 {file.sha256[:12]}…"
    )
