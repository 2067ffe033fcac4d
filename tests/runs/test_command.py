"""`.hydra`, which a run writes itself: its settings as Hydra would write them."""

from omegaconf import OmegaConf

from mnist_bench.runs.folder import RunFolder
from mnist_bench.runs.records import write_command

# Texts that YAML, or OmegaConf, would take for something else if they were not quoted.
TEXTS = ["1e3", "007", "true", "no", "null", "~", "1:30", ".inf", "", " a", "x: y", "# z", "ä\n"]


def test_settings_are_read_back_as_they_were(tmp_path):
    config = OmegaConf.create(
        {"texts": TEXTS, "numbers": [1, 1e-8, 1e3, True, None], "nested": {"empty": {}, "1": [[]]}}
    )
    hydra = OmegaConf.create({"hydra": {"overrides": {"task": ["data.root='a b'", "x=${y}"]}}})
    folder = RunFolder(tmp_path)
    write_command(folder, config, hydra)
    for name, content in (("config", config), ("hydra", hydra)):
        written = folder.hydra.with_name(f"{name}.yaml").read_text("utf-8")
        assert written == OmegaConf.to_yaml(content)
        assert OmegaConf.create(written) == content
    assert OmegaConf.load(folder.hydra.with_name("overrides.yaml")) == hydra.hydra.overrides.task


def test_references_become_what_they_refer_to_but_for_the_environment(tmp_path):
    config = OmegaConf.create(
        {
            "seed": 3,
            "model": {"copy": "${seed}", "group": "${other}", "text": "seed-${seed}"},
            "other": {"lr": "${seed}"},
            "root": "${oc.env:HOME}/${seed}",
        }
    )
    write_command(
        RunFolder(tmp_path), config, OmegaConf.create({"hydra": {"overrides": {"task": []}}})
    )
    written = OmegaConf.to_container(OmegaConf.load(RunFolder(tmp_path).config))
    assert written == {
        "seed": 3,
        "model": {"copy": 3, "group": {"lr": 3}, "text": "seed-3"},
        "other": {"lr": 3},
        "root": "${oc.env:HOME}/${seed}",
    }
