"""What a sweep's folder remembers: which runs were asked for, by sweep.json, and how they stand."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mnist_bench.errors import DataError, naming
from mnist_bench.runs.standing import Standing, standing

FILE = "sweep.json"
KINDS = {"shared": list, "varied": list, "moved": list, "bases": dict, "jobs": dict}


class SweepFolder:
    """The folder of a sweep."""

    def __init__(self, path: Path):
        self.path = path
        self.file = path / FILE

    def names(self) -> dict[str, str]:
        """Return the folder of every run that is planned or there, by digest."""
        return dict(self._read().get("jobs", {}))

    def varied(self) -> list[str]:
        """Return the keys that vary among the runs that were asked for."""
        return list(self._read().get("varied", []))

    def standings(self) -> Iterator[Standing]:
        """Yield how each run that was asked for stands, in the order of asking."""
        for own, name in self.names().items():
            yield standing(self.path / name, own)

    def command(self) -> str:
        """Return the command line that was given last; nothing if none is known."""
        return str(self._read().get("command", ""))

    def _read(self) -> dict[str, Any]:
        try:
            with naming(self.file):
                content = json.loads(self.file.read_text())
            for key, kind in KINDS.items():
                if not isinstance(content[key], kind):
                    raise ValueError(f"its {key} are no {kind.__name__}")
            if any(Path(name).name != name for name in content["jobs"].values()):
                raise ValueError("a run is not in its folder")
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.file} is damaged ({error}): remove it, and the runs beside it are found "
                f"again."
            ) from error
        assert isinstance(content, dict)
        return content
