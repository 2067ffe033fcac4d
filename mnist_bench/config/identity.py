"""What a run computes, by its configuration: which settings decide it, and their digest."""

import hashlib
import json
from collections.abc import Mapping
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any

from mnist_bench.config.parts import TARGET


class Role(Enum):
    """What a setting is to a run."""

    identity = "decides what is computed, and cannot change when the run is resumed"
    resumable = "decides what is computed, and can change when the run is resumed"
    ignored = "changes nothing that is computed, and can change when the run is resumed"


# The first pattern that a key matches says its role.
ROLES: list[tuple[str, Role]] = [
    ("trainer.epochs", Role.resumable),
    ("trainer.early_stopping", Role.resumable),
    # What a part is called, and where its files are.
    ("model.name", Role.ignored),
    ("model.adam_lr", Role.ignored),  # optimizer.lr has it, where it counts
    ("data.root", Role.ignored),
    ("logger", Role.ignored),
    ("logger.*", Role.ignored),
    # Where it is computed. Devices differ in rounding, as their kernels do; both are on the record.
    ("trainer.gpus", Role.ignored),
    ("trainer.refresh_seconds", Role.ignored),
    ("trainer.save_every", Role.ignored),
    ("trainer.figures", Role.ignored),
    ("trainer.max_seconds", Role.ignored),
    ("sweep.*", Role.ignored),
    ("resume", Role.ignored),
    ("model.*", Role.identity),
    ("optimizer.*", Role.identity),
    ("scheduler.*", Role.identity),
    ("data.*", Role.identity),
    ("augmentation.*", Role.identity),
    ("loss.*", Role.identity),
    ("trainer.*", Role.identity),
    ("seed", Role.identity),
    ("label_smoothing", Role.identity),
    ("imported_from", Role.identity),
]


def role(key: str, own_data: bool = False) -> Role:
    """Return the role of a setting, named by its dotted key.

    With `own_data` it is of images whose content only their place tells: `data.root` is theirs.
    """
    if own_data and key == "data.root":
        return Role.identity
    roles = (role for pattern, role in ROLES if fnmatchcase(key, pattern))
    return next(roles, Role.identity)


def identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a configuration's settings (`flatten`) that a checkpoint of it belongs to."""
    return _with_roles(settings, {Role.identity})


def computed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those that decide what a run computes from beginning to end."""
    return _with_roles(settings, {Role.identity, Role.resumable})


def _with_roles(settings: Mapping[str, Any], roles: set[Role]) -> dict[str, Any]:
    own = [key.removesuffix(TARGET) for key in settings if key.endswith(f".{TARGET}")]
    names = {f"{group}name" for group in own}  # what parts of the user's own are called
    own_data = "data." in own
    return {k: v for k, v in settings.items() if k not in names and role(k, own_data) in roles}


def digest(settings: dict[str, Any]) -> str:
    """Return the sha256 of settings, whatever their order: 64 hexadecimal digits."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def changeable() -> list[str]:
    """Return the settings that can change when a run is resumed, for those who ask."""
    return [key for key, role in ROLES if role is not Role.identity and key not in NOT_FOR_USERS]


# Of those, what nobody would set: names, what resuming itself sets, and what is of sweeps.
NOT_FOR_USERS = {"model.name", "model.adam_lr", "logger.*", "resume", "sweep.*"}
