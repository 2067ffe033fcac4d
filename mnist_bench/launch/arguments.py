"""A command line as it is typed, and as Hydra takes it."""

import re
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException

from mnist_bench.config.compose import CONF, quoted
from mnist_bench.config.habits import HABITS
from mnist_bench.errors import ConfigError

# Hydra's options, and the values of those that have one; `()` is any.
SWITCHES = {"-h", "--help", "--hydra-help", "--resolve", "-r", "--run", "-m", "--multirun"}
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
VALUES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("-c", "--cfg"), ("job", "hydra", "all")),
    **dict.fromkeys(("-i", "--info"), INFO),
    **dict.fromkeys(("-p", "--package"), ()),
    **dict.fromkeys(("-cd", "--config-dir"), ()),
    **dict.fromkeys(("-cn", "--config-name"), ()),
    **dict.fromkeys(("-cp", "--config-path"), ()),
}
# What is done; one at a time.
VERBS = {"-m": "-m", "--multirun": "-m", "-c": "--cfg", "--cfg": "--cfg"}
VERBS |= {"-i": "--info", "--info": "--info", "-r": "--run", "--run": "--run"}
# The groups in which nothing is chosen by default, those that can be done without, and those in
# which several may be chosen.
OPTIONAL = {"experiment", "sweep"}
SPARE = {*OPTIONAL, "logger", "augmentation"}
SEVERAL = {"logger", "experiment"}


NAME = re.compile(r"(?P<key>\+*sweep\.name)=(?P<name>(?!null$)[\w.+=-]+)", re.IGNORECASE)


def as_typed(argument: str) -> str:
    """Return an argument so that Hydra takes a path, or a sweep's name, as it was typed.

    It would have `=` and others in quotes, and of names make 1000.0 of 1e3, and 7 of 007.
    """
    if name := NAME.fullmatch(argument):
        if any(override.value() == name["name"] for override in _parse([argument])):
            return argument
        return f"{name['key']}={quoted(name['name'])}"
    key, _, path = argument.partition("=")
    plain = key != "resume" or path[:1] in ("'", '"') or "\\" in path or "${" in path
    return argument if plain else f"resume={quoted(path)}"


def arrange(arguments: Sequence[str]) -> list[str]:
    """Return a command line as Hydra reads it: settings, then options, wherever these stood.

    Raises:
        ConfigError: an option is none, lacks its value, or does not go with another; or of a group
            nothing is chosen.
    """
    if {"-sc", "--shell-completion"} & {*arguments}:
        return list(arguments)
    settings: list[str] = []
    options: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument.startswith("-"):
            options += _option(argument, rest)
        elif argument not in {f"{group}=null" for group in OPTIONAL}:  # as it is anyway
            settings.append(argument)
    _refuse_two_verbs(options)
    parsed = _parse(settings)
    for override in parsed:
        _refuse_no_choice(override)
    if {"-m", "--multirun"} & {*options}:
        settings = _hold(settings, parsed)
    return [*settings, *options]


def _option(argument: str, rest: list[str]) -> list[str]:
    """Return an option with its value, which is taken off what follows it."""
    name, equals, value = argument.partition("=")
    if name.startswith("--"):  # which may be abbreviated
        whole = [known for known in (*SWITCHES, *VALUES) if known.startswith(name)]
        name = whole[0] if len(whole) == 1 else name
    if name in SWITCHES and not equals:
        return [name]
    if name not in VALUES:
        raise ConfigError(_unknown_option(name, value or (rest or [""])[0]))
    allowed = VALUES[name]
    if not equals:
        if allowed is INFO and (not rest or rest[0] not in INFO):
            return [name]
        if not rest:
            raise ConfigError(f"{name} needs a value: {_one_of(allowed)}.")
        value = rest.pop(0)
    if allowed and value not in allowed:
        raise ConfigError(f"{name} {value} is not there: {_one_of(allowed)}.")
    return [name, value]


def _one_of(allowed: tuple[str, ...]) -> str:
    return f"give one of {', '.join(allowed)}" if allowed else "it comes right behind"


def _unknown_option(option: str, value: str) -> str:
    """What is meant by an option is often a setting."""
    name = option.lstrip("-").replace("-", "_")
    if name in SWITCHES:
        return f"{option} has no value: leave that out."
    if (CONF / name).is_dir() or "." in name or name == "seed":
        setting = name
    else:
        setting = HABITS.get(name, "")
    if not setting or " " in setting or "-" in value[:1]:
        return (
            f"{option} is not an option: settings are given as KEY=VALUE, without dashes, and "
            f"--help lists them."
        )
    given = setting if setting.endswith("=NAME") else f"{setting}={value or 'VALUE'}"
    return f"{option} is not an option: give {given}, without dashes."


def _refuse_two_verbs(options: Sequence[str]) -> None:
    verbs = list(dict.fromkeys(VERBS[option] for option in options if option in VERBS))
    if len(verbs) > 1:
        raise ConfigError(
            f"{' and '.join(verbs)} do not go together: give one of them. --cfg and --info are "
            f"about a single run, and train nothing."
        )
    if "--resolve" in options and "--cfg" not in verbs and not {"-h", "--help"} & {*options}:
        raise ConfigError("--resolve goes with --cfg job: give both.")


def _parse(settings: list[str]) -> list[Override]:
    """Return settings parsed, or nothing if that cannot be: Hydra says then what is wrong."""
    try:
        parsed: list[Override] = OverridesParser.create().parse_overrides(settings)
    except HydraException:
        return []
    return parsed


def _is_group(key: str) -> bool:
    return key.startswith("hydra/") or (CONF / key).is_dir()


def _refuse_no_choice(override: Override) -> None:
    """Refuse what is no name of a file where one is chosen; a dict sets keys instead."""
    key = override.key_or_group
    if override.is_delete():
        if "." not in key and key not in SPARE:
            raise ConfigError(f"{override.input_line}: every run has a {key}, give another value.")
        return
    if not _is_group(key) or override.value_type is None:
        return
    if override.value_type in (ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP):
        values: list[Any] = list(override.sweep_iterator())
    else:
        values = [override.value()]
    no_names: tuple[type, ...] = (int, float, type(None))
    if not key.startswith("hydra/") and key not in SEVERAL:
        no_names += (list,)
    if any(isinstance(value, no_names) or value == "" for value in values):
        names = sorted(path.stem for path in (CONF / key).glob("*.yaml"))
        choose = f"choose among {', '.join(names)}, or leave it out" if names else "leave it out"
        raise ConfigError(f"{override.input_line} is no choice of {key}: {choose}.")


# --- Settings of a group of which several choices are swept ------------------------------------

# Hydra composes a sweep's own configuration without what varies, so with the default of a swept
# group, which may not have a key that all its choices have. Held back as a sweep over one value,
# such settings are passed over there.
HELD = re.compile(r"(?P<key>[^=]+)=tag\(held,choice\((?P<value>.*)\)\)", re.DOTALL)


def _hold(settings: list[str], parsed: Sequence[Override]) -> list[str]:
    if not any(o.is_sweep_override() and (CONF / o.key_or_group).is_dir() for o in parsed):
        return settings
    return [
        f"{o.get_key_element()}=tag(held,choice({o.get_value_string()}))" if _waits(o) else setting
        for setting, o in zip(settings, parsed, strict=True)
    ]


def _waits(override: Override) -> bool:
    group, dot, _ = override.key_or_group.partition(".")
    plain = not (override.is_sweep_override() or override.is_delete())
    return plain and dot == "." and group not in ("hydra", "sweep") and override.value() != ""


def release(settings: Sequence[str]) -> list[str]:
    """Return settings as they were given."""
    return [HELD.sub(r"\g<key>=\g<value>", setting) for setting in settings]
