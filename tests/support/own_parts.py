"""The files of docs/extending.md, as its reader would write them."""

import re
from pathlib import Path

from tests.support.train_command import REPOSITORY

PAGE = REPOSITORY / "docs" / "extending.md"
BLOCK = re.compile(r"`(mine/[\w/.]+)`(?:, further on)?:\n\n```\w+\n(.*?)```", re.S)


def write_own_parts(folder: Path) -> None:
    """Write every file that the page shows into `folder`, those of one name one after the other."""
    for name, content in BLOCK.findall(PAGE.read_text()):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a") as opened:
            opened.write(content + "\n\n")
