"""What values a configuration's fields may have, declared beside each field of a dataclass."""

from collections.abc import Callable
from dataclasses import field
from typing import Any

from omegaconf import MISSING


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def allowed(test: Callable[[Any], bool], text: str, default: Any = MISSING) -> Any:
    """Declare a field's range: `test` holds for what is allowed, `text` completes "must be …"."""
    return field(default=default, metadata={"test": test, "text": text})


def positive(default: Any = MISSING) -> Any:
    return allowed(lambda v: 0 < v < float("inf"), "a number above 0", default)


def not_negative(default: Any = MISSING) -> Any:
    return allowed(lambda v: 0 <= v < float("inf"), "a number of at least 0", default)


def fraction(default: Any = MISSING) -> Any:
    return allowed(lambda v: 0 <= v < 1, "a number from 0 to below 1", default)


def decays() -> Any:
    def holds(values: Any) -> bool:
        return len(values) == 2 and all(0 <= value < 1 for value in values)

    return allowed(holds, "two numbers from 0 to below 1")


def at_least(low: int, default: Any = MISSING) -> Any:
    return allowed(lambda v: v >= low, f"a whole number of at least {low}", default)


def each(test: Callable[[Any], bool], text: str) -> Any:
    """Like `allowed`, for a list: `test` must hold for every element."""
    return allowed(lambda values: all(test(v) for v in values), text)


def one_or_each(test: Callable[[Any], bool], text: str, default: Any = MISSING) -> Any:
    """Like `each`, for a field that also takes a single value for all layers."""

    def holds(value: Any) -> bool:
        return all(test(v) for v in value) if isinstance(value, list) else test(value)

    return allowed(holds, text, default)


def whole_for_each(default: Any = MISSING) -> Any:
    text = "a whole number of at least 1, or a list of them"
    return one_or_each(lambda v: is_whole(v) and v >= 1, text, default)


def one_size_or_two() -> Any:
    """Rows and columns of an image: one number for both, a list of the two, or None."""

    def holds(value: Any) -> bool:
        sizes = value if isinstance(value, list) else [value, value]
        return value is None or (len(sizes) == 2 and all(is_whole(v) and v >= 1 for v in sizes))

    text = "a whole number of at least 1, a list of two (rows, columns), or null"
    return allowed(holds, text, None)
