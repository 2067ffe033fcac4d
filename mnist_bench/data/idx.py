"""The IDX format, in which MNIST and its relatives are published.

A file is two zero bytes, a type code, the number of dimensions, each dimension as a big-endian
32-bit number, and the values, big-endian as well. Source: http://yann.lecun.com/exdb/mnist/.
A file that is named NAME.gz is read through gzip.
"""

import errno
import gzip
import math
import os
import stat
import struct
import zlib
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from mnist_bench.errors import DataError

# Only the two types the datasets use: images and most labels are 0x08, QMNIST's labels 0x0C.
DTYPES: dict[int, np.dtype[Any]] = {0x08: np.dtype(np.uint8), 0x0C: np.dtype(np.int32)}
PACKED = ".gz"
# What opening and reading may raise; a damaged .gz the last two.
READING_ERRORS = (OSError, EOFError, zlib.error)
# No more is unpacked of a file: twice the largest, EMNIST's, and little enough to be soon refused.
MOST_BYTES = 1 << 30


def locate(path: Path) -> Path:
    """Return NAME.gz where that is there and NAME is not, else the path itself."""
    packed = path.with_name(path.name + PACKED)
    return packed if os.path.exists(packed) and not os.path.lexists(path) else path


def open_file(path: Path) -> gzip.GzipFile | BufferedReader:
    """Open a file to read, through gzip if it is named so.

    Raises OSError if that cannot be, and for a named pipe, which would wait for somebody to write.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "Not a regular file")
    return gzip.open(path) if path.suffix == PACKED else path.open("rb")


@dataclass(frozen=True)
class IdxHeader:
    """What the first bytes of an IDX file promise about the rest."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes from the first of the file to the first of its values."""
        return 4 + 4 * len(self.shape)

    def __str__(self) -> str:
        """As in `60000×28×28 of uint8`."""
        return f"{'×'.join(map(str, self.shape))} of {self.dtype}"


def read_idx_header(path: Path) -> IdxHeader:
    """Read the header and hold it against the file's length; the values are not read.

    Raises DataError if the file cannot be opened, is no IDX file, or is shorter or longer than its
    header promises.
    """
    try:
        with open_file(path) as file:
            start = file.read(4 + 4 * 255)
            length = len(start)
            while length <= MOST_BYTES and (chunk := file.read(1 << 20)):
                length += len(chunk)
    except READING_ERRORS as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {reason}.") from error

    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in DTYPES or start[3] == 0:
        raise DataError(
            f"{path} is not an IDX file: its {length:,} bytes start with '{start[:4].hex()}', "
            "where 0000, a type (08 or 0c) and the number of dimensions were expected."
        )
    dimensions = start[3]
    if len(start) < 4 + 4 * dimensions:
        raise DataError(
            f"{path} ends after {length:,} bytes, inside its header of {4 + 4 * dimensions} bytes."
        )
    header = IdxHeader(DTYPES[start[2]], struct.unpack_from(f">{dimensions}I", start, 4))
    promised = header.size + math.prod(header.shape) * header.dtype.itemsize
    if length != promised:
        raise DataError(
            f"{path} holds {length:,} bytes, but its header promises {promised:,} ({header})."
        )
    return header


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file as an array of uint8 or int32 in the machine's byte order.

    Raises DataError as `read_idx_header` does.
    """
    header = read_idx_header(path)
    try:
        with open_file(path) as file:
            content = file.read()
        values = np.frombuffer(content, header.dtype.newbyteorder(">"), offset=header.size)
        return values.astype(header.dtype).reshape(header.shape)
    except (*READING_ERRORS, ValueError) as error:
        raise DataError(f"{path} changed or failed while it was read: {error}.") from error


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write an array of uint8 or int32, of at least one dimension, as an IDX file.

    The write is not atomic: whoever needs that writes beside and renames.
    """
    codes = {dtype: code for code, dtype in DTYPES.items()}
    if array.dtype not in codes or array.ndim == 0:
        raise ValueError(f"IDX holds arrays of uint8 or int32, not {array.ndim}-d {array.dtype}")
    with path.open("wb") as file:
        file.write(bytes([0, 0, codes[array.dtype], array.ndim]))
        file.write(struct.pack(f">{array.ndim}I", *array.shape))
        file.write(np.ascontiguousarray(array, array.dtype.newbyteorder(">")).data)
