"""A command line in any order, and what of it is refused before Hydra reads it."""

import pytest
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

from mnist_bench.config.compose import CONF
from mnist_bench.config.schema import register_schemas
from mnist_bench.errors import ConfigError
from mnist_bench.launch.arguments import arrange, as_typed, release
from mnist_bench.launch.sweeps.plan import plan
from tests.support.train_command import run_train


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("model=cnn3x3 -m seed=0,1", "model=cnn3x3 seed=0,1 -m"),
        ("-m model=cnn3x3 seed=0,1", "model=cnn3x3 seed=0,1 -m"),
        (
            "seed=0 --config-dir mine model=tiny -c job",
            "seed=0 model=tiny --config-dir mine -c job",
        ),
        ("--cfg=job seed=0", "seed=0 --cfg job"),
        ("--multi seed=0,1", "seed=0,1 --multirun"),
        ("--info seed=0", "seed=0 --info"),
        ("--info searchpath seed=0", "seed=0 --info searchpath"),
        ("experiment=null seed=0 sweep=null", "seed=0"),
        ("-sc install=bash", "-sc install=bash"),
    ],
)
def test_options_may_stand_anywhere(given: str, read: str) -> None:
    assert arrange(given.split()) == read.split()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--epochs 3", "--epochs is not an option: give trainer.epochs=3, without dashes."),
        ("--learning-rate=0.1", "give optimizer.lr=0.1, without dashes."),
        ("--model vgg16", "--model is not an option: give model=vgg16, without dashes."),
        ("--trainer.epochs 3", "give trainer.epochs=3, without dashes."),
        ("--seed", "give seed=VALUE, without dashes."),
        ("--nonsense", "settings are given as KEY=VALUE, without dashes, and --help lists them."),
        ("--cfg everything", "--cfg everything is not there: give one of job, hydra, all."),
        ("--cfg", "--cfg needs a value: give one of job, hydra, all."),
        ("seed=0 --config-dir", "--config-dir needs a value: it comes right behind."),
        ("-m seed=0,1 --cfg job", "-m and --cfg do not go together"),
        ("--resolve", "--resolve goes with --cfg job"),
        (
            "optimizer=null",
            "optimizer=null is no choice of optimizer: choose among adadelta, adam,",
        ),
        ("data=null", "data=null is no choice of data: choose among emnist, "),
        ("model=3", "model=3 is no choice of model: "),
        ("-m experiment=null,cnn3x3", "experiment=null,cnn3x3 is no choice of experiment: "),
        (
            "hydra/launcher=null",
            "hydra/launcher=null is no choice of hydra/launcher: leave it out.",
        ),
    ],
)
def test_what_is_no_command_line_is_refused_in_a_sentence(given: str, said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        arrange(given.split())
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "name", ["1e3", "007", "1.10", "true", "NaN", "2026-11-26", "a=b", "kernels"]
)
def test_a_sweep_s_name_is_what_was_typed(name: str) -> None:
    (line,) = arrange([as_typed(f"sweep.name={name}")])
    (override,) = OverridesParser.create().parse_overrides([line])
    assert override.value() == name and isinstance(override.value(), str)


def test_no_name_is_none() -> None:
    for line in ("sweep.name=null", "sweep.name=a,b", "sweep.name='1e3'", "seed=007"):
        assert as_typed(line) == line


GIVEN = ["optimizer=sgd,muon", "optimizer.momentum=0.9", "model.dropout=[0.25,0.5]", "-m"]


def test_settings_of_a_swept_group_are_passed_over_until_one_is_chosen() -> None:
    """As Hydra passes over all that varies, when it composes the configuration of a sweep."""
    arranged = arrange(GIVEN)
    held = [line for line in arranged if line not in GIVEN]
    assert [line.partition("=")[0] for line in held] == ["optimizer.momentum", "model.dropout"]
    assert all(o.is_sweep_override() for o in OverridesParser.create().parse_overrides(held))
    assert release(arranged) == GIVEN


@pytest.mark.parametrize(
    "alone",
    [
        ["seed=0,1", "optimizer.momentum=0.9", "-m"],
        ["optimizer=sgd,muon", "hydra.sweep.dir=x", "sweep.name=y", "seed=3", "-m"],
        ["optimizer=sgd", "optimizer.momentum=0.9"],
    ],
)
def test_other_settings_are_not_held_back(alone: list[str]) -> None:
    assert arrange(alone) == alone


def test_a_key_that_all_swept_choices_have_is_set_for_each(tmp_path, mnist_root) -> None:
    arguments = ("-m", "optimizer=sgd,muon", "optimizer.momentum=0.8", "data.limit=200")
    process = run_train(*arguments, "sweep.dry_run=true", cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 0, process.stderr
    assert "2 of 2 runs are missing" in process.stdout
    register_schemas()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        jobs = plan("train", release(arrange(arguments))[:-1], ["hydra.mode=RUN"]).jobs
    assert [job.settings["optimizer.momentum"] for job in jobs] == [0.8, 0.8]


def test_the_swept_choice_that_lacks_a_key_is_named(tmp_path, mnist_root) -> None:
    arguments = ("-m", "optimizer=sgd,adamw", "optimizer.momentum=0.9")
    process = run_train(*arguments, cwd=tmp_path, data_root=mnist_root)
    assert process.returncode == 1
    assert process.stderr == (
        "optimizer.momentum is not a key of adamw: sgd, rmsprop and muon have it.\n"
    )
