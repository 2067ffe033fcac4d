"""What `--help` fills into its template in `conf/train.yaml`: `${program:}` and `${choices:}`."""

import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterable

from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import OmegaConf

# A line is as wide as the terminal, but no wider than people read.
WIDEST = 100
# Groups of Hydra's own, of our dataclasses, and what `mnist-bench search` reads.
NOT_TO_CHOOSE = {"hydra", "schema", "search"}


def register_help() -> None:
    """Make both known to OmegaConf."""
    OmegaConf.register_new_resolver("program", name_program, replace=True)
    OmegaConf.register_new_resolver("choices", describe_choices, replace=True)


def name_program() -> str:
    """Return how this process was started."""
    return "python train.py" if sys.argv[0].endswith("train.py") else "mnist-bench train"


def begin_command(config_dirs: Iterable[str]) -> list[str]:
    """Return how a command begins that goes on with what this one did, quoted for the shell.

    `config_dirs` are the folders whose classes this one was allowed to use.
    """
    program = name_program()
    if program == "python train.py":  # from wherever it was called
        program = f"python {shlex.quote(sys.argv[0])}"
    return [program, *(f"--config-dir {shlex.quote(path)}" for path in config_dirs)]


def describe_choices() -> str:
    """Return every group with its choices as Hydra finds them, those of --config-dir included.

    A choice within a folder of a group, such as optimizer=recipe/vgg16, belongs to an experiment
    and is left out.
    """
    loader = GlobalHydra.instance().config_loader()
    groups = sorted(set(loader.list_groups("")) - NOT_TO_CHOOSE)
    indent = max(map(len, groups)) + 2
    width = min(shutil.get_terminal_size().columns, WIDEST)
    return "\n".join(
        textwrap.fill(
            "  ".join(loader.get_group_options(group, ObjectType.CONFIG)),
            width,
            initial_indent="  " + group.ljust(indent),
            subsequent_indent=" " * (indent + 2),
            break_on_hyphens=False,
            break_long_words=False,
        )
        for group in groups
    )
