"""What a run is known by: the role of every setting, and the digest of those that decide."""

from fnmatch import fnmatchcase
from functools import cache

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir

from mnist_bench.config.identity import ROLES, Role, computed, digest, identity, role
from mnist_bench.config.read import to_config
from mnist_bench.config.schema import register_schemas
from mnist_bench.config.walk import flatten
from tests.support.config_files import CONF, options

# What has no default.
NEEDED = {"image_folder": ["data.root=a"], "npz": ["data.path=a"]}


@cache
def keys() -> list[str]:
    """Every setting that any choice of a file brings."""
    register_schemas()
    found = set()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for group in ("model", "optimizer", "scheduler", "data", "augmentation", "loss", "logger"):
            for choice in options(group):
                needed = NEEDED.get(choice, [])
                composed = hydra_compose("train", [f"{group}={choice}", *needed])
                found |= flatten(to_config(composed)).keys()
    return sorted(found)


def test_every_setting_has_a_role_and_every_role_a_setting() -> None:
    patterns = [pattern for pattern, _ in ROLES]
    for key in keys():
        assert any(fnmatchcase(key, pattern) for pattern in patterns), key
    used = {next(p for p in patterns if fnmatchcase(key, p)) for key in keys()}
    assert set(patterns) - used == {"logger"}  # as a command line chooses it


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trainer.epochs=9", Role.resumable),
        ("trainer.early_stopping=2", Role.resumable),
        ("trainer.save_every=3", Role.ignored),
        ("trainer.max_seconds=60", Role.ignored),
        ("data.root=elsewhere", Role.ignored),
        ("model.name=another", Role.ignored),
        ("logger=none", Role.ignored),
        ("seed=1", Role.identity),
        ("model.dropout=0.1", Role.identity),
        ("data.scaling=raw", Role.identity),
        ("trainer.precision=bf16", Role.identity),
        ("optimizer=sgd", Role.identity),
        ("loss=binary_cross_entropy", Role.identity),
    ],
)
def test_the_digest_changes_with_what_decides(compose, override, expected) -> None:
    before, after = compose(), compose(override)
    assert role(override.partition("=")[0]) is expected
    same = digest(identity(flatten(before))) == digest(identity(flatten(after)))
    assert same is (expected is not Role.identity)
    same = digest(computed(flatten(before))) == digest(computed(flatten(after)))
    assert same is (expected is Role.ignored)


def test_the_order_of_overrides_does_not_matter(compose) -> None:
    one = compose("seed=1", "model.dropout=0.1", "optimizer=sgd")
    other = compose("optimizer=sgd", "model.dropout=0.1", "seed=1")
    assert digest(computed(flatten(one))) == digest(computed(flatten(other)))
