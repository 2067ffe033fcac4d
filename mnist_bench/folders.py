"""Where networks that train side by side leave their results: a run's folder for each."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from omegaconf import OmegaConf

from mnist_bench.compose import write_hydra_folder
from mnist_bench.config import TrainConfig, load_config
from mnist_bench.errors import ConfigError


def replica_folders(folder: Path, seed: int, replicas: int) -> list[Path]:
    """The folders of the networks of a run; a single one has the run's own."""
    if replicas == 1:
        return [folder]
    return [folder / f"seed={one}" for one in range(seed, seed + replicas)]


def replica_configs(config: TrainConfig) -> list[TrainConfig]:
    """What each network of a run would be configured with alone."""
    alone = replace(config.trainer, replicas=1)
    seeds = range(config.seed, config.seed + config.trainer.replicas)
    return [replace(config, seed=seed, trainer=alone) for seed in seeds]


def lay_out_replicas(folder: Path, seeds: Iterable[int]) -> None:
    """Make the folder of each seed in that of their run, with the `.hydra` that it would have.

    Raises:
        ConfigError: the folder has runs in it already.
    """
    hidden = folder / ".hydra"
    if taken := next((path for path in folder.glob("seed=*")), None):
        raise ConfigError(f"{taken} is there already: choose another folder, or resume={folder}.")
    for seed in seeds:
        own = folder / f"seed={seed}"
        config = load_config(hidden / "config.yaml")
        config.seed, config.trainer.replicas = seed, 1
        hydra = OmegaConf.load(hidden / "hydra.yaml").hydra
        hydra.run.dir = hydra.runtime.output_dir = str(own)
        others = [
            override
            for override in hydra.overrides.task
            if override.lstrip("+").partition("=")[0] not in ("seed", "trainer.replicas")
        ]
        hydra.overrides.task = [*others, f"seed={seed}"]
        write_hydra_folder(own, config, hydra)
