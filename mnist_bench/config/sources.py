"""Files of the configuration as Hydra reads them: one that cannot be used is named."""

from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource as HydrasSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, ListConfig

from mnist_bench.errors import ConfigError


class FileConfigSource(HydrasSource):
    """Hydra's source of files, which says of none what is wrong with it."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file.

        Raises:
            ConfigError: it is not text, or no mapping of keys to values.
        """
        path = Path(self.path, self._normalize_file_name(config_path))
        try:
            found: ConfigResult = super().load_config(config_path)
            content: Any = found.config
        except UnicodeDecodeError as error:
            raise ConfigError(
                f"{path} is not text in UTF-8 (byte {error.start + 1} is none): save it as that."
            ) from error
        except OSError as error:
            if error.errno is not None:
                raise
            content = None  # a number or so, which OmegaConf refuses
        if content is None or _may_be_text(content):
            content = yaml.safe_load(path.read_text("utf-8"))
        if isinstance(content, dict | DictConfig) or content is None:
            return found
        kind = "a list" if isinstance(content, list | ListConfig) else f"only {content}"
        raise ConfigError(
            f"{path} has to have keys and their values, such as width: 16, in its lines: it is "
            f"{kind}."
        )


def _may_be_text(content: Any) -> bool:
    """Return whether a file may be a line of text: OmegaConf takes that for a key without value."""
    return isinstance(content, DictConfig) and len(content) == 1 and None in content.values()


def register_sources() -> None:
    """Have Hydra read files by this, which does not replace one of this name."""
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = FileConfigSource
