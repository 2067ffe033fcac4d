"""Figures as SVG: marks with classes, whose colours the page gives in either theme."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Mark:
    """An element of SVG; the template escapes what it holds."""

    tag: str
    attributes: dict[str, str]
    text: str = ""


@dataclass
class Drawing:
    """A figure of a size in CSS pixels; `label` says to those who do not see it what it shows."""

    width: float
    height: float
    label: str
    title: str = ""
    marks: list[Mark] = field(default_factory=list)

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> None:
        own = {"x": _n(x), "y": _n(y), "class": kind, "text-anchor": anchor}
        self.marks.append(Mark("text", own, text))

    def turned_text(self, x: float, y: float, text: str) -> None:
        own = {"transform": f"translate({_n(x)} {_n(y)}) rotate(-90)", "class": "axis"}
        self.marks.append(Mark("text", {**own, "text-anchor": "middle"}, text))

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        ends = {"x1": _n(x1), "y1": _n(y1), "x2": _n(x2), "y2": _n(y2)}
        self.marks.append(Mark("line", {**ends, "class": kind}))

    def dot(self, x: float, y: float, radius: float, kind: str) -> None:
        self.marks.append(
            Mark("circle", {"cx": _n(x), "cy": _n(y), "r": _n(radius), "class": kind})
        )

    def box(
        self, x: float, y: float, width: float, height: float, kind: str, style: str = ""
    ) -> None:
        own = {"x": _n(x), "y": _n(y), "width": _n(width), "height": _n(height), "rx": "3"}
        self.marks.append(
            Mark("rect", {**own, "class": kind, **({"style": style} if style else {})})
        )

    def path(self, points: Points, kind: str, closed: bool = False) -> None:
        steps = " L".join(f"{_n(x)} {_n(y)}" for x, y in points)
        self.marks.append(Mark("path", {"d": f"M{steps}{' Z' if closed else ''}", "class": kind}))


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


@dataclass(frozen=True)
class Scale:
    """From values `low` to `high` to pixels `start` to `end`, or from their logarithms."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self._inner(self.low), self._inner(self.high)
        part = (self._inner(value) - low) / (high - low) if high > low else 0.5
        return self.start + part * (self.end - self.start)

    def _inner(self, value: float) -> float:
        return math.log10(value) if self.is_log else value

    def ticks(self, most: int = 4) -> list[float]:
        """Return round values within, as many as there is room for."""
        return _log_ticks(self.low, self.high, most) if self.is_log else self._even_ticks(most)

    def _even_ticks(self, most: int) -> list[float]:
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        size = 10 ** math.floor(math.log10(span))
        steps = [size * step for step in (0.1, 0.2, 0.25, 0.5, 1, 2, 5)]
        for step in steps:
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            if last - first + 1 <= most:
                return [number * step for number in range(first, last + 1)]
        return [self.low]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [digit * 10.0**decade for decade in decades for digit in digits]
        ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
        if len(ticks) <= most:
            return ticks
    return ticks[:: math.ceil(len(ticks) / most)]
