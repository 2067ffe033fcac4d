"""The errors a user can cause or meet: one clear sentence, shown without a traceback.

Every error pickles, as launchers send them from one process to another.
"""

import errno
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TextIO


class BenchError(Exception):
    """Base of every error whose message is written for the user."""


class ConfigError(BenchError):
    """What the user wrote cannot be: names the key, the value and what is allowed."""


class DataError(BenchError):
    """A file does not hold what it should: names the file, what was found and what was expected."""


class TrainingError(BenchError):
    """Training cannot go on, for example because the loss is no longer finite."""


class FileError(BenchError):
    """A file cannot be read or written: names it, what has happened and what to do."""


class OutOfMemory(BenchError):
    """The memory of the machine, or of its GPU, does not suffice: says what to make smaller."""


# --- What the system says ---------------------------------------------------------------------

EITHER = "read or written"
# Of what an operation on a file fails with: what could not be done, why, and what to do about it.
FAILURES = {
    errno.ENOSPC: ("written", "the disk is full", "free some space"),
    errno.EDQUOT: ("written", "what you may use of the disk is used up", "free some space"),
    errno.EFBIG: (
        "written",
        "it would be larger than a file may be",
        "raise that limit (ulimit -f)",
    ),
    errno.EROFS: ("written", "the file system is read-only", "make it writable"),
    errno.EACCES: (EITHER, "it is not permitted", "give yourself access to it"),
    errno.EPERM: (EITHER, "it is not permitted", "give yourself access to it"),
    errno.ENOENT: (EITHER, "it, or the folder that it belongs in, is gone", "put that back"),
    errno.ENOTDIR: (EITHER, "a file is where its folder should be", "move that file away"),
    errno.EISDIR: (EITHER, "a folder is where it should be", "move that folder away"),
    errno.EIO: (EITHER, "the disk reports an input/output error", "see to the disk"),
    errno.ESTALE: (EITHER, "the network file system has lost it", "mount that anew"),
    errno.EMFILE: (EITHER, "too many files are open", "raise that limit (ulimit -n)"),
    errno.ENAMETOOLONG: (EITHER, "its name is too long", "give a shorter one"),
}


def explain_file_error(error: OSError, name: str = "", verb: str = "") -> str:
    """Return which file cannot be read or written, why, and what to do about it.

    `name` and `verb` are what to call the file, and what was to be done with it, where the error
    does not tell. It is a sentence without its full stop, so that how to go on can be added.
    """
    if not name:
        name = error.filename if isinstance(error.filename, str) else "A file"
    unknown = (EITHER, f"the system says: {error.strerror or error}", "see to that")
    done, why, remedy = FAILURES.get(error.errno or 0, unknown)
    return f"{name} cannot be {verb or done}, as {why}: {remedy}"


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an error of the system name this file: of reading and writing it names none."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:  # else its message is one of its own
            error.filename = str(path)
        raise


# --- How a sentence is shown ------------------------------------------------------------------

# What a sentence may end in, to be copied: nothing breaks its line.
COMMAND = re.compile(r"(?:python \S*train\.py|mnist-bench [a-z-]+|pip [a-z]+) .*")
HELD = "\0"  # a space of it


def wrapped(text: str, stream: TextIO) -> str:
    """Return text as `stream` shows it: on a terminal broken between words, elsewhere as it is."""
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    held = COMMAND.sub(lambda command: command[0].replace(" ", HELD), text)
    lines = [
        textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
        for line in held.split("\n")
    ]
    return "\n".join(lines).replace(HELD, " ")


def leave(sentence: str) -> NoReturn:
    """End the process with status 1 and a sentence on stderr."""
    sys.exit(wrapped(sentence, sys.stderr))
