"""Pairs of settings that were named before looking: Welch's test, and Holm's over all of them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mnist_bench.analysis.images import OnImages, RightImages, compare_on_images
from mnist_bench.analysis.measures import Measure
from mnist_bench.analysis.settings import Section, Setting, as_typed
from mnist_bench.analysis.statistics import Difference, holm, welch
from mnist_bench.errors import ConfigError

# A key, and one value or two; a comma in brackets is of a list.
VALUE = r"(?:\[[^\]]*\]|[^,\s\[\]]+)"
PART = re.compile(rf"([\w.]+)=({VALUE})(?:,({VALUE}))?")
EXAMPLE = 'such as --compare model.kernel_size=3,5 or --compare "kernel_size=3,5 dropout=0"'


@dataclass(frozen=True)
class NamedPair:
    """The first setting less the second; `p_holm` is None where there is no test."""

    section: Section
    first: Setting
    second: Setting
    difference: Difference
    p_holm: float | None
    images: OnImages | None

    @property
    def names(self) -> tuple[str, str]:
        """`kernel_size=3 less 5`, and the values of the other keys, `dropout=0`; or nothing."""
        apart: list[tuple[str, str, str]] = []
        same: list[tuple[str, str, str]] = []
        for key, name in self.section.short.items():
            one, other = as_typed(self.first.values[key]), as_typed(self.second.values[key])
            (same if one == other else apart).append((name, one, other))
        first = " ".join(f"{name}={one}" for name, one, _ in apart)
        second = " ".join(f"{name}={other}" for name, _, other in apart)
        if len(apart) == 1:
            second = apart[0][2]
        return f"{first} less {second}", " ".join(f"{name}={one}" for name, one, _ in same)


def named_pairs(
    wanted: Sequence[str], sections: Sequence[Section], measure: Measure, right: RightImages
) -> list[NamedPair]:
    """Compare the pairs that `--compare` names, at each value of the keys that it does not.

    Holm's correction is over all of them, as they are reported together.

    Raises:
        ConfigError: it is not understood, or names no two settings that are there.
    """
    pairs = [pair for text in wanted for pair in _find(text, sections)]
    found = [
        welch(first.figures(measure.key), second.figures(measure.key)) for _, first, second in pairs
    ]
    adjusted = iter(holm([d.p_value for d in found if d.p_value is not None]))
    return [
        NamedPair(
            section,
            first,
            second,
            difference,
            None if difference.p_value is None else next(adjusted),
            compare_on_images(first, second, right),
        )
        for (section, first, second), difference in zip(pairs, found, strict=True)
    ]


def keys_in(wanted: Sequence[str]) -> set[str]:
    """Return the keys that `--compare` names, as they were typed."""
    return {key for text in wanted for key, _, _ in _parse(text)}


def _parse(text: str) -> list[tuple[str, str, str]]:
    parts = PART.findall(text)
    if PART.sub("", text).strip() or not any(second for _, _, second in parts):
        raise ConfigError(
            f"--compare {text} is not understood: give keys with the two values to compare, "
            f"{EXAMPLE}."
        )
    return parts


def _find(text: str, sections: Sequence[Section]) -> list[tuple[Section, Setting, Setting]]:
    parts = _parse(text)
    pairs = []
    for section in sections:
        names = {name: key for key, name in section.short.items()} | {k: k for k in section.axes}
        if not all(key in names for key, _, _ in parts):
            continue
        first = {names[key]: one for key, one, _ in parts}
        second = {names[key]: other or one for key, one, other in parts}
        by_place = {
            tuple(as_typed(s.values[key]) for key in section.axes): s for s in section.settings
        }
        for place, setting in by_place.items():
            values = dict(zip(section.axes, place, strict=True))
            if all(values[key] == value for key, value in first.items()):
                other = by_place.get(tuple({**values, **second}[key] for key in section.axes))
                if other is not None and other is not setting:
                    pairs.append((section, setting, other))
    if not pairs:
        there = {
            f"{key}={','.join(map(as_typed, values))}"
            for section in sections
            for key, values in section.axes.items()
        }
        told = "; ".join(sorted(there)) or "nothing but the seed"
        raise ConfigError(
            f"--compare {text} names no two settings that have completed runs: these runs differ "
            f"in {told}."
        )
    return pairs
