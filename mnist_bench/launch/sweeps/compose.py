"""Composing the jobs of a sweep for Hydra's launchers: each combination of files once."""

import copy
from typing import Any, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


def find_launcher(
    context: HydraContext, task_function: TaskFunction, config: DictConfig
) -> Launcher:
    """Return the launcher that is configured, which composes its jobs by a JobLoader."""
    loader = cast(ConfigLoader, JobLoader(context.config_loader))
    return Plugins.instance().instantiate_launcher(
        hydra_context=HydraContext(loader, context.callbacks),
        task_function=task_function,
        config=config,
    )


class JobLoader:
    """A config loader of Hydra's that sets values on what it has composed before.

    Hydra reads and merges every file anew for each job, which takes longer than a small training.
    All other questions go to the loader that it stands for.
    """

    def __init__(self, loader: Any):
        self.loader = loader
        self.composed: dict[tuple[str, ...], DictConfig] = {}

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # asked for while it is unpickled
            raise AttributeError(name)
        return getattr(self.loader, name)

    def load_sweep_config(
        self, master_config: DictConfig, sweep_overrides: list[str]
    ) -> DictConfig:
        """Return what Hydra's loader would: `master_config` with the overrides of a job."""
        overrides = OverridesParser.create(config_loader=self.loader).parse_overrides(
            sweep_overrides
        )
        values = [override for override in overrides if self._sets_a_value(override)]
        files = [str(o.input_line) for o in overrides if o not in values]
        key = (*map(str, master_config.hydra.overrides.hydra), *files)
        if key not in self.composed:
            self.composed[key] = self.loader.load_sweep_config(master_config, files)
        job = copy.deepcopy(self.composed[key])
        ConfigLoaderImpl._apply_overrides_to_config(values, job)
        own = [override for override in overrides if not override.is_hydra_override()]
        of_hydra = [str(o.input_line) for o in overrides if o.is_hydra_override() and o in values]
        job.hydra.overrides.hydra.extend(of_hydra)
        job.hydra.overrides.task = [override.input_line for override in own]
        job.hydra.job.override_dirname = get_overrides_dirname(
            overrides=own,
            kv_sep=job.hydra.job.config.override_dirname.kv_sep,
            item_sep=job.hydra.job.config.override_dirname.item_sep,
            exclude_keys=job.hydra.job.config.override_dirname.exclude_keys,
        )
        OmegaConf.copy_cache(from_config=master_config, to_config=job)
        return job

    def _sets_a_value(self, override: Override) -> bool:
        """Return whether it changes one setting, and not which files are read, or from where."""
        is_group = self.loader.repository.group_exists(override.key_or_group)
        return not is_group and override.key_or_group != "hydra.searchpath"
