"""What the configuration tells its reader: comments, `--help`, Hydra's errors in one sentence."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf

from mnist_bench.config.compose import compose as compose_text
from mnist_bench.config.explain import REMOVED_CHOICES, explain
from mnist_bench.config.habits import OURS
from mnist_bench.config.help import register_help
from mnist_bench.config.schema import TrainConfig, register_schemas
from mnist_bench.config.walk import leaves
from mnist_bench.errors import ConfigError
from tests.support.config_files import CONF, GROUPS, options

Compose = Callable[..., TrainConfig]

# Group: the files that other files of the group inherit from. Each of their keys has a comment.
BASES = {
    "": ["train"],
    "model": ["mnist_cnn"],
    "data": ["mnist", "image_folder", "npz"],
    "augmentation": ["none"],
    "loss": ["cross_entropy"],
    "logger": ["tensorboard", "wandb"],
    "trainer": ["default"],
    "optimizer": ["adam", "adamw", "sgd", "rmsprop", "adadelta", "muon"],
    "scheduler": ["constant", "cosine", "onecycle", "step"],
}


def commented_keys(path: Path) -> dict[str, bool]:
    """The keys that a file sets at its top level: whether a comment stands above or beside each."""
    lines = path.read_text().splitlines()
    found, group = {}, ""
    for above, line in zip(["", *lines], lines, strict=False):
        if match := re.match(r"(\w+):(.*)", line):
            group = "" if match[2] else match[1]
            found[match[1]] = above.startswith("#") or "#" in match[2]
        elif group == "data" and (match := re.match(r"  (\w+):(.*)", line)):
            found[f"data.{match[1]}"] = above.strip().startswith("#")
    return {key: has for key, has in found.items() if key not in ("defaults", "hydra")}


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group, names in BASES.items() for name in names]
)
def test_every_key_of_a_base_file_has_a_comment(group: str, name: str) -> None:
    keys = commented_keys(CONF / group / f"{name}.yaml")
    assert keys or name == "constant"
    assert [key for key, has_comment in keys.items() if not has_comment] == []


@pytest.mark.parametrize("group", [group for group in BASES if group])
def test_every_other_file_sets_only_keys_that_are_explained_where_it_inherits(group: str) -> None:
    for name in [*options(group), *(f"recipe/{recipe}" for recipe in options(f"{group}/recipe"))]:
        explained, file = set[str](), name
        while file is not None:
            path = CONF / group / f"{file}.yaml"
            explained |= {key for key, has_comment in commented_keys(path).items() if has_comment}
            parents = [d for d in OmegaConf.load(path).get("defaults", []) if isinstance(d, str)]
            parents = [d.removeprefix(f"/{group}/").removesuffix("@_here_") for d in parents]
            file = next((parent for parent in parents if parent != "_self_"), None)
        assert set(commented_keys(CONF / group / f"{name}.yaml")) <= explained, name


@pytest.mark.parametrize(
    "path", sorted((CONF / "experiment").rglob("*.yaml")), ids=lambda path: path.stem
)
def test_every_key_of_an_experiment_is_explained_in_the_base_files(path: Path) -> None:
    explained = {
        f"{group}.{key}".lstrip(".")
        for group, names in BASES.items()
        for base in names
        for key in commented_keys(CONF / group / f"{base}.yaml")
    }
    experiment = OmegaConf.to_container(OmegaConf.load(path))
    del experiment["defaults"]
    for key, value in experiment.items():
        keys = {f"{key}.{inner}" for inner in value} if isinstance(value, dict) else {key}
        assert keys <= explained


@pytest.mark.parametrize(
    "path", sorted(CONF.glob("*/**/*.yaml")), ids=lambda p: str(p.relative_to(CONF))
)
def test_every_file_says_what_it_is(path: Path) -> None:
    assert path.read_text().startswith("# ")


def test_help_names_every_choice_of_every_group_and_nothing_else() -> None:
    register_schemas()
    register_help()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        hydra = hydra_compose("train", return_hydra_config=True).hydra
        lines = hydra.help.template.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("Groups:")) + 2
    named: dict[str, list[str]] = {}
    for line in lines[at : lines.index("", at)]:
        assert len(line) <= 100
        words = line.split()
        if re.match(r" {1,4}\S", line):
            named[words.pop(0)] = own = []
        own += words
    assert named == {group: options(group) for group in GROUPS}
    # The spaces of `mnist-bench search` are no group.
    assert {path.name for path in CONF.iterdir() if path.is_dir()} == {*GROUPS, "search"}


# --- Hydra's errors in one sentence -----------------------------------------------------------


def explanation(compose: Compose, override: str) -> str:
    with pytest.raises(HydraException) as error:
        compose(override)
    return explain(error.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.epoch=3", ["trainer.epoch is not", "did you mean trainer.epochs?"]),
        ("modle.dropout=0", ["modle.dropout is not", "give model.dropout."]),
        ("optimizer.learning_rate=1", ["optimizer.learning_rate is not", "give optimizer.lr."]),
        ("nonsense=1", ["nonsense is not a key", "--cfg job"]),
        ("trainer.epochs=many", ["trainer.epochs=many", "Integer"]),
        ("trainer.epochs=1.5", ["trainer.epochs=1.5", "Integer"]),
        ("trainer.epochs=null", ["trainer.epochs=null"]),
        ("trainer.cuda_graphs=maybe", ["trainer.cuda_graphs=maybe", "bool"]),
        ("model.channels=32", ["model.channels=32"]),
        ("loss=mse", ["loss=mse", "binary_cross_entropy, cross_entropy"]),
        ("data.scaling=full", ["data.scaling=full", "unit, standardised, raw"]),
        ("epochs", ["epochs is not a setting: give KEY=VALUE"]),
        ("model.widht=3", ["model.widht is not a key", "--cfg job lists them all."]),
        ("seeds=3", ["seeds is not", "did you mean seed?"]),
        ("modle=vgg16", ["modle is not", "did you mean model?"]),
        ("model.batchsize=3", ["model.batchsize is not", "did you mean trainer.batch_size?"]),
        ("model.lr=1", ["model.lr is not", "give optimizer.lr."]),
        ("trainer.patience=1", ["trainer.patience is not", "give trainer.early_stopping."]),
        ("max_epochs=1", ["max_epochs is not", "give trainer.epochs."]),
        ("trainer.accelerator=gpu", ["give trainer.gpus=1 for a GPU, 0 for the CPU."]),
        ("data.num_workers=4", ["data.num_workers is not", "images lie in memory"]),
        ("optimizer.momentum=1", ["not a key of adam: sgd, rmsprop and muon have it."]),
        ("momentum=1", ["momentum is not", "give optimizer.momentum, which sgd, rmsprop and muon"]),
        ("scheduler.foo=1", ["scheduler.foo is not a key", "scheduler has final_factor."]),
        ("data.root=/tmp/данные", ["cannot be read", """'data.root="/tmp/данные"'"""]),
        ("data.root=a=b", ["cannot be read", """'data.root="a=b"'"""]),
        ("model.channels=[32,64", ["has [ and ] that do not match"]),
        ("hydra.sweeper.params={seed:3}", ["give it as +hydra.sweeper.params=VALUE."]),
        ("hydra/launcher=ray", ["needs a plugin", "pip install hydra-ray-launcher"]),
        ("hydra/launcher=foo", ["hydra/launcher=foo is not there: choose one of basic"]),
        ("optimizer=recipe/foo", ["optimizer=recipe/foo is not there: choose one of "]),
    ],
)
def test_hydras_refusal_is_explained_in_one_line(
    compose: Compose, override: str, said: list[str]
) -> None:
    explained = explanation(compose, override)
    assert "\n" not in explained
    for words in said:
        assert words in explained


def test_the_plugin_of_an_extra_of_ours_is_offered_by_that() -> None:
    missing = MissingConfigException("", "hydra/launcher/joblib", ["basic"])
    assert explain(missing).endswith("not installed: pip install 'mnist-bench[joblib]'")


@pytest.mark.parametrize("group", GROUPS)
def test_an_unknown_choice_is_answered_with_the_choices(compose: Compose, group: str) -> None:
    explained = explanation(compose, f"{group}=nothing")
    assert f"{group}=nothing is not there" in explained
    choices = ", ".join(options(group))
    assert explained.endswith(f"choose one of {choices}, or give --config-dir for your own.")


@pytest.mark.parametrize("choice", REMOVED_CHOICES)
def test_a_choice_of_an_earlier_version_is_answered_with_what_to_give(
    compose: Compose, choice: str
) -> None:
    instead = REMOVED_CHOICES[choice]
    assert explanation(compose, choice) == f"{choice} is not a choice any more: give {instead}."
    group, _, name = choice.partition("=")
    config = getattr(compose(*instead.split()), group)
    assert name.startswith((config.name, f"keras_{config.name}"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("_target_: my_nets.TinyNet\nwidth: 16\n\tdepth: 2\n", "YAML wants spaces there."),
        ("_target_: my_nets.TinyNet\nwidth: 16\nwidth: 8\n", "found duplicate key width."),
    ],
)
def test_a_file_of_ones_own_that_is_no_yaml_is_named_with_the_line(
    tmp_path: Path, content: str, said: str
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tiny.yaml").write_text(content)
    with pytest.raises(ConfigError) as refusal:
        compose_text(["model=tiny", f"hydra.searchpath=[{tmp_path}]"])
    sentence = str(refusal.value)
    assert sentence.startswith(f"{tmp_path}/model/tiny.yaml, line 3, is not YAML")
    assert sentence.endswith(said) and "\n" not in sentence


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"- width: 16\n", "it is a list."),
        (b"my_nets.TinyNet\n", "it is only my_nets.TinyNet."),
        (b"16\n", "it is only 16."),
        ("# Größe\nwidth: 16\n".encode("latin-1"), "is not text in UTF-8 (byte 5 is none)"),
    ],
)
def test_a_file_of_ones_own_that_has_no_keys_is_named(
    tmp_path: Path, content: bytes, said: str
) -> None:
    for group in ("model", "experiment"):
        file = tmp_path / group / "tiny.yaml"
        file.parent.mkdir()
        file.write_bytes(content)
        with pytest.raises(ConfigError) as refusal:
            compose_text([f"{group}=tiny", f"hydra.searchpath=[{tmp_path}]"])
        sentence = str(refusal.value)
        assert sentence.startswith(f"{file} ") and said in sentence and "\n" not in sentence


@pytest.mark.parametrize("content", ["", "# to come\n", "resume:\n", "seed: 3\n"])
def test_one_that_has_none_yet_is_read(tmp_path: Path, content: str) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "tiny.yaml").write_text(f"# @package _global_\n{content}")
    compose_text(["experiment=tiny", f"hydra.searchpath=[{tmp_path}]"])


@pytest.mark.parametrize("ours", OURS)
def test_what_is_offered_for_a_name_of_another_tool_can_be_set(compose: Compose, ours: str) -> None:
    key = ours.partition("=")[0]
    known = {leaf.key for leaf in leaves(compose())} | {"optimizer.momentum"} | {*GROUPS}
    assert key in known or key == "hydra.run.dir"


def test_a_key_of_ones_own_part_is_held_against_what_that_has(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tiny.yaml").write_text("_target_: my_nets.TinyNet\nwidth: 16\n")
    for override, said in (
        ("model.widht=8", "did you mean model.width?"),
        ("model.dropout=0.5", "model has width."),
    ):
        with pytest.raises(ConfigError, match=re.escape(said)):
            compose_text(["model=tiny", f"hydra.searchpath=[{tmp_path}]", override])


def test_a_key_that_is_added_beside_those_there_are_is_answered_likewise(compose: Compose) -> None:
    with pytest.raises(ConfigError, match=r"trainer.patience is not .*: give trainer.early_stopp"):
        compose("+trainer.patience=3")


def test_help_is_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    register_schemas()
    register_help()
    for width in (60, 80):
        monkeypatch.setenv("COLUMNS", str(width))
        with initialize_config_dir(str(CONF), version_base="1.3"):
            template = hydra_compose("train", return_hydra_config=True).hydra.help.template
        at = template.index("Groups:"), template.index("Values:")
        assert max(map(len, template[slice(*at)].splitlines()[2:])) in range(width - 20, width + 1)
        assert max(map(len, template.splitlines())) <= 80


def test_a_key_of_another_optimizer_is_not_offered_as_its_own_correction(compose: Compose) -> None:
    assert "did you mean optimizer.nesterov" not in explanation(compose, "optimizer.nesterov=true")
