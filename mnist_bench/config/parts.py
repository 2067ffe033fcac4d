"""Parts of a user's own: a class by its import path, and the arguments that it is called with.

Hydra's habit is `_target_`. Here a target is imported, has to be a class of the right kind, and is
only then called: anything else is refused, so that no configuration can run any function there is.
The rooms that call the classes say what kind that is.
"""

import importlib
import inspect
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, TypeVar

from mnist_bench.errors import BenchError, ConfigError

TARGET = "_target_"

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """A class of `group` (a key of the configuration) that is not ours to describe.

    `name` is what results are reported under. It is one of the arguments, too, where the user
    gives it and the class takes it.
    """

    group: str
    target: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    given_name: Any = None

    @classmethod
    def of(cls, group: str, node: Mapping[str, Any], name: str | None = None) -> "Part":
        """Return the part that a plain mapping with a `_target_` describes.

        Raises:
            ConfigError: the target is no path to a class, or Hydra's other keys of this kind are
                there.
        """
        arguments = dict(node)
        target = arguments.pop(TARGET)
        if not isinstance(target, str) or not all(map(str.isidentifier, target.split("."))):
            raise ConfigError(
                f"{group}.{TARGET}={target} is not the path of a class: give module.Class."
            )
        if "." not in target:
            raise ConfigError(
                f"{group}.{TARGET}={target} names no module: give module.{target}, where module.py "
                f"lies in the working directory or beside the folder of --config-dir."
            )
        if special := _find_special(arguments):
            raise ConfigError(
                f"{group}: {special} is not supported: a part is one class with plain arguments."
            )
        given = arguments.pop("name", None)
        own = given or name or target.rpartition(".")[2]
        return cls(group, target, str(own), arguments, given)

    def find(self, kind: type[T]) -> type[T]:
        """Import the class and return it.

        Raises:
            ConfigError: it cannot be imported, or is not of this kind.
        """
        value = self._import()
        if not (isinstance(value, type) and issubclass(value, kind)):
            raise ConfigError(
                f"{self.group}.{TARGET}={self.target} is not a class that derives from "
                f"{kind.__module__}.{kind.__qualname__}, which this needs."
            )
        return value

    def build(self, kind: type[T], given: Mapping[str, Any], offered: Mapping[str, Any]) -> T:
        """Return an object of the class, called with its arguments by name.

        `given` is what it is always called with besides, `offered` what it is if it takes it.

        Raises:
            ConfigError: it cannot be imported, is not of this kind, or does not take the arguments.
        """
        own = self.find(kind)
        takes = inspect.signature(own).parameters
        anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in takes.values())
        extra = {key: value for key, value in offered.items() if key in takes or anything}
        if "name" in takes and self.given_name is not None:
            extra["name"] = self.given_name
        arguments = {**extra, **given, **self.arguments}
        try:
            inspect.signature(own).bind(**arguments)
        except TypeError as error:
            raise ConfigError(
                f"{self.group}.{TARGET}={self.target} cannot be called with "
                f"{', '.join(arguments) or 'nothing'}: {error}. It takes ({', '.join(takes)})."
            ) from error
        with self.blamed("cannot be made"):
            return own(**arguments)
        raise AssertionError

    @contextmanager
    def blamed(self, what: str) -> Iterator[None]:
        """Tell an error of the user's own code in one sentence, with the place it comes from.

        Raises:
            ConfigError: `what` failed, and why. The traceback is its cause.
        """
        try:
            yield
        except BenchError:
            raise
        except (Exception, SystemExit) as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            raise ConfigError(
                f"{self.group}.{TARGET}={self.target} {what}: {type(error).__name__}: {error} "
                f"({last.filename}, line {last.lineno})."
            ) from error

    def _import(self) -> Any:
        module, _, name = self.target.rpartition(".")
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise self._broken(error) from error
            raise ConfigError(
                f"{self.group}.{TARGET}={self.target}: there is no module {error.name} among the "
                "installed packages, in the working directory, or in or beside the folder of "
                "--config-dir."
            ) from error
        except AttributeError as error:
            raise ConfigError(
                f"{self.group}.{TARGET}={self.target}: the module {module} has no {name}."
            ) from error
        except (Exception, SystemExit) as error:
            raise self._broken(error) from error

    def _broken(self, error: BaseException) -> ConfigError:
        return ConfigError(
            f"{self.group}.{TARGET}={self.target} cannot be imported: "
            f"{type(error).__name__}: {error}."
        )


def _find_special(arguments: Any) -> str | None:
    """Return Hydra's key for instantiation that stands anywhere in the arguments, if one does."""
    if isinstance(arguments, Mapping):
        for key, value in arguments.items():
            if isinstance(key, str) and key.startswith("_") and key.endswith("_"):
                return key
            if found := _find_special(value):
                return found
    if isinstance(arguments, list | tuple):
        return next(filter(None, map(_find_special, arguments)), None)
    return None


# --- Where modules are looked for -------------------------------------------------------------


def search_in(folders: Iterable[Path]) -> None:
    """Have modules looked for in these folders as well, last, so that none hides a package."""
    for folder in folders:
        if (path := str(folder.resolve())) not in sys.path:
            sys.path.append(path)


def config_dirs(runtime: Any) -> list[str]:
    """Return the folders of `--config-dir`, of Hydra's `runtime`."""
    return [s.path for s in runtime.config_sources if s.provider == "command-line"]


def beside(config_dir: str | Path | None) -> list[Path]:
    """Return the folders that `--config-dir` vouches for: itself, and the one that it lies in."""
    return [] if config_dir is None else [Path(config_dir), Path(config_dir).resolve().parent]


def refuse_unknown_source(part: Part, vouched: Iterable[Path]) -> None:
    """Refuse a part of a saved configuration whose module nobody has vouched for.

    Importing runs a module. It has to be installed, or to lie in one of the folders `vouched` for,
    as a file or as a package with an `__init__.py`: any folder is a namespace package to Python.

    Raises:
        ConfigError: says how to vouch for it.
    """
    top = part.target.partition(".")[0]
    if top == __name__.partition(".")[0] or top in packages_distributions():
        return  # this package may also run as it lies in a folder, installed nowhere
    found = PathFinder.find_spec(top, [str(folder.resolve()) for folder in vouched])
    if found is None or found.origin is None:
        raise ConfigError(
            f"This run was made with {part.group}.{TARGET}={part.target}, and {top} is not an "
            f"installed package: give the folder that has it, by --config-dir FOLDER on the "
            f"command line or config_dir= in Python."
        )
