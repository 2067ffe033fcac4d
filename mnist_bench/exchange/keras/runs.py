"""A run's folder from a file of Keras, and a file of Keras from a run's folder."""

import hashlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from omegaconf import DictConfig

from mnist_bench.config.compose import compose
from mnist_bench.config.read import to_config
from mnist_bench.errors import ConfigError
from mnist_bench.exchange.keras.layers import fill_from_keras, to_keras
from mnist_bench.exchange.keras.model_config import check_same_layers
from mnist_bench.exchange.keras.reading import read_keras_file
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


def import_run(file: Path, folder: Path, overrides: Sequence[str]) -> str:
    """Make the folder of a run that has the file's weights and has trained for no epoch.

    `overrides` are train.py's: the network, the data it is tested on, the training that `resume=`
    would go on with. The network is tested in fp32 unless they say otherwise. Returns a line that
    tells how the test went.

    Raises:
        BenchError: the file holds another network, the configuration cannot be, or the folder is
            in use. Nothing has been written then.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already: choose another folder for the run.")
    content = read_keras_file(file)
    composed, hydra = compose(["trainer.precision=fp32", *overrides])
    if composed.resume is not None:
        raise ConfigError("resume= goes on with a run: import the file first, then resume.")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    composed.imported_from = f"{file.name}, sha256 {digest}"
    config = to_config(composed)
    run = Run(config, RunFolder(folder), info)
    network = run.learner.network
    assert isinstance(network, ConvNet)
    if content.described is not None:
        check_same_layers(content.described, to_keras(network), str(file))
    fill_from_keras(network, content.weighted, str(file))
    if run.learner.average is not None:
        run.learner.average.begin_anew(network)

    make_folder(folder, "--out")
    write_command(run.folder, composed, DictConfig({"hydra": hydra}))
    for path, checkpoint in run.checkpoints().items():
        write_checkpoint(path, checkpoint)
    write_metrics(run.folder, [])
    summary = run.test("imported", None)
    with closing(Loggers(config.logger)) as loggers:
        loggers.start(
            run.info(
                as_text(layers_table(config.model.name, summarise(network, run.splits.image_shape)))
            )
        )
        loggers.end(summary)
    run.finish(summary)
    if config.trainer.figures:
        hand_over(run, summary)
        ARTIST.wait()
    told = f"Accuracy on the test images of {config.data.name}: {describe_test(summary)}"
    return "\n".join(filter(None, (told, summary["warning"])))


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
    write_keras_file(
        file, to_keras(trained.network), trained.config.model.name, trained.image_shape
    )
    return f"{trained.config.model.name} {trained.when}"
