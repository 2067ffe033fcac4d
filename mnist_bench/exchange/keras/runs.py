"""A run's folder from a file of Keras, and a file of Keras from a run's folder."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from mnist_bench.config.compose import compose, write_hydra_folder
from mnist_bench.config.schema import load_config, to_config
from mnist_bench.errors import ConfigError
from mnist_bench.exchange.keras.layers import fill_from_keras, to_keras
from mnist_bench.exchange.keras.model_config import check_same_layers
from mnist_bench.exchange.keras.reading import read_keras_file
from mnist_bench.exchange.keras.writing import write_keras_file
from mnist_bench.models import build_network
from mnist_bench.runs.begin import begin
from mnist_bench.runs.checkpoint import LAST, read_tested_weights, training_state, write_checkpoint
from mnist_bench.runs.ending import describe_test, record_test
from mnist_bench.runs.records import write_metrics


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
    this = begin(config, folder)
    network = this.learner.network
    if content.described is not None:
        check_same_layers(content.described, to_keras(network), str(file))
    fill_from_keras(network, content.weighted, str(file))
    if this.learner.average is not None:
        this.learner.average.begin_anew(network)

    try:
        write_hydra_folder(folder, composed, hydra)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror}.") from error
    write_checkpoint(folder / LAST, training_state(this.learner, this.position))
    write_metrics(folder, [])
    return describe_test(record_test(this, "imported", None))


def export_run(folder: Path, file: Path) -> str:
    """Write the weights that a run was tested with to a file of Keras, and tell which they are.

    Raises:
        BenchError: the folder is not that of a run, or the file cannot be written.
    """
    weights, when = read_tested_weights(folder)
    config = to_config(load_config(folder / ".hydra" / "config.yaml"))
    num_classes = len(weights["classifier.output.bias"])
    with torch.device("meta"):
        network = build_network(config.model, num_classes)
    network.load_state_dict(weights, assign=True)
    write_keras_file(file, to_keras(network), config.model.name)
    return f"{config.model.name} {when}"
