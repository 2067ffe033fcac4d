"""The configuration: published recipes, which choice wins, what is refused, what is saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from mnist_bench.config.compose import compose as compose_text
from mnist_bench.config.read import load_config, to_config
from mnist_bench.config.schema import (
    AdadeltaConfig,
    AdamConfig,
    MuonConfig,
    OneCycleConfig,
    RMSpropConfig,
    SGDConfig,
    TrainConfig,
)
from mnist_bench.errors import ConfigError
from tests.support.config_files import CONF, options

Compose = Callable[..., TrainConfig]
# --- The published recipes --------------------------------------------------------------------

KERAS_ADAM = (
    AdamConfig,
    {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-7, "epsilon_hat": True, "weight_decay": 0},
)
KERAS_ADADELTA = (AdadeltaConfig, {"lr": 1.0, "rho": 0.95, "eps": 1e-7, "weight_decay": 0})
VGG_RMSPROP = (
    RMSpropConfig,
    {"lr": 1e-4, "alpha": 0.9, "eps": 1e-7, "momentum": 0, "weight_decay": 0},
)
NOTEBOOK_003 = ("cross_entropy", "unit", 500, 20, "first", 5000, "test")
TWELVE_EPOCHS = ("cross_entropy", "unit", 128, 12, None, 0, "test")
# Optimizer; loss, scaling, batch, epochs, held out from where, how many, validation.
RECIPES: dict[str, tuple[tuple[type, dict[str, Any]], tuple[Any, ...]]] = {
    "vgg16": (
        VGG_RMSPROP,
        ("binary_cross_entropy", "raw", 128, 50, "last", 0.25, "holdout"),
    ),
    "conv3_dense7744": (KERAS_ADAM, ("cross_entropy", "unit", 32, 5, None, 0, "test")),
    "mnist_cnn": (KERAS_ADADELTA, TWELVE_EPOCHS),
    "cnn3x3": (KERAS_ADAM, NOTEBOOK_003),
    "cnn5x5": (KERAS_ADAM, NOTEBOOK_003),
    "cnn5x5_single": (KERAS_ADAM, NOTEBOOK_003),
    "wide3x3": (KERAS_ADADELTA, TWELVE_EPOCHS),
    "wide3x5_bn": (KERAS_ADADELTA, TWELVE_EPOCHS),
    "wide5x7_bn": (KERAS_ADADELTA, TWELVE_EPOCHS),
}


WITHOUT_DROPOUT = ("cnn3x3", "cnn5x5", "cnn5x5_single")


def test_every_published_recipe_has_an_experiment() -> None:
    variants = [f"{name}_no_dropout" for name in WITHOUT_DROPOUT]
    records = ["accuracy", "speedrun"]
    assert options("experiment") == sorted([*RECIPES, *variants, *records])


@pytest.mark.parametrize("name", WITHOUT_DROPOUT)
def test_a_variant_without_dropout_differs_in_nothing_else(compose: Compose, name: str) -> None:
    variant, recipe = compose(f"experiment={name}_no_dropout"), compose(f"experiment={name}")
    assert variant.model.dropout == 0
    variant.model.dropout = recipe.model.dropout
    assert variant == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_experiment_is_the_published_recipe(compose: Compose, name: str) -> None:
    (optimizer_class, hyperparameters), recipe = RECIPES[name]
    loss, scaling, batch_size, epochs, held_out_from, holdout_size, validation = recipe
    config = compose(f"experiment={name}")
    assert config.model == compose(f"model={name}").model
    assert type(config.optimizer) is optimizer_class
    for key, value in hyperparameters.items():
        found = getattr(config.optimizer, key)
        assert (list(found) if key == "betas" else found) == value, key
    assert config.scheduler.name == "constant"
    assert config.loss.name.name == loss
    data, trainer = config.data, config.trainer
    assert (data.name, data.limit) == ("mnist", None)
    assert (data.scaling.name, data.validation.name) == (scaling, validation)
    assert data.holdout_size == holdout_size
    assert held_out_from in (None, data.holdout_from.name)
    assert (trainer.batch_size, trainer.epochs) == (batch_size, epochs)
    assert (trainer.precision.name, trainer.clip_norm) == ("fp32", None)
    assert trainer.test_weights.name in ("auto", "last")
    assert validation == "test" or trainer.test_weights.name == "last"


# --- Which choice wins ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "rate"),
    [
        ((), 3e-3),
        (("model=vgg16",), 1e-4),
        (("optimizer=adam", "model=vgg16"), 1e-4),
        (("model=conv3_dense7744",), 1e-3),
        (("model=wide5x7_bn",), 1e-3),
        (("model=cnn5x5_single",), 3e-3),
        (("model=simple7x7",), 3e-3),
        (("experiment=accuracy",), 1e-3),
        (("model=vgg16", "optimizer=keras_adam"), 1e-3),  # Keras's own
        (("model=vgg16", "optimizer.lr=0.5"), 0.5),
        (("model=vgg16", "model.adam_lr=0.5"), 0.5),
    ],
)
def test_adam_trains_at_the_rate_that_the_network_states(
    compose: Compose, overrides: tuple[str, ...], rate: float
) -> None:
    optimizer = compose(*overrides).optimizer
    assert isinstance(optimizer, AdamConfig)
    assert optimizer.lr == rate
    assert optimizer.epsilon_hat == ("optimizer=keras_adam" in overrides)


def test_speedrun_trains_by_muon_and_one_cycle_of_its_own(compose: Compose) -> None:
    config = compose("experiment=speedrun")
    assert config.optimizer == MuonConfig(
        lr=0.1,
        weight_decay=0.1,
        momentum=0.8,
        iterations=3,
        adam_lr_ratio=0.1,
        betas=config.optimizer.betas,
        eps=1e-8,
    )
    assert list(config.optimizer.betas) == [0.7, 0.9]
    assert config.scheduler == OneCycleConfig(
        warmup_fraction=0.15, div_factor=25, final_div_factor=1e4
    )
    plain = compose("experiment=speedrun", "optimizer=muon", "scheduler=onecycle")
    assert (plain.optimizer.weight_decay, plain.optimizer.iterations) == (0, 5)
    assert plain.scheduler.warmup_fraction == 0.3


@pytest.mark.parametrize(
    "overrides",
    [
        ("optimizer=sgd",),
        ("model=vgg16", "optimizer=sgd"),
        ("optimizer=sgd", "model=vgg16"),
        ("experiment=wide3x3", "optimizer=sgd"),
        ("experiment=vgg16", "optimizer=sgd"),
        ("experiment=speedrun", "optimizer=sgd"),
        ("experiment=accuracy", "optimizer=sgd"),
    ],
)
def test_an_optimizer_on_the_command_line_wins_with_its_own_rate(
    compose: Compose, overrides: tuple[str, ...]
) -> None:
    optimizer = compose(*overrides).optimizer
    assert type(optimizer) is SGDConfig
    assert (optimizer.lr, optimizer.momentum) == (0.05, 0.9)


def test_values_on_the_command_line_win_over_an_experiment(compose: Compose) -> None:
    config = compose(
        "experiment=cnn3x3", "trainer.epochs=2", "optimizer.lr=0.5", "model=wide3x3", "seed=7"
    )
    assert (config.trainer.epochs, config.optimizer.lr, config.seed) == (2, 0.5, 7)
    assert config.model.name == "wide3x3"
    assert config.trainer.batch_size == 500


@pytest.mark.parametrize("name", options("model"))
def test_every_model_is_named_after_its_file(compose: Compose, name: str) -> None:
    assert compose(f"model={name}").model.name == name


@pytest.mark.parametrize("name", options("data"))
def test_every_dataset_is_named_after_its_file(name: str) -> None:
    overrides = {"image_folder": ["data.root=a"], "npz": ["data.path=a"]}.get(name, [])
    choices = {"data": name}
    assert to_config(compose_text([f"data={name}", *overrides])[0], choices).data.name == name


# --- What is refused --------------------------------------------------------------------------

OUT_OF_RANGE = [
    "seed=-1",
    "seed=4294967296",
    "trainer.epochs=0",
    "trainer.batch_size=0",
    "trainer.batch_size=-128",
    "trainer.gpus=-1",
    "trainer.gpus=all",
    "trainer.clip_norm=0.0",
    "trainer.clip_norm=-1.0",
    "trainer.refresh_seconds=0.0",
    "trainer.save_every=-1",
    "trainer.max_seconds=0.0",
    "data.holdout_size=-1",
    "data.holdout_size=1.0",
    "data.holdout_size=1.5",
    "data.holdout_size=-0.1",
    "data.limit=0",
    "data.image_size=0",
    "data.image_size=[28]",
    "data.image_size=[28,0]",
    "data.image_size=28.0",
    "augmentation.crop=-1",
    "data.limit=-5",
    "model.channels=[32,0]",
    "model.kernel_size=0",
    "model.kernel_size=3.0",
    "model.kernel_size=three",
    "model.kernel_size=[3,0]",
    "model.pool_after=[0]",
    "model.dense=[0]",
    "model.dropout=1",
    "model.dropout=1.0",
    "model.dropout=-0.1",
    "model.dropout=[0.25,1.5]",
    "model.dropout=true",
    "optimizer.lr=0.0",
    "optimizer.lr=-0.1",
    "optimizer.lr=inf",
    "optimizer.lr=nan",
    "optimizer.weight_decay=-0.1",
    "optimizer.betas=[0.9,1.0]",
    "optimizer.betas=[-0.1,0.9]",
    "optimizer.betas=[0.9]",
    "optimizer.betas=[0.9,0.99,0.999]",
    "optimizer.eps=-1.0",
    "optimizer=adamw optimizer.betas=[0.9]",
    "optimizer=sgd optimizer.momentum=1.0",
    "optimizer=sgd optimizer.momentum=-0.5",
    "optimizer=rmsprop optimizer.alpha=1.0",
    "optimizer=rmsprop optimizer.momentum=1.0",
    "optimizer=adadelta optimizer.rho=1.0",
    "optimizer=adadelta optimizer.eps=-1e-06",
    "scheduler=cosine scheduler.final_factor=1.0",
    "scheduler=cosine scheduler.final_factor=-0.1",
    "scheduler=onecycle scheduler.warmup_fraction=0.0",
    "scheduler=onecycle scheduler.warmup_fraction=1.0",
    "scheduler=onecycle scheduler.div_factor=0.5",
    "scheduler=onecycle scheduler.final_div_factor=0.5",
    "scheduler=step scheduler.step_size=0",
    "scheduler=step scheduler.gamma=0.0",
    "scheduler=step scheduler.gamma=1.5",
]


@pytest.mark.parametrize("overrides", OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused_by_key_and_value(compose: Compose, overrides: str) -> None:
    key, _, value = overrides.split()[-1].partition("=")
    with pytest.raises(ConfigError) as refusal:
        compose(*overrides.split())
    said = str(refusal.value)
    assert "\n" not in said
    refused = said.lower().replace(", ", ",")
    assert refused.startswith(f"{key}={value} is not allowed: it must be ")


@pytest.mark.parametrize(
    "override",
    [
        "seed=4294967295",
        "trainer.gpus=0",
        "trainer.gpus=2",
        "trainer.clip_norm=0.5",
        "data.holdout_size=0.999",
        "data.limit=1",
        "data.image_size=1",
        "data.image_size=[1,2]",
        "augmentation.crop=0",
        "model.dropout=0.999",
        "model.channels=[]",
        "model.dense=[]",
        "optimizer.eps=0",
        "optimizer.betas=[0,0]",
    ],
)
def test_a_value_at_the_edge_of_its_range_is_accepted(compose: Compose, override: str) -> None:
    compose(override)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["data.validation=test", "trainer.test_weights=best"],
            ["data.validation=test", "trainer.test_weights=best", "trainer.test_weights=last"],
        ),
        (
            ["optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=true"],
            ["optimizer.nesterov=true", "optimizer.momentum"],
        ),
    ],
)
def test_contradictions_are_refused_by_both_keys(
    compose: Compose, overrides: list[str], said: list[str]
) -> None:
    with pytest.raises(ConfigError) as refusal:
        compose(*overrides)
    for words in said:
        assert words in str(refusal.value)


@pytest.mark.parametrize(
    "overrides",
    [
        "data.validation=test trainer.test_weights=last",
        "data.validation=test trainer.test_weights=auto",
        "trainer.test_weights=best",
        "optimizer=sgd optimizer.momentum=0",
        "optimizer=sgd optimizer.nesterov=true",
    ],
)
def test_neighbours_of_a_contradiction_are_accepted(compose: Compose, overrides: str) -> None:
    compose(*overrides.split())


@pytest.mark.parametrize("override", ["optimizer.name=sgd", "scheduler.name=step"])
def test_a_name_that_belongs_to_other_settings_is_refused(compose: Compose, override: str) -> None:
    """A run saved so could not be loaded: its keys would be read as another optimizer's."""
    with pytest.raises(ConfigError, match=override.partition("=")[0]):
        compose(override)


# --- Saved and read back ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        *[f"optimizer={name}" for name in options("optimizer")],
        *[f"scheduler={name}" for name in options("scheduler")],
        *[f"experiment={name}" for name in ("vgg16", "wide5x7_bn", "speedrun")],
        "model=vgg16",
        "model.kernel_size=[3,5] model.dropout=0.1 data.holdout_size=0.25 trainer.gpus=0 "
        "trainer.clip_norm=1 data.limit=100 optimizer.betas=[0.5,0.6] resume=elsewhere",
    ],
)
def test_a_saved_configuration_reads_back_as_the_same(
    compose: Compose, tmp_path: Path, overrides: str
) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = hydra_compose("train", overrides.split())
    OmegaConf.save(composed, tmp_path / "config.yaml")  # as Hydra saves it
    again = to_config(load_config(tmp_path / "config.yaml"))
    expected = compose(*overrides.split())
    assert again == expected
    assert type(again.optimizer) is type(expected.optimizer)
    assert type(again.scheduler) is type(expected.scheduler)


def test_a_configuration_saved_before_networks_stated_a_rate_reads_back(tmp_path: Path) -> None:
    composed, _ = compose_text(["optimizer.lr=0.25"])
    config = OmegaConf.to_container(composed, enum_to_str=True)
    del config["model"]["adam_lr"]
    OmegaConf.save(config, tmp_path / "config.yaml")
    assert to_config(load_config(tmp_path / "config.yaml")).optimizer.lr == 0.25


def test_a_saved_configuration_is_checked_when_it_is_read_back(tmp_path: Path) -> None:
    composed, _ = compose_text([])
    composed.optimizer.lr = -1.0
    OmegaConf.save(composed, tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match=r"optimizer\.lr=-1\.0"):
        to_config(load_config(tmp_path / "config.yaml"))
