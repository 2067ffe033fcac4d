"""The errors a user can cause or meet: one clear sentence, shown without a traceback.

Every error pickles, as launchers send them from one process to another.
"""

import re
import shutil
import sys
import textwrap
from typing import NoReturn, TextIO


class BenchError(Exception):
    """Base of every error whose message is written for the user."""


class ConfigError(BenchError):
    """What the user wrote cannot be: names the key, the value and what is allowed."""


class DataError(BenchError):
    """A file does not hold what it should: names the file, what was found and what was expected."""


class TrainingError(BenchError):
    """Training cannot go on, for example because the loss is no longer finite."""


# --- How a sentence is shown ------------------------------------------------------------------

# What a sentence may end in, to be copied: nothing breaks its line.
COMMAND = re.compile(r"(?:python train\.py|mnist-bench [a-z-]+|pip [a-z]+) .*")
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
