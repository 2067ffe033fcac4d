"""The errors a user can cause or meet: one clear sentence, shown without a traceback.

Every error pickles, as launchers send them from one process to another.
"""


class BenchError(Exception):
    """Base of every error whose message is written for the user."""


class ConfigError(BenchError):
    """What the user wrote cannot be: names the key, the value and what is allowed."""


class DataError(BenchError):
    """A file does not hold what it should: names the file, what was found and what was expected."""


class TrainingError(BenchError):
    """Training cannot go on, for example because the loss is no longer finite."""
