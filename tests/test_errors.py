"""What is raised comes through a pipe between processes as it was."""

import importlib
import inspect
import pickle
import pkgutil
import signal

import mnist_bench
from mnist_bench.errors import BenchError, ConfigError, DataError, TrainingError
from mnist_bench.runs.folder import InUse
from mnist_bench.training.interrupt import Interrupted, OutOfTime

MADE_FROM: dict[type[BaseException], tuple[object, ...]] = {
    Interrupted: (signal.SIGTERM,),
    OutOfTime: (60.0,),
}
# A Triton kernel: not to be imported without Triton.
LEFT_OUT = "mnist_bench.training.optimizers.adadelta"


def exceptions() -> set[type[BaseException]]:
    names = [m.name for m in pkgutil.walk_packages(mnist_bench.__path__, "mnist_bench.")]
    modules = [
        importlib.import_module(name)
        for name in names
        if name != LEFT_OUT and not name.endswith("__main__")
    ]
    return {
        value
        for module in modules
        for _, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, BaseException) and value.__module__.startswith("mnist_bench.")
    }


def test_every_error_pickles() -> None:
    found = exceptions()
    assert found >= {BenchError, ConfigError, DataError, TrainingError, InUse, *MADE_FROM}
    for kind in found:
        error = kind(*MADE_FROM.get(kind, ("one sentence",)))
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind and str(again) == str(error) and vars(again) == vars(error)
        assert getattr(again, "code", None) == getattr(error, "code", None)
