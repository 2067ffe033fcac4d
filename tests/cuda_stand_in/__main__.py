"""Run a Python program over the stand-in: `python -m tests.cuda_stand_in train.py ARGUMENTS`."""

import os
import sys

from .build import environment


def main() -> None:
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.exit("Usage: python -m tests.cuda_stand_in SCRIPT|-m MODULE|-c CODE [ARGUMENTS]...")
    try:
        variables = environment()
    except RuntimeError as error:
        sys.exit(str(error))
    os.execve(sys.executable, [sys.executable, *arguments], variables)


if __name__ == "__main__":
    main()
