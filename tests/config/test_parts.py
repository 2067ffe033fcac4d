"""A `_target_`: what it may name, how it is called, and what happens to the rest."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mnist_bench.config.parts import Part, refuse_unknown_source
from mnist_bench.config.read import read_saved, to_config
from mnist_bench.errors import BenchError, ConfigError

NETS = """
from torch import nn
raise_if_called = 1

class Net(nn.Module):
    def __init__(self, num_classes, width=3):
        super().__init__()
        self.out = nn.Linear(width, num_classes)

def build(num_classes):
    return nn.Linear(1, num_classes)
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module `nets_of_mine`, which can be imported."""
    (tmp_path / "nets_of_mine.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("nets_of_mine", None)
    return tmp_path


def build(target: str, **arguments) -> nn.Module:
    part = Part.of("model", {"_target_": target, **arguments})
    return part.build(nn.Module, {"num_classes": 5}, {"image_shape": (1, 28, 28)})


@pytest.mark.usefixtures("nets")
def test_a_class_is_called_with_its_arguments_and_what_it_takes_of_the_rest() -> None:
    network = build("nets_of_mine.Net", width=7, name="not an argument")
    assert network.out.weight.shape == (5, 7)


def test_a_name_is_an_argument_of_who_takes_it(nets: Path) -> None:
    (nets / "nets_of_mine.py").write_text(f"{NETS}\n\nclass Named(Net):\n{NAMED}")
    sys.modules.pop("nets_of_mine", None)
    assert build("nets_of_mine.Named", name="mine").name == "mine"
    assert build("nets_of_mine.Named").name == "none given"


NAMED = """
    def __init__(self, num_classes, name="none given"):
        super().__init__(num_classes)
        self.name = name
"""


@pytest.mark.usefixtures("nets")
@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("os.system", "not a class that derives from torch.nn.modules.module.Module"),
        ("subprocess.Popen", "not a class that derives"),
        ("nets_of_mine.build", "not a class that derives"),
        ("torch.optim.SGD", "not a class that derives"),
        ("nets_of_mine.Nets", "the module nets_of_mine has no Nets"),
        ("nowhere.Net", "there is no module nowhere"),
        ("Net", "names no module: give module.Net"),
        ("nets of mine.Net", "is not the path of a class"),
        (3, "is not the path of a class"),
    ],
)
def test_what_is_no_class_of_the_right_kind_is_refused(target, said) -> None:
    with pytest.raises(ConfigError, match=said):
        build(target)


@pytest.mark.usefixtures("nets")
def test_arguments_that_it_does_not_take_are_named() -> None:
    with pytest.raises(ConfigError, match=r"widht.*It takes \(num_classes, width\)"):
        build("nets_of_mine.Net", widht=3)


@pytest.mark.parametrize(
    "arguments",
    [{"_partial_": True}, {"layer": {"_target_": "os.system"}}, {"layers": [{"_args_": []}]}],
)
def test_hydras_other_keys_are_refused(arguments) -> None:
    with pytest.raises(ConfigError, match="one class with plain arguments"):
        Part.of("model", {"_target_": "torch.nn.Linear", **arguments})


def test_a_module_that_ends_the_process_is_told_likewise(nets: Path) -> None:
    (nets / "nets_of_mine.py").write_text("import sys; sys.exit(0)")
    sys.modules.pop("nets_of_mine", None)
    with pytest.raises(ConfigError, match=r"cannot be imported: SystemExit: 0"):
        build("nets_of_mine.Net")


def test_a_module_that_fails_is_told_with_its_reason(nets: Path) -> None:
    (nets / "nets_of_mine.py").write_text("import does_not_exist")
    with pytest.raises(ConfigError, match=r"cannot be imported: .*does_not_exist"):
        build("nets_of_mine.Net")


def test_a_saved_part_has_to_be_installed_or_vouched_for(
    nets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Part.of("model", {"_target_": "nets_of_mine.Net"})
    with pytest.raises(ConfigError, match="--config-dir FOLDER"):
        refuse_unknown_source(mine, [])
    refuse_unknown_source(mine, [nets])
    refuse_unknown_source(Part.of("optimizer", {"_target_": "torch.optim.NAdam"}), [])
    ours = Part.of("logger", {"_target_": "mnist_bench.loggers.tensorboard.TensorBoard"})
    monkeypatch.setattr("mnist_bench.config.parts.packages_distributions", dict)
    refuse_unknown_source(ours, [])  # from a folder that is installed nowhere, too
    monkeypatch.undo()
    (nets / "runs").mkdir()  # a namespace package, to Python
    (nets / "runs" / "foreign.py").write_text("raise SystemExit('it was run')")
    for target in ("runs.foreign.Net", "antigravity.Net", "winreg.Net"):
        with pytest.raises(ConfigError, match="not an installed package"):
            refuse_unknown_source(Part.of("model", {"_target_": target}), [nets])


def test_a_saved_configuration_imports_nothing_that_nobody_vouched_for(
    nets: Path, compose_files
) -> None:
    (nets / "nets_of_mine.py").write_text("raise SystemExit('it was run')")
    folder = compose_files(nets / "run", {"_target_": "nets_of_mine.Net"})
    with pytest.raises(ConfigError, match="nets_of_mine is not an installed package"):
        read_saved(folder)
    assert read_saved(folder, [nets]).model.target == "nets_of_mine.Net"


@pytest.fixture
def compose_files():
    """Writes the folder of a run whose model is this mapping."""
    from omegaconf import OmegaConf

    from mnist_bench.config.compose import compose

    def write(folder: Path, model: dict) -> Path:
        composed = OmegaConf.to_container(compose([])[0], enum_to_str=True)
        (folder / ".hydra").mkdir(parents=True)
        OmegaConf.save({**composed, "model": model}, folder / ".hydra" / "config.yaml")
        return folder

    return write


@pytest.mark.parametrize("content", ["", "- 1\n- 2\n", "a: [", "model: 3\n", "\0"])
def test_a_saved_configuration_that_is_damaged_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(content)
    with pytest.raises(BenchError, match=r"config\.yaml is not the configuration of a run"):
        read_saved(tmp_path)


def test_a_key_that_plus_adds_beside_a_schema_is_refused() -> None:
    """It would stand in the records and do nothing."""
    from mnist_bench.config.compose import compose

    for override in ("+trainer.stopping=3", "+model.dropuot=0.9", "+nonsense=1"):
        with pytest.raises(ConfigError, match=rf"{override[1:].partition('=')[0]} is not a key"):
            to_config(compose([override])[0])
    with pytest.raises(ConfigError, match=r"optimizer\._target_ is not a key"):
        to_config(compose(["+optimizer._target_=torch.optim.NAdam"])[0])


def test_an_optimizer_that_needs_a_closure_is_refused() -> None:
    from mnist_bench.training.optimizers import build_optimizer

    weights = [nn.Parameter(torch.zeros(2))]
    lbfgs = Part.of("optimizer", {"_target_": "torch.optim.LBFGS", "lr": 1.0})
    with pytest.raises(ConfigError, match="closure"):
        build_optimizer(lbfgs, weights)
    nadam = Part.of("optimizer", {"_target_": "torch.optim.NAdam", "lr": 0.5, "eps": 1e-3})
    built = build_optimizer(nadam, weights)
    assert (built.defaults["lr"], built.defaults["eps"]) == (0.5, 1e-3)
