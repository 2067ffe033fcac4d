"""The figures by which settings are compared, and how they are written."""

from dataclasses import dataclass

from mnist_bench.analysis.effects import Estimate
from mnist_bench.errors import ConfigError


@dataclass(frozen=True)
class Measure:
    """A key of summary.json. Accuracies are written in per cent, differences of them in points."""

    key: str

    @property
    def is_accuracy(self) -> bool:
        return self.key.endswith("accuracy")

    @property
    def higher_is_better(self) -> bool:
        return self.is_accuracy

    @property
    def name(self) -> str:
        return self.key.replace("val_", "validation_").replace("_", " ")

    @property
    def title(self) -> str:
        return f"{self.name}{', %' if self.is_accuracy else ''}"

    @property
    def unit(self) -> str:
        """Of differences, to stand behind a number."""
        return " points" if self.is_accuracy else ""

    def number(self, value: float | None, sign: str = "") -> str:
        """Return `99.17`, or `0.0255` of a loss, without its unit."""
        if value is None:
            return "-"
        if self.is_accuracy:
            return f"{round(100 * value, 2) + 0.0:{sign}.2f}"  # never -0.00
        return f"{round(value, 4) + 0.0:{sign}.4f}"

    def reach(self, value: float | None) -> str:
        """Return `± 0.07`; nothing where no interval can be told."""
        if value is None:
            return ""
        shown = self.number(value)
        least = self.number(0.0)[:-1] + "1"
        return f"± {shown}" if float(shown) else f"± <{least}"

    def estimate(self, found: Estimate, sign: str = "") -> str:
        """Return `99.17 ± 0.07`."""
        return f"{self.number(found.mean, sign)} {self.reach(found.reach)}".strip()


MEASURES = {
    key: Measure(key)
    for key in (
        *("test_accuracy", "val_accuracy", "test_loss", "val_loss"),
        *("test_balanced_accuracy", "val_balanced_accuracy", "test_top2_accuracy"),
    )
}


def find_measure(key: str) -> Measure:
    """Return a measure by the key of summary.json.

    Raises:
        ConfigError: there is none of that key.
    """
    if key not in MEASURES:
        raise ConfigError(f"--metric {key} is not there: choose one of {', '.join(MEASURES)}.")
    return MEASURES[key]
