"""A run's folder from a file of Keras, and a file of Keras from a run's folder."""

import hashlib
import itertools
import shlex
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from omegaconf import DictConfig

from mnist_bench.config.compose import compose
from mnist_bench.config.read import to_config
from mnist_bench.config.schema import ModelConfig
from mnist_bench.errors import ConfigError
from mnist_bench.exchange.keras.layers import as_convnet, fill_from_keras, to_keras
from mnist_bench.exchange.keras.model_config import Description, check_same_layers
from mnist_bench.exchange.keras.reading import KerasFile, read_keras_file
from mnist_bench.exchange.keras.readings import Reading, check_rescaling, find_better_reading
from mnist_bench.exchange.keras.writing import write_keras_file
from mnist_bench.loggers.artist import ARTIST
from mnist_bench.loggers.base import Loggers
from mnist_bench.loggers.console import as_text, info, layers_table
from mnist_bench.models import ConvNet, summarise
from mnist_bench.runs.checkpoint import write_checkpoint
from mnist_bench.runs.figures import hand_over
from mnist_bench.runs.folder import RunFolder, make_folder
from mnist_bench.runs.load import load
from mnist_bench.runs.records import write_command, write_metrics
from mnist_bench.runs.run import Run, describe_test


def import_run(
    file: Path, folder: Path, overrides: Sequence[str], flatten: str | None = None
) -> str:
    """Make the folder of a run that has the file's weights and has trained for no epoch.

    `overrides` are train.py's: the network, the data it is tested on, the training that `resume=`
    would go on with. `flatten` is `channels_first` or `channels_last` (none: the latter) for a file
    that does not tell. The network is tested in fp32 unless the overrides say otherwise, and where
    another scaling of pixels or another order fits clearly better, that is told. Returns lines that
    tell how the test went.

    Raises:
        BenchError: the file holds another network, the configuration cannot be, or the folder is
            in use. Nothing has been written then.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already: choose another folder for the run.")
    content = read_keras_file(file)
    channels_first = _flattens_channels_first(content.described, flatten)
    composed, hydra = compose(["trainer.precision=fp32", *overrides])
    if composed.resume is not None:
        raise ConfigError("resume= goes on with a run: import the file first, then resume.")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    composed.imported_from = f"{file.name}, sha256 {digest}"
    config = to_config(composed)
    run = Run(config, RunFolder(folder), info)
    _fill(run, content, str(file), channels_first)
    better = _find_better(run, content, channels_first)

    make_folder(folder, "--out")
    write_command(run.folder, composed, DictConfig({"hydra": hydra}))
    for path, checkpoint in run.checkpoints().items():
        write_checkpoint(path, checkpoint)
    write_metrics(run.folder, [])
    summary = run.test("imported", None, str(better) if better else _what_else(content.described))
    if better and not summary["warning"]:
        summary["warning"] = f"{file.name} was made for something else: {better}."
    layers = summarise(run.learner.network, run.splits.image_shape)
    with closing(Loggers(config.logger)) as loggers:
        loggers.start(run.info(as_text(layers_table(config.model.name, layers))))
        loggers.end(summary)
    run.finish(summary)
    if config.trainer.figures:
        hand_over(run, summary)
        ARTIST.wait()
    told = [f"Accuracy on the test images of {config.data.name}: {describe_test(summary)}"]
    if content.described is not None and content.described.left_out:
        left_out = ", ".join(dict.fromkeys(content.described.left_out))
        told.append(f"Left out, as they do nothing but in training: {left_out}.")
    if summary["warning"]:
        told.append(summary["warning"])
    if better:
        told.append(f"To read it so: {_read_again(better, file, folder, overrides)}")
    return "\n".join(told)


def _fill(run: Run, content: KerasFile, source: str, channels_first: bool) -> None:
    """Set the weights of a run's network, if they are of such a network, and used as it does."""
    network, described = run.learner.network, content.described
    if described is not None:
        check_same_layers(described, as_convnet(network))
        if described.rescaling is not None:
            check_rescaling(described.rescaling, run.splits, source)
    fill_from_keras(network, content.weighted, source, channels_first)
    if run.learner.average is not None:
        run.learner.average.begin_anew(network)


def _flattens_channels_first(described: Description | None, flatten: str | None) -> bool:
    if flatten not in (None, "channels_first", "channels_last"):
        raise ConfigError(f"--flatten {flatten} is neither channels_first nor channels_last.")
    if described is None:
        return flatten == "channels_first"
    if flatten is not None:
        raise ConfigError(f"{described.source} tells how maps are flattened: leave out --flatten.")
    return described.flattens_channels_first


def _find_better(run: Run, content: KerasFile, channels_first: bool) -> Reading | None:
    """Return another way to read a file that fits clearly better, if it leaves that open."""
    described = content.described
    if described is not None and described.rescaling is not None:
        return None
    network, scaling = as_convnet(run.learner.network), run.config.data.scaling
    return find_better_reading(network, run.splits, scaling, channels_first, described is not None)


def _what_else(described: Description | None) -> str:
    """Return what is left if no way of reading a file makes its network better than a guess."""
    if described is None:
        return (
            "no data.scaling and no --flatten is better: it was saved from other layers "
            "(activations or padding, say), of other data or before training; the whole model, or "
            "its model.json beside the weights, tells the layers"
        )
    return "no data.scaling is better: it was trained on other data, or not at all"


def _read_again(better: Reading, file: Path, folder: Path, overrides: Sequence[str]) -> str:
    """Return the command that imports a file in a better way, to a folder beside the first."""
    model = next(o.removeprefix("model=") for o in overrides if o.startswith("model="))
    rest = [o for o in overrides if not o.startswith(("model=", "data.scaling="))]
    out = next(
        beside
        for number in itertools.count(2)
        if not (beside := folder.with_name(f"{folder.name}-{number}")).exists()
    )
    return shlex.join(
        [
            *("mnist-bench", "import-keras", str(file), "--model", model, "--out", str(out)),
            *better.options.split(),
            *rest,
        ]
    )


def export_run(folder: Path, file: Path) -> str:
    """Write the weights that a run was tested with to a file of Keras, and tell which they are.

    Raises:
        BenchError: the folder is not that of a run, or the file cannot be written.
    """
    trained = load(folder)
    if not isinstance(trained.network, ConvNet):
        raise ConfigError(
            f"{folder} has a network of your own, {trained.config.model.target}: only those of "
            f"conf/model/ that are described by channels and dense layers can be exported to Keras."
        )
    model = trained.config.model
    assert isinstance(model, ModelConfig)
    initializers = model.initializer.name, model.output_initializer.name
    layers = to_keras(trained.network)
    write_keras_file(file, layers, model.name, trained.image_shape, initializers)
    return f"{model.name} {trained.when}"
